"""Usage that edges report: each batch counts once, however often and in whatever order it arrives, also after a restart."""

from __future__ import annotations

import asyncio

from edge.appliance.grants import Grants
from edge.appliance.sandboxes import Sandboxes
from edge.appliance.sequences import Sequences
from edge.appliance.store import Store
from edge.state.port import UsageBatch

MAX_EDGES = 10_000
"""Edges whose sequence numbers are remembered; the ones silent for longest go first."""


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
        self._taken = {edge: Sequences.parse(sequence) for edge, sequence in rows}
        self._news = asyncio.Event()

    @property
    def news(self) -> asyncio.Event:
        """Set with the next batch that counts. Take it *before* a look at the counters."""
        return self._news

    def take(self, batch: UsageBatch) -> bool:
        """Count a batch; False for one that was counted before.

        Raises `StoreError`; nothing is counted then, so that the edge can deliver it again.
        """
        known = self._taken.get(batch.edge)
        taken = (known or Sequences()).take(batch.sequence)
        if taken is not None:
            silent = None
            if known is None and len(self._taken) >= MAX_EDGES:
                silent = next(iter(self._taken))
            with self._store.transaction():
                self._remember(batch.edge, taken, silent)
                self._grants.count(batch.items)
            if silent is not None:
                del self._taken[silent]
        # Put back at the end: the order of the dict, and of the rows, is the order of silence.
        self._taken.pop(batch.edge, None)
        self._taken[batch.edge] = taken or known or Sequences()
        for item in batch.items if taken is not None else ():
            if item.active:
                self._sandboxes.touch(item.sandbox_id)
        if taken is not None:
            self._news.set()
            self._news = asyncio.Event()
        return taken is not None

    def _remember(self, edge: str, taken: Sequences, silent: str | None) -> None:
        values = (edge, taken.text())
        self._store.write("INSERT OR REPLACE INTO edges VALUES (?, ?)", values)
        if silent is not None:
            self._store.write("DELETE FROM edges WHERE edge = ?", (silent,))
