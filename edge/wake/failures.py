"""How wakes failed a moment ago: a storm of requests for a sandbox that does not wake costs one attempt."""

from __future__ import annotations

from collections.abc import Callable

from edge.core.errors import Problem
from edge.core.records import SandboxRecord

MAX_FAILURES = 10_000
"""Failures remembered at once; they last a second, so this bounds a storm, not normal work."""


class Failures:
    """The last failure of each sandbox, for ``memory`` seconds. ``clock`` gives monotonic seconds."""

    def __init__(self, memory: float, clock: Callable[[], float]) -> None:
        self._memory = memory
        self._clock = clock
        self._known: dict[str, tuple[float, int, Problem]] = {}  # until, incarnation, what

    def __len__(self) -> int:
        return len(self._known)

    def remember(self, paused: SandboxRecord, problem: Problem) -> None:
        """Waking it from this incarnation has failed."""
        now = self._clock()
        self._known.pop(paused.id, None)
        # Insertion order is order of expiry: every failure lasts equally long.
        while self._known:
            oldest = next(iter(self._known))
            if self._known[oldest][0] > now and len(self._known) < MAX_FAILURES:
                break
            del self._known[oldest]
        self._known[paused.id] = (now + self._memory, paused.incarnation, problem)

    def recall(self, paused: SandboxRecord) -> Problem | None:
        """How waking it from this very incarnation failed a moment ago; None when it is to be tried."""
        known = self._known.get(paused.id)
        if known is None:
            return None
        until, incarnation, problem = known
        if until <= self._clock():
            del self._known[paused.id]
            return None
        return problem if incarnation == paused.incarnation else None
