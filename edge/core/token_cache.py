"""The outcomes of signature checks: each token is verified once, while its key is believed."""

from __future__ import annotations

from itertools import islice
from typing import Any

from edge.core.credentials import Claims, Family


class TokenCache:
    """Verified tokens, and (apart, so that forgeries cannot push them out) refuted ones. Bounded.

    Emptied by `forget` whenever the keys change: a token is good only while its key is believed.
    """

    REFUTED_MAX = 1024

    def __init__(self, max_entries: int) -> None:
        self._max = max_entries
        self._verified: dict[tuple[Family, bytes], Claims] = {}
        self._refuted: dict[tuple[Family, bytes], None] = {}
        self.era = 0
        """Counts how often everything was forgotten: what was concluded in an earlier era is void."""

    def claims(self, family: Family, token: bytes) -> Claims | None:
        """The claims of a token whose signature was checked, else None."""
        return self._verified.get((family, token))

    def refuted(self, family: Family, token: bytes) -> bool:
        """Whether this very token failed its signature check lately."""
        return (family, token) in self._refuted

    def remember(self, family: Family, token: bytes, claims: Claims | None) -> None:
        """Keep the outcome of a signature check; None = it failed."""
        if claims is not None:
            _bounded_put(self._verified, (family, token), claims, self._max)
        else:
            _bounded_put(self._refuted, (family, token), None, self.REFUTED_MAX)

    def forget(self) -> None:
        """Drop everything."""
        self.era += 1
        self._verified.clear()
        self._refuted.clear()


def _bounded_put(table: dict[Any, Any], key: Any, value: Any, limit: int) -> None:
    if len(table) >= limit:
        # The oldest eighth at once: dropping one at a time would cost every insertion its share.
        for old in list(islice(table, max(1, limit // 8))):
            del table[old]
    table[key] = value
