"""The change log that edges follow: every new record of a sandbox or a grant, with a cursor.

A watcher holds nothing but its position, so a slow one costs no memory: it reads on from its cursor,
or is told to resync when the log does not reach back that far.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice

from edge.core.records import GrantRecord, SandboxRecord
from edge.state.port import Change

MAX_CHANGES = 10_000
"""Changes kept for edges that come back."""


class Feed:
    """Changes with growing cursors.

    ``start`` is the cursor before the first change. The log is lost with the process, so a cursor of an
    earlier run must not look like one of this run (``epoch.py``): who comes with one is told to resync.
    """

    def __init__(self, start: int, max_changes: int = MAX_CHANGES) -> None:
        self._cursor = start
        self._changes: deque[Change] = deque(maxlen=max_changes)
        self._news = asyncio.Event()
        self._listeners: list[Callable[[SandboxRecord | GrantRecord], None]] = []

    def listen(self, callback: Callable[[SandboxRecord | GrantRecord], None]) -> None:
        """Hear of every new record, too, at once."""
        self._listeners.append(callback)

    @property
    def cursor(self) -> int:
        """Where the log stands."""
        return self._cursor

    @property
    def news(self) -> asyncio.Event:
        """Set with the next change. Take it *before* `since`, or a change in between is missed."""
        return self._news

    def publish(self, record: SandboxRecord | GrantRecord) -> None:
        """Add a change and wake the watchers."""
        self._cursor += 1
        self._changes.append(Change(self._cursor, record))
        self._news.set()
        self._news = asyncio.Event()
        for callback in self._listeners:
            callback(record)

    def since(self, cursor: int) -> list[Change] | None:
        """The changes after ``cursor``; None when they are not kept, or the cursor is not ours."""
        behind = self._cursor - cursor
        if not 0 <= behind <= len(self._changes):
            return None
        return list(islice(self._changes, len(self._changes) - behind, None))
