"""Usage that edges report: each batch counts once, however often and in whatever order it arrives, also after a restart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from edge.appliance.grants import Grants
from edge.appliance.sandboxes import Sandboxes
from edge.appliance.store import Store, StoreError
from edge.state.port import Unavailable, UsageBatch

MAX_GAPS = 16
"""Gaps remembered per edge: runs of numbers that may still come, by way of Redis; the oldest go first."""

MAX_EDGES = 10_000
"""Edges whose numbers are remembered; the ones silent for longest go first."""


class UsageCounter:
    """Hands reported usage to the grants and the sandboxes' inactivity timeouts."""

    def __init__(self, grants: Grants, sandboxes: Sandboxes, store: Store) -> None:
        self._grants = grants
        self._sandboxes = sandboxes
        self._store = store
        store.declare(
            "CREATE TABLE IF NOT EXISTS edges (edge TEXT PRIMARY KEY, sequence TEXT NOT NULL)"
        )
        rows = store.read("SELECT edge, sequence FROM edges ORDER BY rowid")
        self._counted = {edge: _Counted.from_text(sequence) for edge, sequence in rows}

    def take(self, batch: UsageBatch) -> bool:
        """Count a batch; False for one that was counted before.

        Raises `StoreError`; nothing is counted then, so that the edge can deliver it again.
        """
        known = self._counted.get(batch.edge)
        counted = _Counted(batch.sequence) if known is None else known.and_also(batch.sequence)
        fresh = counted is not None
        if counted is not None:
            silent = None
            if known is None and len(self._counted) >= MAX_EDGES:
                silent = next(iter(self._counted))
            with self._store.transaction():
                self._remember(batch.edge, counted, silent)
                self._grants.count(batch.items)
            if silent is not None:
                del self._counted[silent]
            known = counted
        assert known is not None
        # Put back at the end: the order of the dict, and of the rows, is the order of silence.
        self._counted.pop(batch.edge, None)
        self._counted[batch.edge] = known
        for item in batch.items if fresh else ():
            if item.active:
                self._sandboxes.touch(item.sandbox_id)
        return fresh

    def take_late(self, batch: UsageBatch) -> None:
        """The same for a batch that waited in Redis. Raises `Unavailable` when it has to go on waiting there."""
        try:
            self.take(batch)
        except StoreError as e:
            raise Unavailable(str(e)) from None

    def _remember(self, edge: str, counted: _Counted, silent: str | None) -> None:
        # As text: a number on the wire may have any size.
        self._store.write("INSERT OR REPLACE INTO edges VALUES (?, ?)", (edge, counted.to_text()))
        if silent is not None:
            self._store.write("DELETE FROM edges WHERE edge = ?", (silent,))


@dataclass(frozen=True, slots=True)
class _Counted:
    """Which numbers of one edge were counted: those from the first one to ``last``, but for the gaps."""

    last: int
    gaps: tuple[range, ...] = ()

    def and_also(self, number: int) -> Self | None:
        """With one more; None when it was counted before. A later one may overtake those that wait in Redis."""
        if number > self.last:
            gap = range(self.last + 1, number)
            gaps = (*self.gaps, gap) if gap.start < gap.stop else self.gaps
            return type(self)(number, gaps[-MAX_GAPS:])
        for place, gap in enumerate(self.gaps):
            if number in gap:
                parts = (range(gap.start, number), range(number + 1, gap.stop))
                left = tuple(part for part in parts if part.start < part.stop)
                return type(self)(self.last, (*self.gaps[:place], *left, *self.gaps[place + 1 :]))
        return None

    def to_text(self) -> str:
        """``12 6-8 10-10``: the last number, then the gaps."""
        return " ".join([str(self.last), *(f"{gap.start}-{gap.stop - 1}" for gap in self.gaps)])

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The inverse."""
        last, *gaps = text.split(" ")
        pairs = (gap.split("-") for gap in gaps)
        return cls(int(last), tuple(range(int(start), int(end) + 1) for start, end in pairs))
