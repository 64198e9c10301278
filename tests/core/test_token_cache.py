"""The token cache: what was verified is found again, and a flood of forgeries changes nothing about it."""

from __future__ import annotations

import pytest

from edge.core.credentials import Claims, Family
from edge.core.records import Transport
from edge.core.token_cache import TokenCache

GOOD = b"a genuine token"
CLAIMS = Claims(
    "nullspace", "preview.example", "sb_aaaaaaaa", 3000, Transport.HTTP, "pvg_1", "user_1",
    1000.0, 1900.0, "jti-1",
)  # fmt: skip


def test_cache_keeps_families_apart() -> None:
    """A verified edge token says nothing about the same bytes as a cookie."""
    cache = TokenCache(10)
    cache.remember(Family.EDGE, GOOD, CLAIMS)
    assert cache.claims(Family.EDGE, GOOD) == CLAIMS
    assert cache.claims(Family.CONTINUATION, GOOD) is None
    assert cache.claims(Family.PROXY, GOOD) is None
    cache.remember(Family.PROXY, GOOD, None)
    assert cache.refuted(Family.PROXY, GOOD)
    assert not cache.refuted(Family.EDGE, GOOD)


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 100])
def test_cache_is_bounded_and_keeps_the_newest(size: int) -> None:
    """Never more than its size, and the token just verified is always in it."""
    cache = TokenCache(size)
    for i in range(3 * size):
        token = b"%d" % i
        cache.remember(Family.EDGE, token, CLAIMS)
        assert cache.claims(Family.EDGE, token) == CLAIMS
        assert len(cache._verified) <= size


def test_forgeries_do_not_push_out_verified_tokens() -> None:
    """A flood of bad tokens fills its own table only, and that one is bounded."""
    cache = TokenCache(2)
    cache.remember(Family.EDGE, GOOD, CLAIMS)
    for i in range(3 * TokenCache.REFUTED_MAX):
        cache.remember(Family.EDGE, b"%d" % i, None)
    assert cache.claims(Family.EDGE, GOOD) == CLAIMS
    assert len(cache._refuted) <= TokenCache.REFUTED_MAX


def test_forget_drops_both_tables() -> None:
    """After a change of keys nothing is known, neither good nor bad."""
    cache = TokenCache(2)
    cache.remember(Family.EDGE, GOOD, CLAIMS)
    cache.remember(Family.EDGE, b"bad", None)
    cache.forget()
    assert cache.claims(Family.EDGE, GOOD) is None
    assert not cache.refuted(Family.EDGE, b"bad")
    assert cache.era == 1, "what was concluded before is void"
