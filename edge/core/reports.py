"""What the edge tells about itself: one report an exchange, one a wake, and who wants to hear them.

The rooms below ``ops`` know only this protocol, so that metrics and logs can change without them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from edge.core.errors import Problem


class Role(StrEnum):
    """What an exchange had to do with a wake."""

    NONE = "none"
    LEADER = "leader"
    FOLLOWER = "follower"


class End(StrEnum):
    """How an exchange (or the tunnel it became) ended. A bounded metric label."""

    COMPLETE = "complete"
    CLIENT_GONE = "client_gone"
    CLIENT_STALLED = "client_stalled"
    UPSTREAM_GONE = "upstream_gone"
    UPSTREAM_STALLED = "upstream_stalled"
    UPSTREAM_INVALID = "upstream_invalid"
    SANDBOX_LEFT_RUNNING = "sandbox_left_running"
    GRANT_ENDED = "grant_ended"
    PREVIEWS_DISABLED = "previews_disabled"
    DRAINED = "drained"


@dataclass(slots=True)
class ExchangeReport:
    """One exchange, told once when it is over. A tunnel is told when the tunnel is over.

    ``started`` is Unix time; durations are seconds; ``path`` has no query, because queries carry
    credentials; ``problem`` is set when the edge itself answered. ``waited`` is the time spent parked
    (look-ups and wakes), part of ``duration``. ``limit`` is the setting that left no room for it.
    """

    started: float
    duration: float
    waited: float
    request_id: str
    peer: str
    method: str
    host: str
    path: str
    status: int
    problem: Problem | None
    end: End
    role: Role
    tunnel: bool
    sandbox_id: str
    port: int
    grant_id: str
    bytes_in: int
    bytes_out: int
    limit: str = ""


@dataclass(slots=True)
class WakeReport:
    """One wake, told once: when the first answer byte came, or when it failed.

    ``outcome`` is ``ok`` or the code of the error its waiters got. Phases are seconds, None when not
    reached: ``resume`` until the control plane said running, ``dispatch`` from there to the first
    byte sent upstream, ``listen`` from running until the app's port accepted, ``first_byte`` from the first byte
    sent until the app began to answer. ``woken_by`` is method and path of the leader, no query.
    """

    sandbox_id: str
    outcome: str
    woken_by: str
    waiters: int
    resume: float | None
    listen: float | None
    dispatch: float | None
    first_byte: float | None


class Observer(Protocol):
    """Who hears the reports. Called on the loop's thread; must not block and must not raise."""

    def exchange(self, report: ExchangeReport) -> None:
        """An exchange is over."""

    def wake(self, report: WakeReport) -> None:
        """A wake is over."""

    def dialed(self, outcome: str) -> None:
        """An attempt to connect upstream ended: ``connected``, ``refused``, ``timeout``, ``unreachable``."""

    def event(self, name: str, **fields: object) -> None:
        """Something an operator may want to read about; ``fields`` never hold a credential."""
