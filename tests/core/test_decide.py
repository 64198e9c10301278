"""Decisions: a table of who may do what, and that a stranger costs nothing and learns nothing."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from edge.core import errors
from edge.core.credentials import Expectation, Family, Key, Keys, verify
from edge.core.decide import MAX_COOKIES, MAX_VIA, cookie_values, decide, grant_problem
from edge.core.decision import Access, Asked, Forward, Learn, LookUp, Refuse, Verify, Wake
from edge.core.errors import EdgeError, Problem
from edge.core.head import Head
from edge.core.policy import is_bare_preflight
from edge.core.records import GrantRecord, GrantStatus, Missing, SandboxRecord, State, Transport
from edge.core.target import Target, parse_target
from edge.core.token_cache import TokenCache
from tests.core.previews import (
    CLAIMS,
    COOKIES,
    EXPECT,
    FORGED,
    GRANT,
    ISSUED,
    KEYS,
    NOW,
    SANDBOX,
    SITE,
    TARGET,
    token,
)
from tests.core.wires import HOST, UPGRADE, blocks, calm, request, scan

COOKIE = b"__Host-ns_preview"
ASKED = Asked(COOKIE, b"https://" + HOST)
SECRET = b"the traffic access token"
PRIVATE = replace(SANDBOX, traffic_token_sha256=hashlib.sha256(SECRET).hexdigest())
TRAFFIC = b"x-nullspace-traffic-access-token: "
PROXY_FIELD = b"x-nullspace-preview-proxy-token: "


@dataclass
class Sight:
    """A `View` of one sandbox and one grant that counts what it is asked."""

    record: SandboxRecord | Missing = SANDBOX
    its_grant: GrantRecord | Missing = GRANT
    room: bool = True
    websocket_cookie: bool = False
    tokens: TokenCache = field(default_factory=lambda: TokenCache(100))
    expect: Expectation = EXPECT
    keys: Keys = KEYS
    asked: list[str] = field(default_factory=list)
    bare: bool = False

    def target(self, host: bytes) -> Target | EdgeError:
        return parse_target(host, SITE)

    def sandbox(self, sandbox_id: str) -> SandboxRecord | Missing:
        assert sandbox_id == TARGET.sandbox_id
        self.asked.append("sandbox")
        return self.record

    def grant(self, grant_id: str) -> GrantRecord | Missing:
        self.asked.append("grant")
        return self.its_grant

    def sleeps_through(self, head: Head) -> str | None:
        return "prefetch" if head.value(b"sec-purpose") else None

    def passes_bare(self, head: Head) -> bool:
        return self.bare and is_bare_preflight(head)

    def has_room(self, sandbox_id: str) -> bool:
        self.asked.append("room")
        return self.room


def settle(head: Head, view: Sight, asked: Asked = ASKED, now: float = NOW) -> Any:
    """Decide, with every signature checked that is asked for, as the flow does."""
    for _ in range(2 * MAX_COOKIES):
        decision = decide(head, asked, view, now)
        if not isinstance(decision, Verify):
            return decision
        assert not view.asked, "a look-up before the credential was checked"
        genuine = verify(decision.token, decision.peeked)
        view.tokens.remember(
            decision.family, decision.token, decision.peeked.claims if genuine else None
        )
    raise AssertionError("decided again and again")


def outcome(decision: Any) -> str:
    """A decision in one word: the code of a refusal, or what is to be done."""
    if isinstance(decision, Refuse):
        return decision.error.problem.code
    if isinstance(decision, LookUp):
        return "look up " + ("grant" if decision.grant_id else "sandbox")
    return {Forward: "forward", Wake: "wake", Learn: "learn"}[type(decision)]


# --- the table ------------------------------------------------------------------------------------

HTTP, WEBSOCKET = Transport.HTTP, Transport.WEBSOCKET
WAYS = list(itertools.product(["edge", "proxy", "cookie"], [HTTP, WEBSOCKET]))
FAMILIES = {"edge": Family.EDGE, "proxy": Family.PROXY, "cookie": Family.CONTINUATION}


def credentials(way: str, kind: Transport) -> dict[str, tuple[bytes | None, str]]:
    """Every kind of credential for this way in, and the word under which it fails ("" = it is good)."""
    family = FAMILIES[way]
    # A cookie is for HTTP by what it says, wherever it is used.
    said = HTTP if way == "cookie" else kind
    other = WEBSOCKET if said is HTTP else HTTP

    def made(**changes: Any) -> bytes:
        return token(family, **({"kind": said} | changes))

    good = made()
    head, payload, signature = good.split(b".")
    wrong_family = Family.PROXY if family is Family.EDGE else Family.EDGE
    key = COOKIES if way == "cookie" else ISSUED
    return {
        "good": (good, ""),
        "none": (None, "missing"),
        "empty": (b"", "invalid"),
        "garbage": (b"garbage", "invalid"),
        "dots": (b"..", "invalid"),
        "cut": (good[:-1], "invalid"),
        "unsigned": (head + b"." + payload + b".", "invalid"),
        "of another": (head + b"." + payload + b"." + signature[::-1], "invalid"),
        "forged": (made(key=replace(FORGED, kid=key.kid)), "invalid"),
        "unknown key": (made(key=replace(key, kid="k9")), "invalid"),
        "alg none": (
            jwt.encode({"sub": "x"}, None, "none", {"kid": key.kid, "typ": family}).encode(),
            "invalid",
        ),
        "other family": (token(wrong_family, key, kind=said), "invalid"),
        "other issuer": (made(iss="evil"), "invalid"),
        "other audience": (made(aud="evil.example"), "invalid"),
        "from the future": (made(iat=NOW + 6), "invalid"),
        "expired": (made(exp=NOW), "expired"),
        "other sandbox": (made(sub="sb_bbbbbbbb"), "scope"),
        "other port": (made(port=3001), "scope"),
        "other transport": (made(kind=other), "scope"),
    }


CODES = {
    "edge": {
        "missing": "edge_token_missing",
        "invalid": "edge_token_invalid",
        "expired": "edge_token_expired",
        "scope": "edge_token_scope_mismatch",
        "grant unknown": "preview_grant_invalid",
        "grant revoked": "preview_grant_revoked",
        "grant disabled": "preview_grant_disabled",
    },
    "proxy": {
        "missing": "preview_proxy_token_missing",
        "invalid": "preview_proxy_token_invalid",
        "expired": "preview_proxy_token_expired",
        "scope": "preview_proxy_token_scope_mismatch",
        "grant unknown": "preview_proxy_token_invalid",
        "grant revoked": "preview_proxy_token_revoked",
        "grant disabled": "preview_proxy_token_disabled",
    },
}
CODES["cookie"] = CODES["edge"]

PAUSED_OFF = "sandbox_paused_auto_resume_disabled"
SANDBOXES: dict[str, tuple[SandboxRecord | Missing, str]] = {
    "unknown": (Missing.UNKNOWN, "look up sandbox"),
    "absent": (Missing.ABSENT, "sandbox_not_found"),
    "lost": (Missing.LOST, "control_plane_unavailable"),
    "destroyed": (replace(SANDBOX, state=State.DESTROYED), "sandbox_not_found"),
    "running": (SANDBOX, "forward"),
    "unreachable": (replace(SANDBOX, upstream=None), "edge_runtime_host_unreachable"),
    "paused": (replace(SANDBOX, state=State.PAUSED, auto_resume=True), "wake"),
    "paused, off": (replace(SANDBOX, state=State.PAUSED), PAUSED_OFF),
    "pausing": (replace(SANDBOX, state=State.PAUSING, auto_resume=True), "wake"),
    # An inactivity pause may be called off: worth waiting for.
    "pausing, off": (replace(SANDBOX, state=State.PAUSING), "wake"),
    "resuming": (replace(SANDBOX, state=State.RESUMING), "wake"),
    "creating": (replace(SANDBOX, state=State.CREATING), "wake"),
    "error": (replace(SANDBOX, state=State.ERROR), "sandbox_error"),
}
GONE = {"unknown", "absent", "lost", "destroyed"}

GRANTS: dict[str, tuple[GrantRecord | Missing, str]] = {
    "active": (GRANT, ""),
    "unknown": (Missing.UNKNOWN, "look up grant"),
    "absent": (Missing.ABSENT, "grant unknown"),
    "lost": (Missing.LOST, "control_plane_unavailable"),
    "revoked": (replace(GRANT, status=GrantStatus.REVOKED), "grant revoked"),
    "expired": (replace(GRANT, status=GrantStatus.EXPIRED), "expired"),
    "overdue": (replace(GRANT, expires_at=NOW), "expired"),
    "revoked, overdue": (
        replace(GRANT, status=GrantStatus.REVOKED, expires_at=NOW),
        "grant revoked",
    ),
    "disabled": (replace(GRANT, status=GrantStatus.DISABLED), "grant disabled"),
    "other sandbox": (replace(GRANT, sandbox_id="sb_bbbbbbbb"), "scope"),
    "other port": (replace(GRANT, port=3001), "scope"),
    "no transport": (replace(GRANT, kinds=frozenset()), "scope"),
}

ACCESS: dict[str, tuple[bool, tuple[bytes, ...], str]] = {
    "public": (False, (), ""),
    "public, superfluous token": (False, (TRAFFIC + b"x",), ""),
    "private, right token": (True, (TRAFFIC + SECRET,), ""),
    "private, no token": (True, (), "traffic_access_token_missing"),
    "private, empty token": (True, (TRAFFIC,), "traffic_access_token_invalid"),
    "private, wrong token": (True, (TRAFFIC + b"x",), "traffic_access_token_invalid"),
    "private, two tokens": (True, (TRAFFIC + SECRET,) * 2, "traffic_access_token_invalid"),
}


def asked_with(way: str, kind: Transport, credential: bytes | None, *lines: bytes) -> Head:
    """The request that carries the credential this way."""
    target = b"/"
    if way == "edge" and credential is not None:
        target = b"/?edge_token=" + credential
    if way == "proxy":
        target = b"/?__ns_preview_transport=header"
        lines += (PROXY_FIELD + credential,) if credential is not None else ()
    if way == "cookie" and credential is not None:
        lines += (b"Cookie: a=1; " + COOKIE + b"=" + credential,)
    if kind is WEBSOCKET:
        lines += (*UPGRADE, b"Origin: https://" + HOST)
    return scan(request(*lines, line=b"GET " + target + b" HTTP/1.1"))


def expected(way: str, problem: str, sandbox: str, grant: str, access: str) -> str:
    """The contract in five lines: credential, sandbox there, grant, second key, state."""
    codes = CODES[way]
    if problem:
        return codes[problem]
    if sandbox in GONE:
        return SANDBOXES[sandbox][1]
    trouble = GRANTS[grant][1] or ACCESS[access][2]
    return codes.get(trouble, trouble) or SANDBOXES[sandbox][1]


def cells() -> Iterator[tuple[str, str, str]]:
    """Every combination of sandbox, grant and second key."""
    yield from itertools.product(SANDBOXES, GRANTS, ACCESS)


@pytest.mark.parametrize(("way", "kind"), WAYS)
def test_the_authorisation_table(way: str, kind: Transport) -> None:
    """Credential x sandbox x grant x second key, for every way in: the code of every cell."""
    tokens = TokenCache(1000)
    for credential, problem in credentials(way, kind).values():
        # The contract has no cookie on upgrades, however good it is.
        trouble = "missing" if (way, kind) == ("cookie", WEBSOCKET) else problem
        heads = {
            lines: asked_with(way, kind, credential, *lines)
            for lines in {lines for _, lines, _ in ACCESS.values()}
        }
        for sandbox, grant, access in cells():
            record, private = SANDBOXES[sandbox][0], ACCESS[access][0]
            if private and isinstance(record, SandboxRecord):
                record = replace(record, traffic_token_sha256=PRIVATE.traffic_token_sha256)
            view = Sight(record, GRANTS[grant][0], tokens=tokens)
            decision = settle(heads[ACCESS[access][1]], view)
            assert outcome(decision) == expected(way, trouble, sandbox, grant, access), (
                credential, sandbox, grant, access,
            )  # fmt: skip
            if trouble:
                # A stranger costs nothing and learns nothing: whatever there is, the answer is one.
                assert view.asked == []
                assert decision.access is None
            else:
                assert decision.access.kind is kind
                assert decision.access.family is FAMILIES[way]


@pytest.mark.parametrize("kind", [HTTP, WEBSOCKET])
@pytest.mark.parametrize("way", ["edge", "proxy"])
def test_an_operator_may_close_a_sandboxs_previews(way: str, kind: Transport) -> None:
    """403, after the grant and before the second key; a destroyed sandbox is gone all the same."""
    head = asked_with(way, kind, credentials(way, kind)["good"][0])
    closed = replace(PRIVATE, previews_disabled=True)
    assert outcome(settle(head, Sight(closed))) == "preview_sandbox_disabled"
    revoked = replace(GRANT, status=GrantStatus.REVOKED)
    assert outcome(settle(head, Sight(closed, revoked))) == CODES[way]["grant revoked"]
    gone = replace(closed, state=State.DESTROYED)
    assert outcome(settle(head, Sight(gone))) == "sandbox_not_found"


# --- which credential speaks ----------------------------------------------------------------------

GOOD = token()
GOOD_PROXY = token(Family.PROXY)
GOOD_COOKIE = token(Family.CONTINUATION)
OLD = token(exp=NOW - 1)


def get(target: bytes, *lines: bytes) -> Head:
    """A plain request."""
    return scan(request(*lines, line=b"GET " + target + b" HTTP/1.1"))


def cookie(*values: bytes) -> bytes:
    """One Cookie line with these continuation cookies."""
    return b"Cookie: " + b"; ".join(COOKIE + b"=" + value for value in values)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (get(b"/any/path?edge_token=" + GOOD), "forward"),
        (get(b"/?edge_token=" + GOOD.replace(b".", b"%2E")), "forward"),
        (get(b"/?edge_token=" + GOOD + b"&edge_token=" + GOOD), "forward"),
        # A query token decides alone.
        (get(b"/?edge_token=" + GOOD + b"&edge_token=x"), "edge_token_invalid"),
        (get(b"/?edge_token=" + GOOD + b"&edge_token=" + OLD), "edge_token_invalid"),
        (get(b"/?edge_token=", cookie(GOOD_COOKIE)), "edge_token_invalid"),
        (get(b"/?edge_token=" + OLD, cookie(GOOD_COOKIE)), "edge_token_expired"),
        (get(b"/?edge_token=" + GOOD, cookie(b"x")), "forward"),
        # What only looks like a pair of ours is none.
        (get(b"/?edge_token", cookie(GOOD_COOKIE)), "forward"),
        (get(b"/?edge_token"), "edge_token_missing"),
        (get(b"/?edge%5Ftoken=" + GOOD), "edge_token_missing"),
        (get(b"/?a;edge_token=" + GOOD), "edge_token_missing"),
        # The header, or the marker with exactly this value, means proxy mode.
        (get(b"/", PROXY_FIELD + GOOD_PROXY), "forward"),
        (get(b"/?edge_token=x", PROXY_FIELD + GOOD_PROXY, cookie(b"x")), "forward"),
        (get(b"/?edge_token=" + GOOD, PROXY_FIELD), "preview_proxy_token_invalid"),
        (get(b"/?edge_token=" + GOOD, PROXY_FIELD + GOOD), "preview_proxy_token_invalid"),
        (get(b"/", *[PROXY_FIELD + GOOD_PROXY] * 2), "preview_proxy_token_invalid"),
        (
            get(b"/?__ns_preview_transport=header&edge_token=" + GOOD, cookie(GOOD_COOKIE)),
            "preview_proxy_token_missing",
        ),
        (get(b"/?__ns_preview_transport=Header&edge_token=" + GOOD), "forward"),
        (get(b"/?__ns_preview_transport=Header"), "edge_token_missing"),
        (get(b"/", b"X_Nullspace_Preview_Proxy_Token: " + GOOD_PROXY), "edge_token_missing"),
        # Families do not pass for one another.
        (get(b"/?edge_token=" + GOOD_PROXY), "edge_token_invalid"),
        (get(b"/?edge_token=" + GOOD_COOKIE), "edge_token_invalid"),
        (get(b"/", cookie(GOOD)), "edge_token_invalid"),
        (get(b"/", b"Authorization: Bearer " + GOOD), "edge_token_missing"),
        # Cookies: several of a name, others around them, odd spelling.
        (get(b"/", cookie(GOOD_COOKIE)), "forward"),
        (get(b"/", b"Cookie: a=1;" + COOKIE + b"=" + GOOD_COOKIE + b" ;b"), "forward"),
        (get(b"/", cookie(b"x"), cookie(b"y", GOOD_COOKIE)), "forward"),
        (get(b"/", cookie(b"1", b"2", b"3", GOOD_COOKIE)), "forward"),
        (get(b"/", cookie(b"1", b"2", b"3", b"4", GOOD_COOKIE)), "edge_token_invalid"),
        (get(b"/", cookie(b"x", token(Family.CONTINUATION, exp=NOW))), "edge_token_expired"),
        (get(b"/", b"Cookie: ns_preview=" + GOOD_COOKIE), "edge_token_missing"),
        (get(b"/", b"Cookie: x" + COOKIE + b"=" + GOOD_COOKIE), "edge_token_missing"),
        (get(b"/", b"Cookie: " + COOKIE + b"2=" + GOOD_COOKIE), "edge_token_missing"),
        (get(b"/", b"Cookie: a=" + COOKIE + b"=" + GOOD_COOKIE), "edge_token_missing"),
        (get(b"/", b"Cookie: " + COOKIE + b'="' + GOOD_COOKIE + b'"'), "edge_token_invalid"),
        (get(b"/", b"Cookie: " + COOKIE), "edge_token_invalid"),
        (get(b"/", cookie(GOOD_COOKIE), b"Connection: cookie"), "edge_token_missing"),
    ],
)
def test_which_credential_speaks(head: Head, expected: str) -> None:
    """Proxy header, query token, cookie, in that order and without falling back (contract: credentials)."""
    assert outcome(settle(head, Sight())) == expected


def test_cookie_values_are_found_in_order() -> None:
    """In every line, exactly that name."""
    head = get(b"/", b"Cookie: a=1; n=x=y;n=", b"Cookie: nn=2; n = z; n")
    assert cookie_values(head, b"n") == [b"x=y", b"", b""]


def test_only_an_edge_token_over_http_is_continued_by_a_cookie() -> None:
    """A proxy gets none, a cookie begets none, a socket needs none."""

    def continues(way: str, kind: Transport) -> bool:
        decision = settle(asked_with(way, kind, credentials(way, kind)["good"][0]), Sight())
        assert isinstance(decision, Forward)
        return decision.access.continues

    assert continues("edge", HTTP)
    assert not continues("edge", WEBSOCKET)
    assert not continues("proxy", HTTP)
    assert not continues("cookie", HTTP)


@pytest.mark.parametrize(
    ("origins", "setting", "grant", "expected"),
    [
        ([b"https://" + HOST], True, GRANT, "forward"),
        ([b"https://" + HOST], False, GRANT, "edge_token_missing"),
        ([], True, GRANT, "edge_token_missing"),
        ([b"null"], True, GRANT, "edge_token_missing"),
        ([b"http://" + HOST], True, GRANT, "edge_token_missing"),
        ([b"https://" + HOST + b".evil.example"], True, GRANT, "edge_token_missing"),
        ([b"https://3001-sb-aaaaaaaa.preview.example"], True, GRANT, "edge_token_missing"),
        ([b"https://evil.example", b"https://" + HOST], True, GRANT, "edge_token_missing"),
        ([b"https://" + HOST, b"https://evil.example"], True, GRANT, "edge_token_missing"),
        (
            [b"https://" + HOST],
            True,
            replace(GRANT, kinds=frozenset({HTTP})),
            "edge_token_scope_mismatch",
        ),
    ],
)
def test_a_cookie_on_an_upgrade_is_the_operators_choice(
    origins: list[bytes], setting: bool, grant: GrantRecord, expected: str
) -> None:
    """Only with the setting, the preview's own origin, and a grant for sockets (contract: credentials)."""
    lines = [b"Origin: " + origin for origin in origins]
    head = scan(request(*UPGRADE, cookie(GOOD_COOKIE), *lines))
    decision = settle(head, Sight(its_grant=grant, websocket_cookie=setting))
    assert outcome(decision) == expected
    if isinstance(decision, Forward):
        assert decision.access.kind is WEBSOCKET and not decision.access.continues


# --- before and after the credential --------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "code"),
    [
        (b"evil.example", "preview_host_unknown"),
        (b"22-sb-aaaaaaaa.preview.example", "unsupported_preview_port"),
    ],
)
def test_a_host_that_is_no_preview_is_answered_before_anything_else(host: bytes, code: str) -> None:
    """With the best credential, too, and even in a loop."""
    head = scan(
        request(
            *[b"Via: 1.1 preview-edge"] * 9,
            line=b"GET /?edge_token=" + GOOD + b" HTTP/1.1",
            host=host,
        )
    )
    view = Sight()
    assert outcome(decide(head, ASKED, view, NOW)) == code
    assert view.asked == []


def test_a_loop_ends_at_the_fifth_pass() -> None:
    """508 (contract: forwarded), before the credential, because a loop is nobody's request."""
    via = [b"Via: 1.1 preview-edge"]
    line = b"GET /?edge_token=" + GOOD + b" HTTP/1.1"
    assert outcome(settle(scan(request(*via * (MAX_VIA - 1), line=line)), Sight())) == "forward"
    assert outcome(settle(scan(request(*via * MAX_VIA)), Sight())) == "preview_loop"


@pytest.mark.parametrize("record", [SANDBOX, SANDBOXES["paused"][0]])
def test_no_room_is_told_to_those_who_may_come_in(record: SandboxRecord) -> None:
    """Whoever holds a place already is not asked again."""
    head = get(b"/?edge_token=" + GOOD)
    decision = settle(head, Sight(record, room=False))
    assert outcome(decision) == "preview_overloaded"
    assert decision.access is not None
    admitted = replace(ASKED, admitted=True)
    assert not isinstance(settle(head, Sight(record, room=False), admitted), Refuse)
    assert outcome(settle(get(b"/"), Sight(record, room=False))) == "edge_token_missing"


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({}, "learn"),
        ({"kind": WEBSOCKET}, "edge_token_invalid"),
        ({"port": 3001}, "edge_token_invalid"),
        ({"sub": "sb_bbbbbbbb"}, "edge_token_invalid"),
        ({"exp": NOW}, "edge_token_invalid"),
        ({"iat": NOW + 6}, "edge_token_invalid"),
        ({"iss": "evil"}, "edge_token_invalid"),
    ],
)
def test_newer_keys_are_asked_for_a_token_that_would_fit(claims: dict[str, Any], said: str) -> None:
    """Who is not known gets no more out of us than one kind of need, and only where all else is right."""
    stranger = Key("k9", "EdDSA", Ed25519PrivateKey.generate())
    view = Sight(Missing.UNKNOWN, Missing.UNKNOWN)
    for way in ("edge", "proxy"):
        made = token(FAMILIES[way], stranger, **claims)
        direct = way == "edge"
        head = get(b"/?edge_token=" + made) if direct else get(b"/", PROXY_FIELD + made)
        found = settle(head, view)
        names = PROXY_CODES if way == "proxy" else {}
        assert outcome(found) == names.get(said, said)
        assert view.asked == []
    assert isinstance(found, Learn) is (said == "learn")
    cookie = token(Family.CONTINUATION, stranger, **claims)
    assert isinstance(settle(get(b"/", b"Cookie: " + COOKIE + b"=" + cookie), view), Refuse)


PROXY_CODES = {"edge_token_invalid": "preview_proxy_token_invalid"}


def test_needs_say_what_they_need() -> None:
    """Verify, then the sandbox, then the grant, then the wake: each once, in this order."""
    head = get(b"/?edge_token=" + GOOD)
    paused = SANDBOXES["paused"][0]
    view = Sight(Missing.UNKNOWN, Missing.UNKNOWN)
    first = decide(head, ASKED, view, NOW)
    assert isinstance(first, Verify)
    assert (first.token, first.family, first.peeked.claims) == (GOOD, Family.EDGE, CLAIMS)
    view.tokens.remember(first.family, first.token, first.peeked.claims)
    second = decide(head, ASKED, view, NOW)
    assert isinstance(second, LookUp)
    assert (second.sandbox_id, second.grant_id) == (TARGET.sandbox_id, "")
    assert isinstance(paused, SandboxRecord)
    view.record = paused
    third = decide(head, ASKED, view, NOW)
    assert isinstance(third, LookUp)
    assert (third.sandbox_id, third.grant_id) == ("", "pvg_1")
    view.its_grant = GRANT
    fourth = decide(head, ASKED, view, NOW)
    assert isinstance(fourth, Wake)
    assert fourth.record is paused
    view.record = SANDBOX
    last = decide(head, ASKED, view, NOW)
    assert isinstance(last, Forward)
    assert (last.record, last.grant, last.access.target) == (SANDBOX, GRANT, TARGET)


def test_time_is_looked_at_on_every_request() -> None:
    """A verified token and a known grant end exactly when they say, remembered or not."""
    head, view = get(b"/?edge_token=" + GOOD), Sight()
    assert outcome(settle(head, view, now=CLAIMS.exp - 0.001)) == "forward"
    assert outcome(settle(head, view, now=CLAIMS.exp)) == "edge_token_expired"
    view.its_grant = replace(GRANT, expires_at=NOW + 5)
    assert outcome(settle(head, view, now=NOW + 4.999)) == "forward"
    assert outcome(settle(head, view, now=NOW + 5)) == "edge_token_expired"


def test_a_refuted_token_is_not_checked_twice() -> None:
    """A signature costs as much as four requests."""
    forged = token(key=FORGED)
    head, view = get(b"/?edge_token=" + forged), Sight()
    assert isinstance(decide(head, ASKED, view, NOW), Verify)
    view.tokens.remember(Family.EDGE, forged, None)
    assert outcome(decide(head, ASKED, view, NOW)) == "edge_token_invalid"
    assert view.asked == []


@pytest.mark.parametrize("digest", ["", "caf\xe9", "\ud800", "A" * 64, "0" * 10_000])
def test_an_odd_digest_in_a_record_lets_nobody_in(digest: str) -> None:
    """And raises nothing: compare_digest would, for text that is not ASCII."""
    head = get(b"/?edge_token=" + GOOD, TRAFFIC + SECRET)
    view = Sight(replace(SANDBOX, traffic_token_sha256=digest))
    assert outcome(settle(head, view)) == "traffic_access_token_invalid"


@pytest.mark.parametrize("credential", ["query", "cookie", "header"])
def test_the_traffic_token_is_compared_in_constant_time(
    credential: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digest with digest, by the one comparison that says so, and its word alone decides; by every credential."""
    compared: list[tuple[object, object]] = []
    equal = True

    def compare(one: object, other: object) -> bool:
        compared.append((one, other))
        return equal

    # The name in that module, for PyJWT compares by the same function.
    monkeypatch.setattr("edge.core.decide.hmac", SimpleNamespace(compare_digest=compare))
    head = {
        "query": get(b"/?edge_token=" + GOOD, TRAFFIC + b"guess"),
        "cookie": get(b"/", cookie(token(Family.CONTINUATION)), TRAFFIC + b"guess"),
        "header": get(b"/", PROXY_FIELD + token(Family.PROXY), TRAFFIC + b"guess"),
    }[credential]
    assert outcome(settle(head, Sight(PRIVATE))) == "forward"
    equal = False
    assert outcome(settle(head, Sight(PRIVATE))) == "traffic_access_token_invalid"
    digests = [hashlib.sha256(word).hexdigest().encode() for word in (b"guess", SECRET)]
    assert compared == [tuple(digests)] * 2


def test_open_tunnels_are_asked_about_by_the_same_rules() -> None:
    """`grant_problem` is what ends a tunnel when its grant does."""
    access = Access(TARGET, CLAIMS, Family.PROXY, WEBSOCKET, continues=False)
    assert grant_problem(access, GRANT, NOW) is None
    revoked = replace(GRANT, status=GrantStatus.REVOKED)
    assert grant_problem(access, revoked, NOW) is errors.PREVIEW_PROXY_TOKEN_REVOKED
    assert grant_problem(access, GRANT, GRANT.expires_at) is errors.PREVIEW_PROXY_TOKEN_EXPIRED


# --- properties -------------------------------------------------------------------------------------

RECORDS = st.sampled_from([record for record, _ in SANDBOXES.values()] + [PRIVATE])
ITS_GRANTS = st.sampled_from([record for record, _ in GRANTS.values()])


@given(blocks(), RECORDS, ITS_GRANTS, st.booleans(), st.booleans())
@calm
def test_no_head_makes_a_decision_raise_and_no_stranger_comes_far(
    block: bytes,
    record: SandboxRecord | Missing,
    grant: GrantRecord | Missing,
    room: bool,
    socket_cookie: bool,
) -> None:
    """For any head and whatever is known: none of these carries a genuine credential."""
    try:
        head = scan(block)
    except EdgeError:
        return
    view = Sight(record, grant, room, socket_cookie)
    decision = decide(head, ASKED, view, NOW)
    assert isinstance(decision, Refuse)
    assert decision.access is None and isinstance(decision.error.problem, Problem)
    assert view.asked == []


PARTS = st.sampled_from(
    [*GOOD.split(b"."), *GOOD_COOKIE.split(b"."), b"", b"e30", b"bnVsbA", b"W10", b"=", b"_-"]
)
NOISE = st.binary(max_size=40).map(lambda raw: bytes(b for b in raw if 0x20 < b < 0x7F))


@given(
    st.lists(PARTS | NOISE, min_size=1, max_size=4), st.sampled_from(["edge", "proxy", "cookie"])
)
@calm
def test_no_token_but_the_genuine_ones_comes_further_than_a_signature_check(
    parts: list[bytes], way: str
) -> None:
    """Tokens put together from pieces of good ones: refused, or refused after one check."""
    credential = b".".join(parts)
    genuine = credential in (GOOD, GOOD_COOKIE)
    carried = credential.replace(b"&", b"").replace(b"#", b"").replace(b";", b"").replace(b"%", b"")
    view = Sight()
    decision = settle(asked_with(way, HTTP, carried), view)
    assert genuine or isinstance(decision, Refuse)
    assert genuine or view.asked == []


# --- without a credential ---------------------------------------------------------------------------

PREFLIGHT = (b"Origin: https://a.example", b"Access-Control-Request-Method: PUT")


@pytest.mark.parametrize(
    ("record", "forwarded"),
    [
        (SANDBOX, True),
        (PRIVATE, False),
        (replace(SANDBOX, previews_disabled=True), False),
        (replace(SANDBOX, upstream=None), False),
        (Missing.UNKNOWN, False),
        (Missing.ABSENT, False),
        (Missing.LOST, False),
        *[(replace(SANDBOX, state=state), False) for state in State if state is not State.RUNNING],
    ],
    ids=str,
)
def test_a_preflight_without_a_credential(record: SandboxRecord | Missing, forwarded: bool) -> None:
    """Forwarded to what is known to run, where that is wanted; else refused like everything else."""
    head = scan(request(*PREFLIGHT, line=b"OPTIONS / HTTP/1.1"))
    closed = decide(head, ASKED, Sight(record), NOW)
    opened = decide(head, ASKED, Sight(record, bare=True), NOW)
    assert closed == Refuse(EdgeError(errors.EDGE_TOKEN_MISSING))
    if forwarded:
        assert isinstance(opened, Forward) and opened.record is record
        assert opened.access.anonymous and not opened.access.continues
        assert opened.refusal == closed.error
    else:
        assert opened == closed
