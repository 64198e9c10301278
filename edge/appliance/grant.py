"""One preview grant: the durable half of a credential, and what was done with it.

Its tokens (one for HTTP, one for WebSockets) fail when the grant expires, is revoked or is disabled.
Times are Unix times in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from edge.core.records import GrantRecord, GrantStatus, Transport

PRINCIPAL = "local"
"""There is one user: whoever holds the API key."""

KINDS = (Transport.HTTP, Transport.WEBSOCKET)
"""Both transports, in the order in which they are listed."""


class AuthMode(StrEnum):
    """Who presents the tokens: a visitor's browser, or a customer's own proxy."""

    DIRECT = "direct"
    PROXY = "proxy"

    @property
    def transport(self) -> str:
        """Where the token is carried."""
        return "header" if self is AuthMode.PROXY else "query"


@dataclass(slots=True, eq=False)
class Grant:
    """One grant and its counters. Bytes *in* go from client to app.

    ``told`` is when the audit trail last heard of a use (``""``) or of a failure (its code).
    """

    id: str
    sandbox_id: str
    port: int
    issued_at: float
    expires_at: float
    updated_at: float
    mode: AuthMode = AuthMode.DIRECT
    kinds: tuple[Transport, ...] = KINDS
    version: int = 1
    revoked_at: float | None = None
    disabled_at: float | None = None
    first_used_at: float | None = None
    last_used_at: float | None = None
    requests: int = 0
    websockets: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    last_error_code: str | None = None
    last_error_at: float | None = None
    told: dict[str, float] = field(default_factory=dict)

    def status(self, now: float) -> GrantStatus:
        """Revoked for good; expired by the clock; disabled until it is enabled again; else active."""
        if self.revoked_at is not None:
            return GrantStatus.REVOKED
        if self.expires_at <= now:
            return GrantStatus.EXPIRED
        return GrantStatus.ACTIVE if self.disabled_at is None else GrantStatus.DISABLED

    def ended(self, now: float) -> bool:
        """Whether it will never let anybody in again."""
        return self.status(now) in (GrantStatus.REVOKED, GrantStatus.EXPIRED)

    def record(self, now: float) -> GrantRecord:
        """What edges see."""
        return GrantRecord(
            id=self.id,
            sandbox_id=self.sandbox_id,
            port=self.port,
            kinds=frozenset(self.kinds),
            status=self.status(now),
            expires_at=self.expires_at,
            version=self.version,
        )


_WRITTEN = tuple(one.name for one in fields(Grant) if one.name not in ("mode", "kinds", "told"))
"""What is written as it is. ``told`` is not: after a restart the trail hears of a use once more."""


def to_document(grant: Grant) -> dict[str, Any]:
    """A grant as JSON."""
    return {
        **{name: getattr(grant, name) for name in _WRITTEN},
        "mode": grant.mode.value,
        "kinds": [kind.value for kind in grant.kinds],
    }


def from_document(document: dict[str, Any]) -> Grant:
    """The grant again. Raises ValueError, TypeError or KeyError for what `to_document` never wrote."""
    return Grant(
        **{name: document[name] for name in _WRITTEN if name in document},
        mode=AuthMode(document["mode"]),
        kinds=tuple(Transport(kind) for kind in document["kinds"]),
    )
