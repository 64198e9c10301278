"""Lifecycle events: what happened to sandboxes, for the lists of the public API."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

MAX_EVENTS = 10_000
"""Events kept in all; the oldest go first."""


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

    def admits(self, event: LifecycleEvent) -> bool:
        """Whether this event is one of those asked for."""
        wanted: Iterable[tuple[object, object]] = (
            (self.sandbox_id, event.sandbox_id),
            (self.snapshot_id, event.snapshot_id),
            (self.source_sandbox_id, event.source_sandbox_id),
            (self.target_sandbox_id, event.target_sandbox_id),
            (self.operation, event.operation),
            (self.status, event.status),
        )
        if any(want is not None and want != have for want, have in wanted):
            return False
        late_enough = self.since is None or event.occurred_at >= self.since
        return late_enough and (self.until is None or event.occurred_at <= self.until)


def _shown(time: float) -> float:
    """The same rounding on both ways: ``_time`` of ``api/lifecycle.py`` reads what ``rfc3339`` wrote."""
    return datetime.fromtimestamp(time, UTC).timestamp()


class EventLog:
    """The newest events, in order."""

    def __init__(self, wall: Callable[[], float], max_events: int = MAX_EVENTS) -> None:
        self._wall = wall
        self._events: deque[LifecycleEvent] = deque(maxlen=max_events)
        self._news = asyncio.Event()

    @property
    def news(self) -> asyncio.Event:
        """Set with the next event. Take it *before* a look at the list, or one in between is missed."""
        return self._news

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
        event = LifecycleEvent(
            id=str(uuid.uuid4()),
            occurred_at=_shown(self._wall()),
            operation=operation,
            status=status,
            actor=actor,
            sandbox_id=sandbox_id,
            reason=reason,
            snapshot_id=snapshot_id,
            source_sandbox_id=source_sandbox_id,
            target_sandbox_id=target_sandbox_id,
            error_code=code,
            error_message=message,
            metadata=metadata or {},
        )
        self._events.append(event)
        self._news.set()
        self._news = asyncio.Event()

    def select(
        self, wanted: EventFilter, *, offset: int, limit: int, ascending: bool
    ) -> tuple[list[LifecycleEvent], bool]:
        """One page of the events asked for, and whether there are more behind it."""
        ordered = self._events if ascending else reversed(self._events)
        found = [event for event in ordered if wanted.admits(event)]
        return found[offset : offset + limit], len(found) > offset + limit
