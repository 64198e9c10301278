"""Tampered tokens through the whole decision: the right code, never a way in, one signature check at most."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.credentials import (
    DIRECT,
    IAT_LEEWAY,
    PROXY,
    Family,
    FamilyProblems,
    verify,
)
from edge.core.decide import decide
from edge.core.decision import Asked, Forward, Learn, Refuse, Verify
from edge.core.errors import EdgeError
from edge.core.head import Head
from edge.core.records import GrantRecord, SandboxRecord
from edge.core.target import Target, parse_target
from edge.core.token_cache import TokenCache
from tests.core.previews import (
    COOKIES,
    EXPECT,
    FORGED,
    GRANT,
    ISSUED,
    KEYS,
    NOW,
    SANDBOX,
    SITE,
    token,
)
from tests.core.wires import HOST, UPGRADE, examples, request, scan

NAME = b"__Host-ns_preview"
ASKED = Asked(NAME, b"https://" + HOST)
PAYLOAD: dict[str, Any] = json.loads(base64.urlsafe_b64decode(token().split(b".")[1] + b"=="))


class Sight:
    """A `View` of one running sandbox that lets in whoever has a good token."""

    keys = KEYS
    expect = EXPECT
    websocket_cookie = False

    def __init__(self) -> None:
        self.tokens = TokenCache(64)
        self.looks = 0

    def target(self, host: bytes) -> Target | EdgeError:
        return parse_target(host, SITE)

    def sandbox(self, sandbox_id: str) -> SandboxRecord:
        self.looks += 1
        return SANDBOX

    def grant(self, grant_id: str) -> GrantRecord:
        self.looks += 1
        return GRANT

    def passes_bare(self, head: Head) -> bool:
        return False

    def sleeps_through(self, head: Head) -> str | None:
        return "prefetch" if head.value(b"sec-purpose") else None

    def has_room(self, sandbox_id: str) -> bool:
        return True


def judged(head: Head, view: Sight) -> tuple[str, int]:
    """The code of the refusal, ``learn`` or ``forward``; and how many signatures were checked for it."""
    checks = 0
    while True:
        decision = decide(head, ASKED, view, NOW)
        if not isinstance(decision, Verify):
            break
        assert not view.looks, "a record was looked at before the signature"
        checks += 1
        genuine = verify(decision.token, decision.peeked)
        claims = decision.peeked.claims if genuine else None
        view.tokens.remember(decision.family, decision.token, claims)
    if isinstance(decision, Refuse):
        assert not decision.error.details, "what was wrong with it is nobody's business"
        return decision.error.problem.code, checks
    if isinstance(decision, Learn):
        assert not checks and not view.looks
        return "learn", 0
    assert isinstance(decision, Forward)
    return "forward", checks


def carried(family: Family, value: bytes, *lines: bytes) -> Head:
    """A request that carries these bytes where a token of that family goes."""
    if family is Family.EDGE:
        escaped = b"".join(b"%%%02X" % byte for byte in value)
        return scan(request(*lines, line=b"GET /?edge_token=" + escaped + b" HTTP/1.1"))
    name = b"Cookie: " + NAME + b"=" if family is Family.CONTINUATION else PROXY_FIELD
    return scan(request(name + value, *lines))


PROXY_FIELD = b"x-nullspace-preview-proxy-token: "


def b64(data: bytes) -> bytes:
    """Base64url without padding, as in tokens."""
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def made(header: dict[str, Any], payload: dict[str, Any], secret: str) -> bytes:
    """A token of exactly this header and payload, with the HMAC of that secret."""
    text = b".".join(b64(json.dumps(part).encode()) for part in (header, payload))
    return text + b"." + b64(hmac.digest(secret.encode(), text, hashlib.sha256))


def names(family: Family) -> FamilyProblems:
    """The words in which that family reports."""
    return PROXY if family is Family.PROXY else DIRECT


HEADERS = {
    "typ": [*(str(family) for family in Family), "JWT", None, 7, "NS-EDGE+JWT"],
    "alg": ["none", "HS512", "EdDSA", "RS256", None, "hs256"],
    "kid": ["k1", "c1", "k2", "", None, ["k1"], "../k1"],
    "crit": [["exp"], []],
}
CLAIMS = {
    "iss": ["other", "", None, ["nullspace"]],
    "aud": ["other.example", [SITE], SITE + ".", None],
    "sub": ["sb_bbbbbbbb", "SB_AAAAAAAA", "sb-aaaaaaaa", "", None],
    "port": [3001, 0, -1, True, "3000", 3000.0, 2**70],
    "kind": ["websocket_port", "http", "", None, ["http_port"]],
    "exp": [NOW, NOW - 1, 0, -1, "9" * 20, True, None, 1e308, NOW + 0.001],
    "iat": [NOW + IAT_LEEWAY, NOW + IAT_LEEWAY + 1, 1e308, -1e308, "0", None],
    "grant": ["", None, 7],
    "principal": ["", None],
    "jti": ["", None, {}],
    "extra": [{"a": [[[[]]]]}, "x" * 10],
}


def tampering(
    parts: dict[str, list[Any]],
) -> st.SearchStrategy[dict[str, Any]]:
    """Up to two fields with other values."""
    return st.lists(st.sampled_from(sorted(parts)), max_size=2, unique=True).flatmap(
        lambda chosen: st.fixed_dictionaries({key: st.sampled_from(parts[key]) for key in chosen})
    )


def expected(family: Family, header: dict[str, Any], claims: dict[str, Any], good: bool) -> Any:
    """Code and number of signature checks by the contract: shape, then time, then scope, then signature."""
    words, kid = names(family), "c1" if family is Family.CONTINUATION else "k1"
    texts = ("iss", "aud", "sub", "grant", "principal", "jti")
    numbers = [claims.get("iat"), claims.get("exp")]
    # A key that is not known here may be one that the control plane has just begun to use.
    unknown = family is not Family.CONTINUATION and header.get("alg") in ("EdDSA", "RS256")
    unknown = unknown and header.get("kid") in ("c1", "k2", "../k1")
    shapely = (
        ((header.get("alg"), header.get("kid")) == ("HS256", kid) or unknown)
        and header.get("typ") == str(family)
        and "crit" not in header
        and all(isinstance(claims.get(name), str) and claims[name] for name in texts)
        and (claims["iss"], claims["aud"]) == (EXPECT.issuer, EXPECT.audience)
        and type(claims.get("port")) is int
        and all(type(number) in (int, float) for number in numbers)
        and claims.get("kind") in ("http_port", "websocket_port")
    )
    if not shapely:
        return words.invalid.code, 0
    code = ""
    if claims["exp"] <= NOW:
        code = words.expired.code
    elif claims["iat"] > NOW + IAT_LEEWAY:
        code = words.invalid.code
    elif (claims["sub"], claims["port"], claims["kind"]) != ("sb_aaaaaaaa", 3000, "http_port"):
        code = words.scope.code
    if unknown:
        return (words.invalid.code if code else "learn"), 0
    if code:
        return code, 0
    return ("forward" if good else words.invalid.code), 1


@given(
    st.sampled_from(list(Family)),
    tampering(HEADERS),
    tampering(CLAIMS),
    st.sampled_from(["own", "own", "forged", "the other family's"]),
)
@examples(300)
def test_tampered_tokens_get_the_code_that_the_contract_says(
    family: Family, header: dict[str, Any], claims: dict[str, Any], signer: str
) -> None:
    """Any header, any claim, any key: one answer, at most one signature, and none for what is plainly wrong."""
    own, other = (COOKIES, ISSUED) if family is Family.CONTINUATION else (ISSUED, COOKIES)
    key = {"own": own, "forged": FORGED, "the other family's": other}[signer]
    whole = {"typ": str(family), "alg": "HS256", "kid": own.kid} | header
    payload = PAYLOAD | claims
    value = made(whole, payload, key.material)
    view = Sight()
    code, checks = judged(carried(family, value), view)
    assert (code, checks) == expected(family, whole, payload, signer == "own")
    # The same token again costs no signature, and means no more than before.
    view.looks = 0
    again, checks = judged(carried(family, value), view)
    assert checks == 0
    assert (again == "forward") is (code == "forward")


@given(st.sampled_from(list(Family)), st.data())
@examples(300)
def test_no_byte_of_a_token_can_be_changed(family: Family, data: st.DataObject) -> None:
    """Flipped bits, bytes put in or left out, cut, doubled: refused by the family's own words."""
    good = token(family)
    value = bytearray(good)
    at = data.draw(st.integers(0, len(good) - 1))
    match data.draw(st.sampled_from(["flip", "insert", "leave out", "cut", "double"])):
        case "flip":
            value[at] ^= 1 << data.draw(st.integers(0, 7))
        case "insert":
            value[at:at] = data.draw(st.binary(min_size=1, max_size=3))
        case "leave out":
            del value[at : at + data.draw(st.integers(1, 8))]
        case "cut":
            del value[at:]
        case _:
            value[at:at] = good
    bad = bytes(value)
    if family is not Family.EDGE and not all(0x20 < byte < 0x7F and byte != 0x3B for byte in bad):
        return  # no such value reaches the decision in a header field
    code, checks = judged(carried(family, bad), Sight())
    words = names(family)
    codes = {words.invalid.code, words.expired.code, words.scope.code, words.missing.code}
    assert code in codes
    assert checks <= 1


@given(st.sampled_from(list(Family)), st.sampled_from(list(Family)), st.booleans())
@examples(40)
def test_a_token_of_one_family_opens_nothing_of_another(
    signed: Family, used: Family, upgrade: bool
) -> None:
    """Nine pairs, HTTP and upgrade: only the token in its own place lets in, and only over HTTP."""
    head = carried(used, token(signed), *(UPGRADE if upgrade else ()))
    code, _ = judged(head, Sight())
    assert (code == "forward") is (signed is used and not upgrade)


@pytest.mark.parametrize("family", list(Family))
@pytest.mark.parametrize(
    "value",
    [
        b"x" * 5000,
        b"a." * 2000,
        b"." * 4000,
        b64(b"[" * 1500) + b"." + b64(b"[" * 1000) + b".AAAA",
        b64(b'{"a":' * 300) + b".e30.AAAA",
        b"eyJ9.eyJ9.eyJ9",
        b64(b"\xff\xfe") + b"." + b64(b"\xff") + b"." + b64(b"\xff"),
        token()[:-1] + b"=",
    ],
)
def test_monsters_cost_no_signature(family: Family, value: bytes) -> None:
    """Oversized, nested, not UTF-8, not JSON: refused by looking."""
    assert judged(carried(family, value), Sight()) == (names(family).invalid.code, 0)
