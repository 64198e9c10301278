"""One edge process: its life from `Edge.start` to `Edge.stop`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from edge.core.settings import Settings
from edge.ops.admin import Admin
from edge.ops.background import Background
from edge.ops.logs import Logs
from edge.ops.memory import Pressure, bound, shed
from edge.ops.metrics import Metrics
from edge.ops.process import StartError, cannot_listen
from edge.ops.telemetry import Telemetry
from edge.state.keys import KeyStore, KeysUnusable
from edge.state.port import StatePort, Unavailable
from edge.traffic.connections import Connections
from edge.traffic.drain import drain
from edge.traffic.flow import Flow
from edge.wake.admission import Admission
from edge.wake.catalog import Catalog
from edge.wake.scope import Scope
from edge.wake.trust import Trust
from edge.wake.usage import UsageReporter
from edge.wake.wakes import Wakes

TICK = 1.0
"""Seconds between the flow's looks at long exchanges."""

LAST_REPORT = 2.0
"""Seconds the last usage report may take at shutdown."""


@dataclass(eq=False, repr=False)
class Edge:
    """The parts of an edge, which `edge.ops.server` puts together, begun and ended in the right order.

    ``admin_socket`` puts the admin listener on a Unix socket (a worker's, read by its supervisor). The
    ports are those that are listened on, 0 before that.
    """

    settings: Settings
    metrics: Metrics
    logs: Logs
    telemetry: Telemetry
    work: Scope
    state_port: StatePort
    keys: KeyStore
    catalog: Catalog
    admission: Admission
    wakes: Wakes
    usage: UsageReporter
    flow: Flow
    admin_socket: Path | None = None
    port: int = field(default=0, init=False)
    admin_port: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.connections = Connections(self.flow)
        self._server: asyncio.Server | None = None
        self._draining = False
        self._background = Background(self.telemetry.crashed)
        self._registry = CollectorRegistry()
        self._registry.register(self.metrics)
        ProcessCollector(registry=self._registry)
        self._admin = Admin(unready=self._unready, metrics=self._exposition)

    # --- Life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to serve; returns when client connections are accepted. Raises `StartError`."""
        try:
            self.logs.open()
            await self._listen_for_admins()
            await self._load_keys()
            self._background.keep("catalog", self.catalog.run)
            self._background.keep("keys", self.keys.run)
            self._background.keep("usage", self.usage.run)
            self._background.keep("tick", self._tick)
            self._background.keep("memory", self._watch_memory)
            await self._listen_for_clients()
        except BaseException:
            await self._let_go()
            raise
        self.telemetry.event("started", port=self.port, admin_port=self.admin_port)

    async def stop(self) -> None:
        """Drain and end, in this order:

        1. Not ready: load balancers are told to send nothing more.
        2. Wait ``drain.wait`` seconds, so that they notice.
        3. Stop accepting connections.
        4. ``edge.traffic.drain``: idle connections are closed, answers say ``Connection: close``,
           waiters are answered ``edge_draining`` at their deadline, tunnels get a close frame spread
           over a window, and what is left when the time is up is cut.
        5. Report the last usage, let go of the control plane.
        6. The admin listener goes last, so that the drain can be watched.
        """
        self._draining = True
        self.telemetry.event("draining", connections=len(self.connections))
        await asyncio.sleep(self.settings.drain.wait)
        if self._server is not None:
            self._server.close()
        await drain(self.connections, self.flow, self.settings.drain)
        await self._let_go()

    def unready(self) -> list[str]:
        """The reasons why this edge should get no traffic; none = ready."""
        reasons = []
        if self._draining:
            reasons.append("draining")
        elif self._server is None:
            reasons.append("starting")
        if not self.keys.ready:
            reasons.append("keys not loaded")
        if self.catalog.heartbeat_age() == inf:
            reasons.append("no word from the control plane yet")
        elif self.catalog.trust() not in (Trust.FRESH, Trust.SUSPECT):
            reasons.append(f"catalog {self.catalog.trust().value}: the control plane is silent")
        return reasons

    # --- Starting -----------------------------------------------------------------------------------

    async def _listen_for_admins(self) -> None:
        if self.admin_socket is not None:
            await self._admin.listen_privately(self.admin_socket)
        else:
            listen = self.settings.listen
            self.admin_port = await self._admin.listen(listen.admin_host, listen.admin_port)

    async def _load_keys(self) -> None:
        try:
            await self.keys.load()
        except KeysUnusable as e:
            raise StartError(f"{e}; put the control plane's public keys there") from None

    async def _listen_for_clients(self) -> None:
        listen = self.settings.listen
        self.connections.start_sweep()
        try:
            self._server = await asyncio.get_running_loop().create_server(
                self.connections.protocol,
                listen.host,
                listen.port,
                backlog=listen.backlog,
                reuse_port=listen.workers > 1 or None,
            )
        except OSError as e:
            raise cannot_listen("listen.port", listen.host, listen.port, e) from None
        for listening in self._server.sockets:
            self.flow.liveness.expect_delivery(listening)  # and so of what they accept
        self.port = self._server.sockets[0].getsockname()[1]

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.flow.tick()

    async def _watch_memory(self) -> None:
        limit = bound(self.settings.admission.memory_bytes, self.settings.listen.workers)
        await shed(self.admission, Pressure(limit), self.telemetry.event)

    # --- Stopping -----------------------------------------------------------------------------------

    async def _let_go(self) -> None:
        """Everything after the last client connection; harmless for what was never begun."""
        self.connections.stop_sweep()
        await self._background.close()
        await self.work.close()
        self.flow.close()
        try:
            async with asyncio.timeout(LAST_REPORT):
                await self.usage.flush()
        except (Unavailable, TimeoutError):
            kept = await self.usage.keep()
            self.telemetry.event(
                "usage_kept" if kept else "usage_given_up", pairs=self.usage.waiting()
            )
        self.usage.close()
        await self.catalog.close()
        await self.state_port.close()
        await self._admin.close()
        self.telemetry.event("stopped")
        self.telemetry.close()
        self.logs.close()

    # --- For the admin listener ---------------------------------------------------------------------

    async def _unready(self) -> list[str]:
        return self.unready()

    async def _exposition(self) -> bytes:
        return generate_latest(self._registry)
