"""The state port: all that the edge asks of a control plane.

Adapters (``http.py``, and ``redis/`` before it) implement `StatePort`. They turn whatever goes wrong below
them into one of the two exceptions here, so that nobody above has to know about HTTP statuses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from edge.core.records import GrantRecord, Record, SandboxRecord


class Unavailable(Exception):
    """The control plane did not give an answer that can be used: down, slow, 5xx or nonsense."""


class RefusalReason(StrEnum):
    """Why a control plane that is alive did not resume a sandbox."""

    FAILED = "resume_failed"
    NOT_FOUND = "not_found"
    AUTO_RESUME_DISABLED = "auto_resume_disabled"
    TIMEOUT = "resume_timeout"


class ResumeRefused(Exception):
    """The control plane answered, and the answer to a resume is no."""

    def __init__(self, reason: RefusalReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Change:
    """A newer record of a sandbox or a grant. ``cursor`` is where the watch stands after it."""

    cursor: int
    record: Record


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Everything up to ``cursor`` has been sent: proof that we are caught up, not just connected."""

    cursor: int


@dataclass(frozen=True, slots=True)
class Resync:
    """The control plane cannot replay from the cursor we named: everything known becomes unsure."""

    cursor: int


WatchEvent = Change | Heartbeat | Resync


@dataclass(frozen=True, slots=True)
class Usage:
    """What one grant's traffic amounted to since the last report. Bytes *in* go from client to app.

    ``active`` says that requests or bytes moved, which postpones the sandbox's inactivity timeout.
    """

    sandbox_id: str
    grant_id: str
    requests: int = 0
    websockets: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    active: bool = True
    last_error_code: str | None = None
    last_error_at: float | None = None


@dataclass(frozen=True, slots=True)
class UsageBatch:
    """Usage of one edge. ``sequence`` grows by one a batch; a repeat of (edge, sequence) counts once."""

    edge: str
    sequence: int
    items: tuple[Usage, ...]


class StatePort(Protocol):
    """Every method raises `Unavailable` when no usable answer came within its deadline."""

    async def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        """The record of one sandbox; None when there never was one of that id."""

    async def grant(self, grant_id: str) -> GrantRecord | None:
        """The record of one grant; None when there never was one of that id."""

    async def resume(
        self, sandbox_id: str, paused_incarnation: int, reason: str, timeout: float
    ) -> SandboxRecord:
        """Resume the execution that was seen paused, and return the record once it runs.

        Compare-and-resume: when the sandbox has moved on from ``paused_incarnation``, nothing is
        resumed and the current record is the answer. ``timeout`` is in seconds. Raises
        `ResumeRefused` when the control plane says no.
        """

    def watch(self, cursor: int | None) -> AsyncIterator[WatchEvent]:
        """Changes after ``cursor`` in order, then live ones, with a heartbeat at least twice a second.

        Ends by raising `Unavailable`; the caller reconnects with the last cursor it was given.
        """

    async def report(self, batch: UsageBatch) -> None:
        """Hand over usage. Repeating a batch that may have arrived is safe and expected."""

    async def ack(self, sandbox_id: str, version: int, in_flight: int) -> None:
        """Answer a ``pausing`` record of ``version``: so many exchanges are still in flight here."""

    async def close(self) -> None:
        """Let go of connections."""
