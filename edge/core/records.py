"""What the control plane says about sandboxes and grants.

Records are facts with a version: of two records of one id the higher version is the truth, whichever
arrived last. Edges read records and never write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum


class State(StrEnum):
    """The states of a sandbox, as the control plane names them."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"
    DESTROYED = "destroyed"
    ERROR = "error"


IN_BETWEEN = frozenset({State.CREATING, State.PAUSING, State.RESUMING})
"""States that end by themselves: the control plane is at work."""


class Transport(StrEnum):
    """What a preview token may be used for: plain HTTP requests or WebSocket upgrades, never both."""

    HTTP = "http_port"
    WEBSOCKET = "websocket_port"


class GrantStatus(StrEnum):
    """The states of a grant. Only an active one lets anybody in."""

    ACTIVE = "active"
    DISABLED = "disabled"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where an incarnation's ports are reached.

    ``host`` is an IP address or a name the edge can resolve. ``ports`` maps a sandbox's port to the
    port on that host; without it (or for a port it does not name) the numbers are the same, unless
    ``only_ports`` says that no other port can be reached: it is closed, then.
    """

    host: str
    ports: Mapping[int, int] | None = None
    only_ports: bool = False

    def address(self, port: int) -> tuple[str, int]:
        """The host and the port to dial for a sandbox's ``port``; 0, where nobody can listen, for a closed one."""
        return self.host, (self.ports or {}).get(port, 0 if self.only_ports else port)


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """One sandbox. ``running_since`` is Unix time in seconds by the control plane's clock.

    ``incarnation`` grows by one with every execution and names a *paused* execution too: it is what
    compare-and-resume compares. ``traffic_token_sha256`` (lower-case hex) is set for a sandbox whose
    traffic is not public. ``upstream`` is set while the sandbox runs. A record in state ``destroyed``
    is its own tombstone.
    """

    id: str
    state: State
    version: int
    incarnation: int
    auto_resume: bool = False
    running_since: float | None = None
    upstream: Upstream | None = None
    traffic_token_sha256: str | None = None
    mask_request_host: str | None = None
    previews_disabled: bool = False


@dataclass(frozen=True, slots=True)
class GrantRecord:
    """One grant: what every token minted under it still rests on. ``expires_at`` is exact Unix time."""

    id: str
    sandbox_id: str
    port: int
    kinds: frozenset[Transport]
    status: GrantStatus
    expires_at: float
    version: int


Record = SandboxRecord | GrantRecord
"""What the control plane says about anything that has a version."""


class Missing(Enum):
    """Why there is no record to be had from what the edge knows."""

    UNKNOWN = "a look-up is needed"
    ABSENT = "the control plane said there is none"
    LOST = "the control plane has been silent for too long to believe anything"
