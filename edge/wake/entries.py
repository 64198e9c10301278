"""What the catalog keeps about one id, and about a look-up that is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State
from edge.wake.table import Table

R = TypeVar("R", SandboxRecord, GrantRecord)


@dataclass(slots=True)
class Entry(Generic[R]):
    """What is known of one id. Times are monotonic seconds.

    ``epoch`` is the catalog's epoch in which the record was read: a lower one makes the entry unsure.
    ``read_at`` is when the last successful look-up *began*, because its answer is no younger for sure;
    ``asked_at`` is when the last look-up ended, well or (``failed``) not.
    """

    record: R | None
    version: int
    epoch: int
    read_at: float
    asked_at: float
    failed: bool = False

    @property
    def final(self) -> bool:
        """Whether the record can never change again."""
        match self.record:
            case SandboxRecord(state=State.DESTROYED):
                return True
            case GrantRecord(status=GrantStatus.REVOKED | GrantStatus.EXPIRED):
                return True
        return False


@dataclass(slots=True)
class Pending(Generic[R]):
    """A look-up under way. ``newest`` is the newest record heard of meanwhile."""

    done: asyncio.Event = field(default_factory=asyncio.Event)
    newest: R | None = None
    failure: str | None = "the look-up was given up"


class Shelf(Generic[R]):
    """Entries and pending look-ups of one kind of record."""

    def __init__(self, limit: int, ask: Callable[[str], Awaitable[R | None]]) -> None:
        self.entries: Table[Entry[R]] = Table(limit)
        self.pending: dict[str, Pending[R]] = {}
        self.ask: Callable[[str], Awaitable[R | None]] = ask
