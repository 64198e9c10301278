"""Usage that edges report: each batch counts once, however often it arrives, also after a restart."""

from __future__ import annotations

import asyncio

from edge.appliance.grants import Grants
from edge.appliance.sandboxes import Sandboxes
from edge.appliance.store import Store
from edge.state.port import UsageBatch

MAX_EDGES = 10_000
"""Edges whose last sequence number is remembered; the ones silent for longest go first."""


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
        self._last = {edge: int(sequence) for edge, sequence in rows}
        self._news = asyncio.Event()

    @property
    def news(self) -> asyncio.Event:
        """Set with the next batch that counts. Take it *before* a look at the counters."""
        return self._news

    def take(self, batch: UsageBatch) -> bool:
        """Count a batch; False for one that was counted before (sequences of an edge grow).

        Raises `StoreError`; nothing is counted then, so that the edge can deliver it again.
        """
        last = self._last.get(batch.edge)
        fresh = last is None or batch.sequence > last
        if fresh:
            silent = None
            if last is None and len(self._last) >= MAX_EDGES:
                silent = next(iter(self._last))
            with self._store.transaction():
                self._remember(batch, silent)
                self._grants.count(batch.items)
            if silent is not None:
                del self._last[silent]
            last = batch.sequence
        assert last is not None
        # Put back at the end: the order of the dict, and of the rows, is the order of silence.
        self._last.pop(batch.edge, None)
        self._last[batch.edge] = last
        for item in batch.items if fresh else ():
            if item.active:
                self._sandboxes.touch(item.sandbox_id)
        if fresh:
            self._news.set()
            self._news = asyncio.Event()
        return fresh

    def _remember(self, batch: UsageBatch, silent: str | None) -> None:
        # As text: a number on the wire may have any size.
        values = (batch.edge, str(batch.sequence))
        self._store.write("INSERT OR REPLACE INTO edges VALUES (?, ?)", values)
        if silent is not None:
            self._store.write("DELETE FROM edges WHERE edge = ?", (silent,))
