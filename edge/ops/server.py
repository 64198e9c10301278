"""The one builder: wires an edge from its settings, for production and for tests alike.

``build_edge`` makes the parts and connects them; nothing listens, dials or writes before
`Edge.start`, so building is also how ``check-config`` finds settings that do not fit together.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from math import inf
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from edge.core.credentials import Keys
from edge.core.reports import Observer
from edge.core.settings import Settings
from edge.core.token_cache import TokenCache
from edge.ops.admin import Admin
from edge.ops.background import Background
from edge.ops.configuration import ConfigurationError
from edge.ops.logs import Logs
from edge.ops.memory import Pressure, bound, shed
from edge.ops.metrics import Metrics
from edge.ops.process import StartError, cannot_listen
from edge.ops.readings import register_readings
from edge.ops.telemetry import Telemetry
from edge.state.http import HttpStatePort
from edge.state.keys import KeyStore, KeysUnusable
from edge.state.port import StatePort, Unavailable
from edge.state.redis import RedisStatePort
from edge.traffic.connections import Connections
from edge.traffic.drain import drain
from edge.traffic.flow import Flow
from edge.wake.admission import Admission
from edge.wake.barrier import Barrier
from edge.wake.catalog import Catalog
from edge.wake.scope import Scope
from edge.wake.spool import Spool
from edge.wake.trust import Trust
from edge.wake.usage import UsageReporter
from edge.wake.wakes import Wakes

TICK = 1.0
"""Seconds between the flow's looks at long exchanges."""

LAST_REPORT = 2.0
"""Seconds the last usage report may take at shutdown."""


class Edge:
    """One edge process: its parts, and its life from `start` to `stop`.

    ``state_port`` and the clocks are for tests; production has the HTTP adapter and the real ones.
    ``admin_socket`` puts the admin listener on a Unix socket (a worker's, read by its supervisor).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        state_port: StatePort | None = None,
        admin_socket: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.settings = settings
        self.port = self.admin_port = 0
        self._admin_socket = admin_socket
        self._server: asyncio.Server | None = None
        self._draining = False

        edge_id = settings.control_plane.edge_id or f"{socket.gethostname()}-{os.getpid()}"
        self.metrics = Metrics()
        self.logs = Logs(settings.log, wall=wall)
        self.telemetry = Telemetry(self.metrics, self.logs.events, self.logs.access)
        observer = self.telemetry

        self._work = Scope(observer.crashed)
        self._background = Background(observer.crashed)
        self._state_port = state_port or _state_port(settings, edge_id, clock, observer)
        self._tokens = TokenCache(settings.tokens.cache_entries)
        self.keys = KeyStore(settings.tokens, settings.cookie, self._keys_changed, observer)
        self.catalog = Catalog(self._state_port, settings.catalog, clock=clock, observer=observer)
        self.admission = Admission(
            settings.admission,
            settings.wake,
            clock=clock,
            failures_per_minute=settings.tokens.failures_per_minute,
        )
        self.wakes = Wakes(
            self._state_port,
            self.catalog,
            settings.wake,
            spend_wake=self.admission.spend_wake,
            scope=self._work,
            clock=clock,
            observer=observer,
        )
        self._barrier = Barrier(
            self._state_port, self.catalog, self.admission, scope=self._work, observer=observer
        )
        folder = settings.control_plane.usage_dir
        self.usage = UsageReporter(
            self._state_port,
            edge_id=edge_id,
            clock=clock,
            wall=wall,
            spool=Spool(folder) if folder is not None else None,
            tell=self.telemetry.event,
        )
        self.flow = Flow(
            settings,
            keys=lambda: self.keys.keys,
            hint=self.keys.hint,
            tokens=self._tokens,
            catalog=self.catalog,
            wakes=self.wakes,
            admission=self.admission,
            usage=self.usage,
            observer=observer,
            scope=self._work,
            wall=wall,
            clock=clock,
        )
        self.connections = Connections(self.flow)
        self._registry = CollectorRegistry()
        self._registry.register(self.metrics)
        ProcessCollector(registry=self._registry)
        register_readings(self)
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
        if self._admin_socket is not None:
            await self._admin.listen_privately(self._admin_socket)
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

    def _keys_changed(self, _: Keys) -> None:
        self._tokens.forget()

    # --- Stopping -----------------------------------------------------------------------------------

    async def _let_go(self) -> None:
        """Everything after the last client connection; harmless for what was never begun."""
        self.connections.stop_sweep()
        await self._background.close()
        await self._work.close()
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
        await self._state_port.close()
        await self._admin.close()
        self.telemetry.event("stopped")
        self.telemetry.close()
        self.logs.close()

    # --- For the admin listener ---------------------------------------------------------------------

    async def _unready(self) -> list[str]:
        return self.unready()

    async def _exposition(self) -> bytes:
        return generate_latest(self._registry)


def build_edge(
    settings: Settings,
    *,
    state_port: StatePort | None = None,
    admin_socket: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
) -> Edge:
    """Wire an edge. Raises `ConfigurationError` for settings whose parts do not fit together."""
    try:
        return Edge(
            settings, state_port=state_port, admin_socket=admin_socket, clock=clock, wall=wall
        )
    except ValueError as e:
        raise ConfigurationError(str(e)) from None


def _state_port(
    settings: Settings, edge_id: str, clock: Callable[[], float], observer: Observer
) -> StatePort:
    control = HttpStatePort(settings.control_plane, edge_id)
    if settings.redis.url is None:
        return control
    return RedisStatePort(settings.redis, control, edge_id, clock=clock, note=observer.event)
