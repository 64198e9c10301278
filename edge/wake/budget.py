"""Budgets: so many per period and key, refilled evenly.

Every table is bounded: a budget is kept only while it is not full again, and no more of them than
`MAX_BUDGETS`.
"""

from __future__ import annotations

from collections.abc import Callable

MAX_BUDGETS = 65536
"""Budgets kept per table; beyond it the ones begun longest ago are forgotten (and start full)."""


class Budget:
    """So many per period and key, refilled evenly: one timestamp a key (the GCRA of ATM and cells).

    The timestamp is when the key's budget will be full again, so a key that is not in the table, or whose
    time has come, has a full one. ``limit`` 0 means no limit.
    """

    def __init__(self, limit: int, period: float, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._step = period / limit if limit else 0.0
        self._clock = clock
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._full_at)

    def allowed(self, key: str) -> bool:
        """Whether one more may be spent now."""
        if not self._limit:
            return True
        missing = self._full_at.get(key, 0.0) - self._clock()
        # Half a step of slack keeps rounding errors of the sums from eating the last one.
        return missing < self._step * (self._limit - 0.5)

    def spend(self, key: str) -> bool:
        """Spend one; False (and nothing spent) when there is none."""
        if not self._limit:
            return True
        if not self.allowed(key):
            return False
        now = self._clock()
        full_at = max(self._full_at.pop(key, now), now) + self._step
        if len(self._full_at) >= MAX_BUDGETS:
            self._forget(now)
        self._full_at[key] = full_at
        return True

    def _forget(self, now: float) -> None:
        """Make room for at least an eighth, so that the next sweep is a long time off."""
        kept = [(key, at) for key, at in self._full_at.items() if at > now]
        self._full_at = dict(kept[-(MAX_BUDGETS - MAX_BUDGETS // 8) :])
