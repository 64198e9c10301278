"""What a connection remembers of its earlier requests saves work, and changes nothing."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.credentials import Family
from tests.core.wires import examples
from tests.flows.stage import PORT, Preview
from tests.properties.live import Live, Seen, answers_in
from tests.properties.readers import Got

pytestmark = [
    pytest.mark.may_block("Hypothesis makes its examples between two turns of the loop"),
    pytest.mark.timeout(900),
]

SECRET = b"the traffic access token"
PRIVATE = "sb_bbbbbbbb"
PROXY = b"X-Nullspace-Preview-Proxy-Token: "
TRAFFIC = b"X-Nullspace-Traffic-Access-Token: " + SECRET
BY_COOKIE = ("cookie", "cookie", "cookie and edge", "cookie and wrong edge", "cookie and proxy")
BY_PROXY = ("proxy", "proxy", "edge and proxy", "cookie and proxy", "two proxies")
WRONGLY = (
    *["none", "cookie of the other", "proxy of the other", "edge of the other", "forged proxy"],
    *["two cookies", "edge", "cookie", "proxy"],
)
MARKERS = (b"", b"&__ns_preview_transport=header", b"&__ns_preview_transport=x")
FIELDS = (
    b"Accept: */*",
    b"Accept: text/html",
    b"If-None-Match: x",
    b"Cookie: a=1",
    b"Connection: keep-alive",
    b"Connection: cookie",
    b"Connection: accept, x-nullspace-preview-proxy-token",
    b"X-Forwarded-For: 10.0.0.1",
    b"X-Forwarded-Proto: http",
    b"Via: 1.1 preview-edge",
    b"Via: 1.1 preview-edge, 1.1 preview-edge, 1.1 preview-edge, 1.1 preview-edge, 1.1 preview-edge",
    TRAFFIC,
    b"X-Nullspace-Traffic-Access-Token: wrong",
    b"Referer: https://a.example/?edge_token=x&b",
    b"X-Request-Id: r-1",
)


class Wish(NamedTuple):
    """What a request shall be like."""

    private: bool
    credential: str
    marker: bytes
    fields: tuple[bytes, ...]


FORGED = Wish(False, "forged proxy", b"", ())
CLOSE = b"Connection: close\r\n"


@st.composite
def wishes(draw: st.DrawFn, credentials: tuple[str, ...]) -> Wish:
    """One request: to which of the two sandboxes, with which credentials and which fields."""
    private = draw(st.integers(0, 3)) == 0
    fields = draw(st.lists(st.sampled_from(FIELDS), max_size=2))
    if private and draw(st.booleans()):
        fields.append(TRAFFIC)
    return Wish(
        private,
        draw(st.sampled_from(credentials)),
        draw(st.sampled_from(MARKERS)),
        tuple(fields),
    )


@st.composite
def alike(draw: st.DrawFn) -> list[Wish]:
    """Requests that differ in little, some of them not at all: only what repeats is remembered."""
    credentials = draw(st.sampled_from([BY_COOKIE, BY_PROXY, WRONGLY, BY_COOKIE + WRONGLY]))
    first = draw(wishes(credentials))
    some = [first]
    for _ in range(draw(st.integers(1, 3))):
        other = draw(wishes(credentials))
        name = draw(
            st.sampled_from(["credential", "credential", "marker", "marker", "fields", "private"])
        )
        some.append(first._replace(**{name: getattr(other, name)}))
    return draw(st.lists(st.sampled_from(some), min_size=2, max_size=7))


def request_for(wish: Wish, tokens: dict[str, bytes], end: bytes) -> bytes:
    """Its bytes; ``tokens`` are those of both sandboxes."""
    own, foreign = ("B", "A") if wish.private else ("A", "B")
    said = wish.credential
    whose = foreign if "other" in said else own
    lines = [b"Host: " + tokens["host " + own], *wish.fields]
    query = b"?x=1" + wish.marker
    if "edge" in said:
        wrong = foreign if "wrong" in said else whose
        query += b"&edge_token=" + tokens["edge " + wrong]
    if "cookie" in said:
        lines.append(b"Cookie: b=2; __Host-ns_preview=" + tokens["cookie " + whose])
    if said == "two cookies":
        lines.append(b"Cookie: __Host-ns_preview=" + tokens["cookie " + foreign])
    if "prox" in said:
        lines.append(PROXY + (tokens["forged"] if "forged" in said else tokens["proxy " + whose]))
    if said == "two proxies":
        lines.append(PROXY + tokens["forged"])
    return b"GET /m%b HTTP/1.1\r\n%b\r\n%b\r\n" % (query, b"\r\n".join(lines), end)


def two_sandboxes(live: Live) -> dict[str, bytes]:
    """Hosts and tokens of the open sandbox (A) and of a private one with the same app (B)."""
    plane = live.stage.plane
    record = plane.sandboxes[live.preview.id]
    digest = hashlib.sha256(SECRET).hexdigest()
    plane.put(replace(record, id=PRIVATE, traffic_token_sha256=digest))
    plane.put(replace(plane.grants["pvg_live"], id="pvg_private", sandbox_id=PRIVATE))
    until_then = time.time() + 86400
    tokens: dict[str, bytes] = {}
    for name, box in {
        "A": live.preview,
        "B": Preview(live.stage, PRIVATE, PORT, "pvg_private"),
    }.items():
        tokens["host " + name] = box.host.encode()
        for family, said in zip(Family, ("edge ", "proxy ", "cookie "), strict=True):
            tokens[said + name] = box.token(family, exp=until_then).encode()
    head, body, signature = tokens["proxy A"].split(b".")
    tokens["forged"] = b".".join([head, body, signature[1:2] + signature[1:]])
    return tokens


def essence(got: Got, seen: list[Seen]) -> tuple[object, ...]:
    """What a request came to: the answer's status and what of it is no coincidence, what the app saw."""
    odd = {b"date", b"x-request-id", b"connection", b"content-length"}
    fields = [
        # A cookie's age goes on between two answers.
        (name, value.partition(b"=")[0] if name == b"set-cookie" else value)
        for name, value in got.headers
        if name not in odd
    ]
    saw = [
        (one.target, [field for field in one.fields if field[0].lower() != b"x-request-id"])
        for one in seen
        if one.mark in got.payload
    ]
    return got.status, fields, saw


@given(alike())
@examples(120)
async def test_requests_of_a_connection_are_decided_as_if_each_came_alone(
    live: Live, order: list[Wish]
) -> None:
    """Credentials, hosts and fields that come, go and repeat: the same answers, the same upstream heads."""
    tokens = live.tokens or two_sandboxes(live)
    live.begin({})
    if not live.tokens:
        live.tokens = tokens
        # A forgery is only known for one, and no longer looked at, once its signature was checked.
        await live.talk(request_for(FORGED, tokens, CLOSE))
    together = [request_for(wish, tokens, b"") for wish in order]
    together[-1] = request_for(order[-1], tokens, CLOSE)
    got = answers_in(await live.talk(b"".join(together)), [b"GET"] * len(order))
    assert len(got) == len(order)
    remembered = [essence(one, live.seen) for one in got]
    for wish, expected in zip(order, remembered, strict=True):
        live.begin({})
        (alone,) = answers_in(await live.talk(request_for(wish, tokens, CLOSE)), [b"GET"])
        assert essence(alone, live.seen) == expected
    await live.settle()
