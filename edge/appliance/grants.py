"""Preview grants: who may reach which port of which sandbox, until when, and what it amounted to.

A grant is the durable half of a credential: its tokens (one for HTTP, one for WebSockets) fail when
the grant expires or is revoked. Times are Unix times in seconds.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from edge.appliance.feed import Feed
from edge.appliance.problems import (
    PREVIEW_GRANT_NOT_FOUND,
    QUOTA_EXCEEDED,
    UNSUPPORTED_PREVIEW_PORT,
    ApiError,
)
from edge.appliance.requests import DEFAULT_TTL, LONGEST_TTL, SHORTEST_TTL
from edge.core.credentials import Claims, Family, Key, sign
from edge.core.records import GrantRecord, GrantStatus, Transport
from edge.core.target import Site, supported_port
from edge.state.port import Usage

PRINCIPAL = "local"
"""There is one user: whoever holds the API key."""

KINDS = frozenset(Transport)

ACTIVE_LIMIT = 1000
"""Active grants of one sandbox."""

ENDED_LIMIT = 1000
"""Expired and revoked grants of one sandbox that stay listed; the oldest go first."""


@dataclass(slots=True, eq=False)
class Grant:
    """One grant and its counters. Bytes *in* go from client to app."""

    id: str
    sandbox_id: str
    port: int
    issued_at: float
    expires_at: float
    updated_at: float
    version: int = 1
    revoked_at: float | None = None
    first_used_at: float | None = None
    last_used_at: float | None = None
    requests: int = 0
    websockets: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    last_error_code: str | None = None
    last_error_at: float | None = None

    def status(self, now: float) -> GrantStatus:
        """Revoked for good; expired by the clock; else active."""
        if self.revoked_at is not None:
            return GrantStatus.REVOKED
        return GrantStatus.EXPIRED if self.expires_at <= now else GrantStatus.ACTIVE

    def record(self, now: float) -> GrantRecord:
        """What edges see."""
        return GrantRecord(
            id=self.id,
            sandbox_id=self.sandbox_id,
            port=self.port,
            kinds=KINDS,
            status=self.status(now),
            expires_at=self.expires_at,
            version=self.version,
        )


@dataclass(frozen=True, slots=True)
class Preview:
    """A fresh grant and the URLs that carry its tokens. ``host`` has the port where one is needed."""

    grant: Grant
    host: str
    url: str = field(repr=False)
    websocket_url: str = field(repr=False)


class Minter:
    """Turns a grant into URLs. `site` and `reserved` are set anew once the edge's port is known.

    ``signing`` tells the key that signs now.
    """

    def __init__(
        self, signing: Callable[[], Key], *, issuer: str, site: Site, reserved: frozenset[int]
    ) -> None:
        self._signing = signing
        self._issuer = issuer
        self.site = site
        self.reserved = reserved

    def port(self, value: object) -> int:
        """A port that can be previewed. Raises `ApiError` (unsupported_preview_port)."""
        supported = type(value) is int and supported_port(value) and value not in self.reserved
        if not supported:
            shown = value if type(value) is int and abs(value) < 2**53 else str(value)[:32]
            raise ApiError(UNSUPPORTED_PREVIEW_PORT, details={"port": shown})
        assert isinstance(value, int)
        return value

    def preview(self, grant: Grant) -> Preview:
        """The URLs; HTTP and WebSocket carry tokens of their own."""
        site = self.site
        usual = {"http": 80, "https": 443}[site.scheme]
        suffix = f":{site.port}" if site.port not in (0, usual) else ""
        label = grant.sandbox_id.replace("_", "-")
        host = f"{grant.port}-{label}.{site.hostname}{suffix}"
        web = site.scheme.replace("http", "ws")
        http_token = quote(self._token(grant, Transport.HTTP))
        websocket_token = quote(self._token(grant, Transport.WEBSOCKET))
        return Preview(
            grant,
            host,
            f"{site.scheme}://{host}/?edge_token={http_token}",
            f"{web}://{host}/?edge_token={websocket_token}",
        )

    def _token(self, grant: Grant, kind: Transport) -> str:
        claims = Claims(
            iss=self._issuer,
            aud=self.site.hostname,
            sub=grant.sandbox_id,
            port=grant.port,
            kind=kind,
            grant=grant.id,
            principal=PRINCIPAL,
            iat=grant.issued_at,
            exp=grant.expires_at,
            jti=secrets.token_hex(16),
        )
        return sign(claims, Family.EDGE, self._signing())


class Grants:
    """All grants, by id and by sandbox. ``wall`` is Unix time in seconds."""

    def __init__(self, minter: Minter, feed: Feed, wall: Callable[[], float]) -> None:
        self._minter = minter
        self._feed = feed
        self._wall = wall
        self._all: dict[str, Grant] = {}
        self._of_sandbox: dict[str, dict[str, Grant]] = {}

    def issue(self, sandbox_id: str, port: object, ttl: int | None = None) -> Preview:
        """A new grant for a port of a sandbox; ``ttl`` in seconds is moved into the allowed range.

        Raises `ApiError` (unsupported_preview_port, quota_exceeded).
        """
        number = self._minter.port(port)
        self._make_room(sandbox_id)
        now = self._wall()
        seconds = DEFAULT_TTL if ttl is None else min(max(ttl, SHORTEST_TTL), LONGEST_TTL)
        grant = Grant(
            id=f"pvg_{secrets.token_hex(16)}",
            sandbox_id=sandbox_id,
            port=number,
            issued_at=now,
            expires_at=now + seconds,
            updated_at=now,
        )
        self._all[grant.id] = grant
        self._of_sandbox.setdefault(sandbox_id, {})[grant.id] = grant
        self._feed.publish(grant.record(now))
        return self._minter.preview(grant)

    def of(self, sandbox_id: str, port: int | None = None) -> list[Grant]:
        """The grants of a sandbox (and port), oldest first."""
        grants = self._of_sandbox.get(sandbox_id, {}).values()
        return [grant for grant in grants if port is None or grant.port == port]

    def revoke(self, sandbox_id: str, grant_id: str) -> Grant:
        """End a grant for good, both of its tokens. Raises `ApiError` (preview_grant_not_found)."""
        grant = self._of_sandbox.get(sandbox_id, {}).get(grant_id)
        if grant is None:
            raise ApiError(PREVIEW_GRANT_NOT_FOUND)
        if grant.revoked_at is None:
            now = self._wall()
            grant.revoked_at = grant.updated_at = now
            grant.version += 1
            self._feed.publish(grant.record(now))
        return grant

    def record(self, grant_id: str) -> GrantRecord | None:
        """What edges see; None for a grant there is not (any more)."""
        grant = self._all.get(grant_id)
        return grant.record(self._wall()) if grant is not None else None

    def count(self, usage: Usage) -> None:
        """Add what an edge reports; a grant that is gone is passed over."""
        grant = self._all.get(usage.grant_id)
        if grant is None or grant.sandbox_id != usage.sandbox_id:
            return
        now = self._wall()
        if usage.requests or usage.websockets:
            grant.first_used_at = grant.first_used_at or now
            grant.last_used_at = now
        grant.requests += usage.requests
        grant.websockets += usage.websockets
        grant.bytes_in += usage.bytes_in
        grant.bytes_out += usage.bytes_out
        if usage.last_error_code is not None:
            grant.last_error_code = usage.last_error_code[:100]
            told = usage.last_error_at
            # The edge's clock, unless it says what cannot be.
            grant.last_error_at = told if told is not None and 0 <= told <= now else now
        grant.updated_at = now

    def forget(self, sandbox_id: str) -> None:
        """Drop the grants of a sandbox that nobody remembers any more."""
        for grant_id in self._of_sandbox.pop(sandbox_id, {}):
            del self._all[grant_id]

    def _make_room(self, sandbox_id: str) -> None:
        grants, now = self.of(sandbox_id), self._wall()
        ended = [grant for grant in grants if grant.status(now) is not GrantStatus.ACTIVE]
        for grant in ended[: max(0, len(ended) - ENDED_LIMIT + 1)]:
            del self._all[grant.id], self._of_sandbox[sandbox_id][grant.id]
        if len(grants) - len(ended) >= ACTIVE_LIMIT:
            raise ApiError(
                QUOTA_EXCEEDED, f"A sandbox has at most {ACTIVE_LIMIT} active preview grants."
            )
