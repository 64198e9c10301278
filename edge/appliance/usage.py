"""Usage that edges report: each batch counts once, however often it arrives."""

from __future__ import annotations

from edge.appliance.grants import Grants
from edge.appliance.sandboxes import Sandboxes
from edge.state.port import UsageBatch

MAX_EDGES = 10_000
"""Edges whose last sequence number is remembered; the ones silent for longest go first."""


class UsageCounter:
    """Hands reported usage to the grants and the sandboxes' inactivity timeouts."""

    def __init__(self, grants: Grants, sandboxes: Sandboxes) -> None:
        self._grants = grants
        self._sandboxes = sandboxes
        self._last: dict[str, int] = {}

    def take(self, batch: UsageBatch) -> bool:
        """Count a batch; False for one that was counted before (sequences of an edge grow)."""
        last = self._last.pop(batch.edge, None)
        fresh = last is None or batch.sequence > last
        # Put back at the end: the order of the dict is the order of silence.
        self._last[batch.edge] = batch.sequence if last is None else max(last, batch.sequence)
        if len(self._last) > MAX_EDGES:
            del self._last[next(iter(self._last))]
        if fresh:
            for item in batch.items:
                self._grants.count(item)
                if item.active:
                    self._sandboxes.touch(item.sandbox_id)
        return fresh
