"""The continuation cookie: what it says, how long it lives, and that it is set once."""

from __future__ import annotations

from dataclasses import replace
from http.cookies import SimpleCookie

import pytest

from edge.core.credentials import Family, Key, Keys, peek, verify
from edge.core.records import Transport
from edge.traffic import continuation
from edge.traffic.continuation import Continuation
from tests.core.previews import CLAIMS, COOKIES, EXPECT, ISSUED, KEYS, NOW
from tests.core.wires import request, scan

PLAIN = scan(request())


def morsel(line: bytes | None) -> tuple[str, str, dict[str, object]]:
    """Name, value and attributes of a Set-Cookie line."""
    assert line is not None and line.startswith(b"Set-Cookie: ") and b"\r" not in line
    ((name, found),) = SimpleCookie(line.removeprefix(b"Set-Cookie: ").decode()).items()
    return name, found.value, {key: value for key, value in found.items() if value}


@pytest.mark.parametrize(
    ("scheme", "name", "secure"),
    [(b"https", "__Host-ns_preview", {"secure": True}), (b"http", "ns_preview", {})],
)
def test_the_cookie_is_for_this_host_alone(
    scheme: bytes, name: str, secure: dict[str, object]
) -> None:
    """HttpOnly, Lax, no Domain; under https with the prefix that browsers enforce."""
    cookies = Continuation(lambda: KEYS, lambda: NOW)
    found, _, attributes = morsel(cookies.set_cookie(PLAIN, CLAIMS, scheme))
    assert found == name == Continuation.name(scheme).decode()
    assert (
        attributes == {"path": "/", "max-age": "900", "httponly": True, "samesite": "Lax"} | secure
    )


def test_the_cookie_says_what_the_edge_token_said_and_lives_no_longer() -> None:
    """The same sandbox, port, grant and expiry, of a family of its own, signed with the fleet's key."""
    cookies = Continuation(lambda: KEYS, lambda: NOW)
    _, value, _ = morsel(cookies.set_cookie(PLAIN, CLAIMS, b"https"))
    peeked = peek(value.encode(), Family.CONTINUATION, KEYS, EXPECT)
    assert peeked is not None and peeked.claims == CLAIMS and peeked.key is COOKIES
    assert verify(value.encode(), peeked)
    assert peek(value.encode(), Family.EDGE, Keys({"c1": ISSUED}, {}), EXPECT) is None


def test_a_client_that_shows_the_cookie_is_not_given_it_again() -> None:
    """In any Cookie line, whole; another value or another name does not count."""
    cookies = Continuation(lambda: KEYS, lambda: NOW)
    _, value, _ = morsel(cookies.set_cookie(PLAIN, CLAIMS, b"https"))
    pair = b"__Host-ns_preview=" + value.encode()
    shown = scan(request(b"Cookie: a=1", b"Cookie: b; " + pair))
    assert cookies.set_cookie(shown, CLAIMS, b"https") is None
    for other in (pair[:-1], b"x" + pair, pair.removeprefix(b"__Host-")):
        head = scan(request(b"Cookie: " + other))
        assert cookies.set_cookie(head, CLAIMS, b"https") is not None
    assert cookies.set_cookie(shown, CLAIMS, b"http") is not None
    assert cookies.set_cookie(shown, replace(CLAIMS, jti="other"), b"https") is not None


@pytest.mark.parametrize(
    ("left", "age"), [(0.5, "0"), (59.9, "59"), (86400.0, "86400"), (-5.0, "0")]
)
def test_max_age_is_rounded_down(left: float, age: str) -> None:
    """A cookie never outlives its token, not by a second."""
    cookies = Continuation(lambda: KEYS, lambda: NOW)
    line = cookies.set_cookie(PLAIN, replace(CLAIMS, exp=NOW + left), b"https")
    assert b"; Max-Age=" + age.encode() + b";" in (line or b"")


def test_the_first_key_signs_and_a_rotated_one_signs_anew() -> None:
    """Old cookies stay good as long as their key is listed; new ones use the new key."""
    keys = KEYS
    cookies = Continuation(lambda: keys, lambda: NOW)
    _, old, _ = morsel(cookies.set_cookie(PLAIN, CLAIMS, b"https"))
    new_key = Key("c2", "HS256", "another key of the fleet, long enough too")
    keys = Keys(KEYS.issued, {"c2": new_key, "c1": COOKIES})
    _, new, _ = morsel(cookies.set_cookie(PLAIN, CLAIMS, b"https"))
    for value, key in ((old, COOKIES), (new, new_key)):
        peeked = peek(value.encode(), Family.CONTINUATION, keys, EXPECT)
        assert peeked is not None and peeked.key == key and verify(value.encode(), peeked)


def test_equal_claims_get_an_equal_cookie_and_memory_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A herd with one link must not cost a signature each, nor a million links a million entries."""
    monkeypatch.setattr(continuation, "_MAX_MINTED", 4)
    cookies = Continuation(lambda: KEYS, lambda: NOW)
    first = cookies.set_cookie(PLAIN, CLAIMS, b"https")
    assert cookies.set_cookie(PLAIN, replace(CLAIMS), b"https") == first
    assert len(cookies._minted) == 1
    for i in range(20):
        cookies.set_cookie(PLAIN, replace(CLAIMS, jti=f"j{i}"), b"https")
        assert len(cookies._minted) <= 4
    assert cookies.set_cookie(PLAIN, CLAIMS, b"https") == first
    assert CLAIMS.kind is Transport.HTTP
