"""Inspection: its verdict is the edge's, its rows say why, and nothing in them could be used again."""

from __future__ import annotations

import base64
import itertools
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.commands.inspection import Beliefs, Inspection, Mark, inspect
from edge.commands.question import question
from edge.core.credentials import Family, Key, verify
from edge.core.decide import decide
from edge.core.decision import Asked, Learn, Refuse, Verify
from edge.core.records import Missing, Transport
from edge.core.target import parse_target
from edge.core.token_cache import TokenCache
from tests.core.previews import COOKIES, EXPECT, FORGED, ISSUED, KEYS, NOW, SITE, TARGET, token
from tests.core.wires import UPGRADE, calm, request, scan

HOST = f"{TARGET.port}-sb-aaaaaaaa.{SITE}"
BELIEFS = Beliefs(KEYS, EXPECT, websocket_cookie=False)
HTTP, WEBSOCKET = Transport.HTTP, Transport.WEBSOCKET


def looked_at(
    text: str | bytes, host: str | None = HOST, *, websocket: bool = False, now: float = NOW
) -> Inspection:
    """An inspection of a token or URL."""
    text = text.decode() if isinstance(text, bytes) else text
    return inspect(question(text, host, websocket=websocket), BELIEFS, now)


def code(found: Inspection) -> str:
    """The verdict in one word."""
    return found.problem.code if found.problem is not None else ""


class Sight:
    """What the edge knows: the keys, and nothing else."""

    keys, expect, websocket_cookie = KEYS, EXPECT, False

    def __init__(self) -> None:
        self.tokens = TokenCache(10)

    def target(self, host: bytes) -> Any:
        return parse_target(host, SITE)

    def sandbox(self, _: str) -> Missing:
        return Missing.UNKNOWN

    grant = sandbox

    def passes_bare(self, _: Any) -> bool:
        return False

    def has_room(self, _: str) -> bool:
        return True


def edge_says(target: bytes, *lines: bytes, host: str = HOST, websocket: bool = False) -> str:
    """The code with which the edge itself refuses; empty when it goes on to look the sandbox up."""
    more = UPGRADE if websocket else ()
    line = b"GET " + target + b" HTTP/1.1"
    block = request(*lines, *more, line=line, host=host.encode())
    view = Sight()
    asked = Asked(b"__Host-ns_preview", b"https://" + host.encode())
    while isinstance(decision := decide(scan(block), asked, view, NOW), Verify):
        claims = decision.peeked.claims if verify(decision.token, decision.peeked) else None
        view.tokens.remember(decision.family, decision.token, claims)
    if isinstance(decision, Learn):
        return decision.names.invalid.code
    return decision.error.problem.code if isinstance(decision, Refuse) else ""


def carried(family: Family, made: bytes) -> tuple[bytes, bytes]:
    """Request target and field that carry a token of this family."""
    return {
        Family.EDGE: (b"/?edge_token=" + made, b"X: y"),
        Family.PROXY: (b"/", b"x-nullspace-preview-proxy-token: " + made),
        Family.CONTINUATION: (b"/", b"Cookie: __Host-ns_preview=" + made),
    }[family]


CHANGES: dict[str, dict[str, Any]] = {
    "good": {},
    "for sockets": {"kind": WEBSOCKET},
    "expired": {"exp": NOW},
    "future": {"iat": NOW + 6},
    "other sandbox": {"sub": "sb_bbbbbbbb"},
    "other port": {"port": 3001},
    "other issuer": {"iss": "evil"},
    "other audience": {"aud": "evil.example"},
    "forged": {"key": FORGED},
    "unknown key": {"key": replace(ISSUED, kid="k9")},
    "other algorithm": {"key": Key("k1", "HS512", ISSUED.material * 2)},
    "cookie's key": {"key": COOKIES},
}


@pytest.mark.parametrize(
    ("family", "websocket", "change"), list(itertools.product(Family, [False, True], CHANGES))
)
def test_the_verdict_is_the_edges(family: Family, websocket: bool, change: str) -> None:
    """For every family, transport and flaw; and where a token is refused, a row says no."""
    changes = dict(CHANGES[change])
    if change == "forged" and family is Family.CONTINUATION:
        changes["key"] = replace(FORGED, kid="c1")
    made = token(family, **changes)
    found = looked_at(made, websocket=websocket)
    target, field = carried(family, made)
    assert code(found) == edge_says(target, field, websocket=websocket)
    assert (found.problem is None) == all(row.mark is not Mark.WRONG for row in found.rows)


@given(st.data())
@calm
def test_the_verdict_is_the_edges_for_any_damage(data: st.DataObject) -> None:
    """Bytes changed, cut and put in anywhere: never an exception, never another answer than the edge's."""
    made = bytearray(token())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(made)))
        letters = st.text("AZaz09_-.", max_size=2)
        made[place : place + data.draw(st.integers(0, 2))] = data.draw(letters).encode()
    damaged = bytes(made)
    found = looked_at(damaged)
    # Where the family can no longer be read, the edge still knows where the token was.
    assert code(found) == edge_says(b"/?edge_token=" + damaged)
    assert (found.problem is None) == all(row.mark is not Mark.WRONG for row in found.rows)


def header_of(**changes: object) -> str:
    """A token with another header, and no signature to speak of."""
    said = {"alg": "HS256", "kid": "k1", "typ": "ns-edge+jwt"} | changes
    part = base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()
    _, payload, signature = token().decode().split(".")
    return f"{part}.{payload}.{signature}"


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("garbage", "form", "not a token"),
        ("a" * 5000, "form", "more than tokens.max_bytes"),
        (header_of(crit=["x"]), "form", "crit"),
        (header_of(typ="JWT"), "family", "typ is JWT"),
        (header_of(kid="k9"), "key", "k9 is unknown; known: k1"),
        (header_of(kid=["k1"]), "key", "is unknown"),
        (header_of(alg="none"), "algorithm", "none; the key is for HS256"),
        (header_of(), "signature", "not made by this key"),
        (token(iss="x"), "issuer", "x; expected nullspace"),
        (token(aud="x"), "audience", f"x; expected {SITE}"),
        (token(jti=""), "claims", "empty"),
        (token(exp=NOW - 60), "expires", "60 s ago"),
        (token(iat=NOW + 7200), "issued", "in 2 h"),
        (token(exp=1e300, port=1), "scope", "http_port of port 3000 of sb_aaaaaaaa"),
        (f"https://{HOST}/", "url", "no edge_token"),
        (f"https://{HOST}/?edge_token=a&edge_token=b", "url", "different"),
        (f"https://{HOST}/?__ns_preview_transport=header", "url", "in a header"),
        ("https://evil.example/?edge_token=a", "host", "no preview host"),
        (f"https://22-sb-aaaaaaaa.{SITE}/?edge_token=a", "host", "a port without previews"),
        ("\udcff" + token().decode(), "form", "not a token"),
        (f"https://{HOST}/?edge_token=\udcff", "form", "not a token"),
    ],
)
def test_the_row_that_says_why(text: str | bytes, name: str, said: str) -> None:
    """Each flaw has its row, marked as such."""
    found = looked_at(text, host=None if "://" in str(text) else HOST)
    (row,) = [row for row in found.rows if row.name == name]
    assert row.mark is Mark.WRONG and said in row.text
    assert found.problem is not None


def test_urls_bring_their_host_and_transport() -> None:
    """A whole link, with percent-encoding, other pairs, a fragment, or without its scheme."""
    http, ws = token().decode(), token(kind=WEBSOCKET).decode()
    for text in (
        f"https://{HOST}/a?b=1&edge_token={http}#f?edge_token=x",
        f"http://me@{HOST}:3001?edge_token={http.replace('.', '%2E')}&edge_token={http}",
        f"{HOST}/?edge_token={http}",
        f"wss://{HOST}/?edge_token={ws}",
        f"?edge_token={http}&next=http://x/",
    ):
        assert code(looked_at(text, host=None)) == "", text
    for text, host, websocket in (
        (f"https://{HOST}/?edge_token={ws}", None, False),
        (f"https://{HOST}/?edge_token={http}", None, True),
        (f"https://{HOST}/?edge_token={http}", HOST.replace("3000", "3001"), False),
    ):
        found = looked_at(text, host, websocket=websocket)
        assert code(found) == "edge_token_scope_mismatch"
    for family in (Family.PROXY, Family.CONTINUATION):
        found = looked_at(f"https://{HOST}/?edge_token={token(family).decode()}", None)
        assert code(found) == "edge_token_invalid"
        assert any("never into a URL" in row.text for row in found.rows)


def test_without_a_host_the_scope_is_left_open() -> None:
    """The rest is judged; what it is for is told."""
    for kind in Transport:
        found = looked_at(token(kind=kind), None)
        assert code(found) == ""
        (row,) = [row for row in found.rows if row.name == "scope"]
        assert row.mark is Mark.OPEN and kind.value in row.text


def test_a_cookie_may_open_sockets_where_the_settings_say_so() -> None:
    """``websocket_continuation``: told, with its condition."""
    asked = question(token(Family.CONTINUATION).decode(), HOST, websocket=True)
    assert code(inspect(asked, BELIEFS, NOW)) == "edge_token_missing"
    found = inspect(asked, replace(BELIEFS, websocket_cookie=True), NOW)
    assert code(found) == "" and any("own origin" in row.text for row in found.rows)


@pytest.mark.parametrize("family", Family)
def test_nothing_that_is_shown_could_be_used(family: Family) -> None:
    """No part of the token, no jti; a hostile key id can neither smuggle a token out nor drive a terminal."""
    made = token(family).decode()
    texts = [made, made[:-5] + "AAAAA", f"https://{HOST}/?edge_token={made}", made + "x" * 5000]
    hostile = header_of(kid=f"\x1b[31m{made}" + "\n" * 200)
    for text in [*texts, hostile]:
        shown = "\n".join(row.text for row in looked_at(text, HOST).rows)
        for part in made.split("."):
            assert part not in shown and part[-12:] not in shown
        assert "jti-1" not in shown and "\x1b" not in shown
    assert all("\n" not in row.text for row in looked_at(hostile).rows)
