"""Lifecycle events: what happened to sandboxes, for the lists and streams of the public API.

They are kept in the store, in the order of their numbers. An event is written in the very call that says
it happened, so a list or a stream that shows it will show it again after a restart. Who follows the log
holds nothing but a number, so a slow reader costs no memory; the oldest events go first and leave no
hole, so whoever stands on a number that is kept misses nothing after it.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from edge.appliance.store import Store, StoreError

MAX_EVENTS = 50_000
"""Events kept in all: some 15 MB, and a filter that finds nothing has looked at them within 10 ms."""

MAX_AGE = 7 * 24 * 3600.0
"""Seconds an event is kept: whoever comes back with a cursor after a week starts anew."""

SWEEP = 60.0
"""Seconds between two looks for events that are too old."""


class Operation(StrEnum):
    """What was done. The published list; this control plane does not emit all of them."""

    CREATE = "create"
    DESTROY = "destroy"
    TIMEOUT_UPDATED = "timeout_updated"
    TIMEOUT_EXPIRED = "timeout_expired"
    HIBERNATE = "hibernate"
    SNAPSHOT_CREATED = "snapshot_created"
    RESUME_FROM_SNAPSHOT = "resume_from_snapshot"
    FORK = "fork"
    RECONCILE = "reconcile"


class Status(StrEnum):
    """How far it got."""

    REQUESTED = "requested"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class Actor(StrEnum):
    """Who did it."""

    USER = "user"
    SYSTEM = "system"
    RECONCILE = "reconcile"


@dataclass(frozen=True, slots=True)
class LifecycleEvent:
    """One event. ``occurred_at`` is Unix time in whole microseconds, as it is shown.

    Anything finer would make an event later (or earlier) than the time a client reads and asks from.
    """

    id: str
    occurred_at: float
    operation: Operation
    status: Status
    actor: Actor
    sandbox_id: str
    reason: str
    snapshot_id: str | None = None
    source_sandbox_id: str | None = None
    target_sandbox_id: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    metadata: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are asked for; None = any. ``since`` and ``until`` are Unix times, both included."""

    sandbox_id: str | None = None
    snapshot_id: str | None = None
    source_sandbox_id: str | None = None
    target_sandbox_id: str | None = None
    operation: Operation | None = None
    status: Status | None = None
    since: float | None = None
    until: float | None = None

    def where(self) -> tuple[str, list[object]]:
        """As conditions for events behind one number and up to another (the first two values)."""
        conditions, values = ["number > ? AND number <= ?"], list[object]()
        for name, compare in _COMPARED.items():
            value = getattr(self, name)
            if value is not None:
                conditions.append(compare)
                values.append(_text(value) if isinstance(value, str) else value)
        return " AND ".join(conditions), values


_COMPARED = {
    "sandbox_id": "sandbox_id = ?",
    "snapshot_id": "snapshot_id = ?",
    "source_sandbox_id": "source_sandbox_id = ?",
    "target_sandbox_id": "target_sandbox_id = ?",
    "operation": "operation = ?",
    "status": "status = ?",
    "since": "occurred_at >= ?",
    "until": "occurred_at <= ?",
}

_COLUMNS = [f.name for f in fields(LifecycleEvent)]
_NAMES = ", ".join(_COLUMNS)
_INSERT = f"INSERT INTO events ({_NAMES}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 - names of ours

_TABLES = (
    # AUTOINCREMENT: a number is never given twice, not even when the newest event is gone.
    """CREATE TABLE IF NOT EXISTS events (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        occurred_at REAL NOT NULL,
        operation TEXT NOT NULL,
        status TEXT NOT NULL,
        actor TEXT NOT NULL,
        sandbox_id TEXT NOT NULL,
        reason TEXT NOT NULL,
        snapshot_id TEXT,
        source_sandbox_id TEXT,
        target_sandbox_id TEXT,
        error_code TEXT,
        error_message TEXT,
        metadata TEXT NOT NULL
    )""",
    "CREATE INDEX IF NOT EXISTS events_of_sandbox ON events (sandbox_id, number)",
    "CREATE INDEX IF NOT EXISTS events_of_snapshot ON events (snapshot_id, number)",
)

_HEAD = "coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'events'), 0)"


class EventLog:
    """The newest events, in order. ``wall`` is Unix time in seconds."""

    def __init__(
        self,
        store: Store,
        wall: Callable[[], float],
        *,
        max_events: int = MAX_EVENTS,
        max_age: float = MAX_AGE,
    ) -> None:
        self._wall = wall
        self._store = store
        self._max_events = max_events
        self._max_age = max_age
        self._news = asyncio.Event()
        self._swept: float | None = None
        self._store.declare(*_TABLES)

    @property
    def news(self) -> asyncio.Event:
        """Set with the next event. Take it *before* a look at the log, or one in between is missed."""
        return self._news

    @property
    def head(self) -> int:
        """The number of the newest event there ever was; 0 before the first."""
        return int(self._store.read(f"SELECT {_HEAD}")[0][0])

    @property
    def floor(self) -> int:
        """The number before the oldest event that is kept: whoever stands below it has missed some."""
        query = f"SELECT coalesce((SELECT min(number) FROM events), {_HEAD} + 1) - 1"  # noqa: S608 - ours
        return int(self._store.read(query)[0][0])

    def emit(
        self,
        operation: Operation,
        status: Status,
        *,
        sandbox_id: str,
        actor: Actor,
        reason: str,
        snapshot_id: str | None = None,
        source_sandbox_id: str | None = None,
        target_sandbox_id: str | None = None,
        error: tuple[str, str] | None = None,
        metadata: dict[str, object] | None = None,
    ) -> None:
        """Add an event that happens now. ``error`` is a code and a sentence."""
        code, message = error or (None, None)
        now = self._wall()
        event = LifecycleEvent(
            id=str(uuid.uuid4()),
            occurred_at=_shown(now),
            operation=operation,
            status=status,
            actor=actor,
            sandbox_id=sandbox_id,
            reason=_text(reason),
            snapshot_id=snapshot_id,
            source_sandbox_id=source_sandbox_id,
            target_sandbox_id=target_sandbox_id,
            error_code=code,
            error_message=message,
            metadata=metadata or {},
        )
        row = [getattr(event, name) for name in _COLUMNS[:-1]]
        with self._store.transaction():
            self._sweep(now)
            self._store.write(_INSERT, [*row, json.dumps(event.metadata)])
            full = f"DELETE FROM events WHERE number <= {_HEAD} - ?"  # noqa: S608 - ours
            self._store.write(full, (self._max_events,))
        # Who waits looks when the loop comes to it: after a transaction of which this is only a part.
        self._news.set()
        self._news = asyncio.Event()

    def select(
        self, wanted: EventFilter, *, offset: int, limit: int, ascending: bool
    ) -> tuple[list[LifecycleEvent], bool]:
        """One page of the events asked for, and whether there are more behind it."""
        self._tidy()
        found = self._find(wanted, 0, self.head, offset=offset, limit=limit + 1, up=ascending)
        return [event for _, event in found[:limit]], len(found) > limit

    def after(
        self, number: int, wanted: EventFilter, limit: int
    ) -> tuple[list[tuple[int, LifecycleEvent]], int]:
        """The next events asked for behind a number, with theirs, and the number up to where was looked."""
        head = self.head
        found = self._find(wanted, number, head, offset=0, limit=limit, up=True)
        return found, found[-1][0] if len(found) == limit else head

    def before(
        self, number: int, wanted: EventFilter, limit: int, offset: int = 0
    ) -> list[tuple[int, LifecycleEvent]]:
        """The events asked for up to and with a number, with theirs, newest first."""
        return self._find(wanted, 0, number, offset=offset, limit=limit, up=False)

    def number(self, event_id: str) -> int | None:
        """The number of an event; None when it is not kept, or never was."""
        self._tidy()
        found = self._store.read("SELECT number FROM events WHERE id = ?", (_text(event_id),))
        return int(found[0][0]) if found else None

    def _find(
        self, wanted: EventFilter, low: int, high: int, *, offset: int, limit: int, up: bool
    ) -> list[tuple[int, LifecycleEvent]]:
        where, values = wanted.where()
        order = "ASC" if up else "DESC"
        query = f"SELECT number, {_NAMES} FROM events WHERE {where} ORDER BY number {order}"  # noqa: S608 - ours
        rows = self._store.read(f"{query} LIMIT ? OFFSET ?", (low, high, *values, limit, offset))
        return [(row[0], _event(row[1:])) for row in rows]

    def _tidy(self) -> None:
        try:
            self._sweep(self._wall())
        except StoreError:
            pass  # what can still be read on a full disk is read

    def _sweep(self, now: float) -> None:
        """Forget what is too old, at most once in a while. Raises `StoreError`."""
        # Also when the clock was set back, or it would not be done until it has caught up.
        if self._swept is not None and 0 <= now - self._swept < SWEEP:
            return
        self._swept = now
        # Up to the first that is young enough: a clock that was set may have left older ones behind it,
        # and those stay, because a hole would be a silent gap for whoever reads on from before it.
        young = "SELECT number FROM events WHERE occurred_at >= ? ORDER BY number LIMIT 1"
        self._store.write(
            f"DELETE FROM events WHERE number < coalesce(({young}), {_HEAD} + 1)",  # noqa: S608 - ours
            (now - self._max_age,),
        )


def _event(row: tuple[Any, ...]) -> LifecycleEvent:
    said = dict(zip(_COLUMNS, row, strict=True))
    said["operation"] = Operation(said["operation"])
    said["status"] = Status(said["status"])
    said["actor"] = Actor(said["actor"])
    said["metadata"] = json.loads(said["metadata"])
    return LifecycleEvent(**said)


def _text(text: str) -> str:
    """What can be written: a lone surrogate has no UTF-8, and no event has an id with one."""
    return text.encode("utf-8", "replace").decode()


def _shown(time: float) -> float:
    """The same rounding on both ways: ``_time`` of ``api/lifecycle.py`` reads what ``rfc3339`` wrote."""
    return datetime.fromtimestamp(time, UTC).timestamp()
