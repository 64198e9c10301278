"""The edge under test: production's builder over a control plane of one running sandbox, at a time that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from edge.core.credentials import Claims, Family, Key, sign
from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State, Transport, Upstream
from edge.core.settings import Settings
from edge.ops.edge import Edge
from edge.ops.server import build_edge
from edge.state.port import Heartbeat, RefusalReason, ResumeRefused, UsageBatch, WatchEvent

SITE = "preview.example"
SANDBOX = "sb_conform1"
PORT = 3000
HOST = f"{PORT}-sb-conform1.{SITE}"
NOW = 1_700_000_000.0
LIFETIME = 900

_SECRET = "thirty-two characters and then some"
_ISSUER = Key("issuer", "HS256", _SECRET)
_FLEET = Key("fleet", "HS256", _SECRET[::-1])
_CLAIMS = Claims(
    iss="nullspace",
    aud=SITE,
    sub=SANDBOX,
    port=PORT,
    kind=Transport.HTTP,
    grant="pvg_1",
    principal="tester",
    iat=NOW - 1,
    exp=NOW + LIFETIME,
    jti="1",
)

COOKIE = "ns_preview=" + sign(_CLAIMS, Family.CONTINUATION, _FLEET)
"""The continuation cookie: what lets a plain HTTP request in without further ado."""
EDGE_TOKEN = "edge_token=" + sign(_CLAIMS, Family.EDGE, _ISSUER)
SOCKET_TOKEN = "edge_token=" + sign(
    replace(_CLAIMS, kind=Transport.WEBSOCKET), Family.EDGE, _ISSUER
)
PROXY_TOKEN = sign(_CLAIMS, Family.PROXY, _ISSUER)
SET_COOKIE = f"Set-Cookie: {COOKIE}; Path=/; Max-Age={LIFETIME}; HttpOnly; SameSite=Lax"


class ControlPlane:
    """A state port that knows one sandbox and one grant, and whose news is that there is no news."""

    def __init__(self, app_port: int) -> None:
        upstream = Upstream("127.0.0.1", {PORT: app_port})
        self._sandbox = SandboxRecord(
            SANDBOX, State.RUNNING, 1, 1, running_since=NOW - 1000, upstream=upstream
        )
        self._grant = GrantRecord(
            "pvg_1", SANDBOX, PORT, frozenset(Transport), GrantStatus.ACTIVE, _CLAIMS.exp, 1
        )

    async def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        return self._sandbox if sandbox_id == SANDBOX else None

    async def grant(self, grant_id: str) -> GrantRecord | None:
        return self._grant if grant_id == self._grant.id else None

    async def resume(
        self, sandbox_id: str, paused_incarnation: int, reason: str, timeout: float
    ) -> SandboxRecord:
        raise ResumeRefused(RefusalReason.NOT_FOUND)

    async def watch(self, cursor: int | None) -> AsyncIterator[WatchEvent]:
        while True:
            yield Heartbeat(1)
            await asyncio.sleep(0.3)

    async def report(self, batch: UsageBatch) -> None:
        """Nobody counts here."""

    async def ack(self, sandbox_id: str, version: int, in_flight: int) -> None:
        """Nobody pauses here."""

    async def close(self) -> None:
        """Nothing to let go of."""


def settings() -> Settings:
    """The defaults, but for what a test cannot have: fixed ports, logs, patience at the end."""
    return Settings.model_validate(
        {
            "public_hostname": SITE,
            "public_scheme": "http",
            "listen": {"port": 0, "admin_port": 0},
            "control_plane": {"token": _SECRET, "edge_id": "conformance"},
            "tokens": {"hs256": [{"kid": _ISSUER.kid, "secret": _ISSUER.material}]},
            "cookie": {"keys": [{"kid": _FLEET.kid, "secret": _FLEET.material}]},
            "log": {"access": "", "level": "error"},
            "drain": {"timeout": 0, "tunnels": 0},
        }
    )


@asynccontextmanager
async def serving(app_port: int) -> AsyncIterator[Edge]:
    """A started edge in front of the app at that port."""
    edge = build_edge(settings(), state_port=ControlPlane(app_port), wall=lambda: NOW)
    await edge.start()
    try:
        yield edge
    finally:
        await edge.stop()
