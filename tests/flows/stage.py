"""The stage for whole flows: a scripted control plane, scripted apps, and the real edge between them.

::

    async with Stage(tmp_path) as stage:
        app = await stage.app()                         # a `ScriptedApp`, by default an echo
        box = stage.sandbox(app, State.PAUSED)          # its record, a grant, and tokens for it
        async with await stage.client() as client:
            answer = await client.ask(box.get("/hello"))
        assert answer.status == 200 and stage.plane.incarnations[box.id] == 1

Everything speaks over real sockets on loopback, and the edge is the one production builds.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from edge.core.credentials import Family
from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State, Transport, Upstream
from edge.core.settings import Settings
from edge.ops.edge import Edge
from edge.ops.server import build_edge
from tests.flows.controlplane import TOKEN, ControlPlane
from tests.flows.mint import LIFETIME, Mint
from tests.flows.rawclient import Answer, RawClient
from tests.flows.scriptedapp import Handler, ScriptedApp, echo

PORT = 3000
"""The port apps have inside their sandboxes, unless a test says otherwise."""
LONG_AGO = 3600.0
"""Seconds a sandbox that is not fresh from a wake has been running."""
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)
_REFUSED = re.compile(rb'preview_edge_upstream_connects_total\{outcome="refused"\} ([0-9.]+)')
PROXY_HEADER = "x-nullspace-preview-proxy-token"


@dataclass
class Preview:
    """One port of one sandbox under one grant: host, tokens, and requests that carry them."""

    stage: Stage
    id: str
    port: int
    grant: str

    @property
    def host(self) -> str:
        """The preview host."""
        return f"{self.port}-{self.id.replace('_', '-')}.{self.stage.mint.site}"

    def token(self, family: Family = Family.EDGE, **changes: Any) -> str:
        """A token of that family for this preview; ``changes`` are claims, or `Mint.sign`'s arguments."""
        signing = {name: changes.pop(name) for name in ("key", "alg", "headers") if name in changes}
        claims = self.stage.mint.claims(self.id, self.port, self.grant, **changes)
        return self.stage.mint.sign(claims, family, **signing)

    def cookie(self, name: str = "__Host-ns_preview", **changes: Any) -> bytes:
        """The field line that carries a continuation cookie."""
        return f"Cookie: {name}={self.token(Family.CONTINUATION, **changes)}\r\n".encode()

    def proxy(self, **changes: Any) -> bytes:
        """The field line that carries a proxy token."""
        return f"{PROXY_HEADER}: {self.token(Family.PROXY, **changes)}\r\n".encode()

    def get(self, path: str = "/", fields: bytes = b"", **changes: Any) -> bytes:
        """A GET by edge token. ``fields`` are further lines, each with its CR LF."""
        return self.request("GET", path, fields, **changes)

    def request(
        self,
        method: str,
        path: str = "/",
        fields: bytes = b"",
        body: bytes | None = None,
        *,
        token: str | None = None,
        **changes: Any,
    ) -> bytes:
        """A request by edge token (``token=""``: by none), with a body of known length if one is given."""
        token = self.token(**changes) if token is None else token
        query = f"{'&' if '?' in path else '?'}edge_token={token}" if token else ""
        length = b"" if body is None else b"Content-Length: %d\r\n" % len(body)
        line = f"{method} {path}{query} HTTP/1.1\r\nHost: {self.host}\r\n".encode()
        return line + fields + length + b"\r\n" + (body or b"")

    def upgrade(self, path: str = "/", fields: bytes = b"", **changes: Any) -> bytes:
        """A WebSocket upgrade by edge token."""
        changes.setdefault("kind", Transport.WEBSOCKET)
        return self.request("GET", path, UPGRADE + fields, **changes)


class Stage:
    """The control plane, the apps and the edge of one test.

    ``settings`` are groups of the edge's settings, laid over what a test wants anyway (free ports, no
    access log, an end without waiting): ``Stage(tmp_path, wake={"window": 1.0})``. ``jwks`` says
    where the edge gets the keys from, ``file`` or ``url``; ``clock`` is the edge's monotonic one.
    """

    def __init__(
        self,
        tmp_path: Path,
        *,
        jwks: str = "file",
        clock: Callable[[], float] = time.monotonic,
        **settings: Any,
    ) -> None:
        self.plane = ControlPlane()
        self.mint = Mint()
        self.edge: Edge
        self.ahead = 0.0
        """Seconds by which the edge's wall clock is ahead of ours: a test makes tokens grow old with it."""
        self.passed = 0.0
        """The same for its monotonic clock: a test makes silence long with it."""
        self._tmp_path = tmp_path
        self._jwks = jwks
        self._clock = clock
        self._changes = settings
        self._numbers = itertools.count(1)
        self._cleanup = AsyncExitStack()
        self._edges: list[Edge] = []
        self._heard: dict[str, int] = {}
        self._news = asyncio.Event()

    # --- Life ---------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self.plane.jwks = self.mint.jwks
        await self.plane.start()
        self._cleanup.push_async_callback(self.plane.stop)
        try:
            await self.start_edge()
        except BaseException:
            await self._cleanup.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.plane.fault = None
        try:
            for edge in self._edges:
                await edge.stop()
        finally:
            await self._cleanup.aclose()
        assert not self.plane.crashes, self.plane.crashes

    async def start_edge(self) -> Edge:
        """An edge that has caught up with the control plane."""
        edge = self.edge = build_edge(
            self.settings(),
            wall=lambda: time.time() + self.ahead,
            clock=lambda: self._clock() + self.passed,
        )
        edge.catalog.listen(
            self._hear
        )  # the last listener: by now traffic has drawn its conclusions
        await edge.start()
        self._edges.append(edge)
        await until(lambda: not edge.unready())
        return edge

    async def stop_edge(self, edge: Edge | None = None) -> None:
        """Drain and end an edge before the test is over."""
        edge = edge or self.edge
        self._edges.remove(edge)
        await edge.stop()

    def settings(self) -> Settings:
        """What the edge is built from."""
        base = f"http://127.0.0.1:{self.plane.port}"
        tokens: dict[str, Any] = {"jwks_url": f"{base}/.well-known/jwks.json"}
        if self._jwks == "file":
            file = self._tmp_path / "jwks.json"
            file.write_text(json.dumps(self.mint.jwks))
            tokens = {"jwks_file": file}
        said: dict[str, Any] = {
            "public_hostname": self.mint.site,
            "listen": {"port": 0, "admin_port": 0},
            # Patient: a machine that stands still is not a control plane that does.
            "control_plane": {"url": base, "token": TOKEN, "edge_id": "edge-1", "timeout": 60},
            "tokens": tokens,
            "cookie": {"keys": [{"kid": "fleet", "secret": self.mint.fleet}]},
            "log": {"access": "", "level": "error"},
            "drain": {"timeout": 0, "waiters": 0, "tunnels": 0},
        }
        for name, value in self._changes.items():
            said[name] = said.get(name, {}) | value if isinstance(value, dict) else value
        return Settings.model_validate(said)

    # --- Who plays ----------------------------------------------------------------------------------

    async def app(self, handler: Handler = echo, *, listening: bool = True) -> ScriptedApp:
        """An app that lives until the end of the test."""
        return await self._cleanup.enter_async_context(ScriptedApp(handler, listening=listening))

    def sandbox(
        self, app: ScriptedApp, state: State = State.RUNNING, *, port: int = PORT, **fields: Any
    ) -> Preview:
        """A new sandbox with the app on its port, and a preview of it. ``fields`` go into its record."""
        sandbox_id = f"sb_flow{next(self._numbers):08d}"
        upstream = self.plane.upstreams[sandbox_id] = Upstream("127.0.0.1", {port: app.port})
        running = state in (State.RUNNING, State.PAUSING)
        record: dict[str, Any] = {
            "auto_resume": True,
            "running_since": time.time() - LONG_AGO if running else None,
            "upstream": upstream if running else None,
        }
        self.plane.put(SandboxRecord(sandbox_id, state, 1, 1, **record | fields))
        return self.preview(sandbox_id, port)

    def preview(self, sandbox_id: str, port: int = PORT, **fields: Any) -> Preview:
        """A preview of a port under a grant of its own. ``fields`` go into the grant's record."""
        grant = f"pvg_{next(self._numbers):032x}"
        record: dict[str, Any] = {
            "kinds": frozenset(Transport),
            "status": GrantStatus.ACTIVE,
            "expires_at": time.time() + LIFETIME,
        }
        self.plane.put(GrantRecord(grant, sandbox_id, port, version=1, **record | fields))
        return Preview(self, sandbox_id, port, grant)

    async def client(self) -> RawClient:
        """A connection to the edge."""
        return await RawClient.open(self.edge.port)

    async def ask(self, request: bytes) -> Answer:
        """One request on a connection of its own, and its answer."""
        async with await self.client() as client:
            return await client.ask(request)

    # --- What the edge knows ------------------------------------------------------------------------

    async def heard(self, record: SandboxRecord | GrantRecord, seconds: float = 20.0) -> None:
        """Wait until the edge has heard of this record, or a newer one."""
        async with asyncio.timeout(seconds):
            while self._heard.get(record.id, 0) < record.version:
                await self._news.wait()

    async def refused_dials(self, at_least: int = 1) -> int:
        """Wait until apps' ports have refused the edge that often (by its metrics); how often by now."""
        page = b"GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
        async with asyncio.timeout(20):
            while True:
                async with await RawClient.open(self.edge.admin_port) as client:
                    answer = await client.ask(page)
                found = _REFUSED.search(answer.body)
                assert found, "the metric is gone"
                if float(found[1]) >= at_least:
                    return int(float(found[1]))

    def _hear(self, record: SandboxRecord | GrantRecord) -> None:
        self._heard[record.id] = max(record.version, self._heard.get(record.id, 0))
        news, self._news = self._news, asyncio.Event()
        news.set()


MakeStage = Callable[..., Awaitable[Stage]]
"""The fixture ``make_stage``: a stage with settings of the test's own."""


async def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for what has no event of its own: the inside of the edge, the other end of a socket."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.005)
