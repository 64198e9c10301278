"""The one builder: wires an edge from its settings, for production and for tests alike.

``build_edge`` makes the parts and connects them; nothing listens, dials or writes before
`Edge.start`, so building is also how ``check-config`` finds settings that do not fit together.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

from edge.core.reports import Observer
from edge.core.settings import Settings
from edge.core.token_cache import TokenCache
from edge.ops.configuration import ConfigurationError
from edge.ops.edge import Edge
from edge.ops.logs import Logs
from edge.ops.metrics import Metrics
from edge.ops.readings import register_readings
from edge.ops.telemetry import Telemetry
from edge.state.http import HttpStatePort
from edge.state.keys import KeyStore
from edge.state.port import StatePort
from edge.state.redis import RedisStatePort
from edge.traffic.flow import Flow
from edge.wake.admission import Admission
from edge.wake.barrier import Barrier
from edge.wake.catalog import Catalog
from edge.wake.scope import Scope
from edge.wake.spool import Spool
from edge.wake.usage import UsageReporter
from edge.wake.wakes import Wakes

Clock = Callable[[], float]


def build_edge(
    settings: Settings,
    *,
    state_port: StatePort | None = None,
    admin_socket: Path | None = None,
    clock: Clock = time.monotonic,
    wall: Clock = time.time,
) -> Edge:
    """Wire an edge. Raises `ConfigurationError` for settings whose parts do not fit together.

    ``state_port`` and the clocks are for tests; production has the adapter that the settings name, and
    the real ones. ``admin_socket``: see `Edge`.
    """
    try:
        edge = _wired(settings, state_port, admin_socket, clock, wall)
    except ValueError as e:
        raise ConfigurationError(str(e)) from None
    register_readings(edge)
    return edge


def _wired(
    settings: Settings,
    state_port: StatePort | None,
    admin_socket: Path | None,
    clock: Clock,
    wall: Clock,
) -> Edge:
    edge_id = settings.control_plane.edge_id or f"{socket.gethostname()}-{os.getpid()}"
    metrics, logs = Metrics(), Logs(settings.log, wall=wall)
    telemetry = Telemetry(metrics, logs.events, logs.access)
    work = Scope(telemetry.crashed)
    port = state_port or _state_port(settings, edge_id, clock, telemetry)
    tokens = TokenCache(settings.tokens.cache_entries)
    keys = KeyStore(settings.tokens, settings.cookie, lambda _: tokens.forget(), telemetry)
    catalog = Catalog(port, settings.catalog, clock=clock, observer=telemetry)
    admission = _admission(settings, clock)
    wakes = Wakes(
        port, catalog, settings.wake,
        spend_wake=admission.spend_wake, scope=work, clock=clock, observer=telemetry,
    )  # fmt: skip
    Barrier(port, catalog, admission, scope=work, observer=telemetry)  # the catalog tells it
    usage = _usage(settings, port, edge_id, clock, wall, telemetry)
    flow = Flow(
        settings,
        keys=lambda: keys.keys, hint=keys.hint, tokens=tokens,
        catalog=catalog, wakes=wakes, admission=admission, usage=usage,
        observer=telemetry, scope=work, wall=wall, clock=clock,
    )  # fmt: skip
    return Edge(
        settings,
        metrics=metrics, logs=logs, telemetry=telemetry, work=work, state_port=port, keys=keys,
        catalog=catalog, admission=admission, wakes=wakes, usage=usage, flow=flow,
        admin_socket=admin_socket,
    )  # fmt: skip


def _state_port(settings: Settings, edge_id: str, clock: Clock, observer: Observer) -> StatePort:
    control = HttpStatePort(settings.control_plane, edge_id)
    if settings.redis.url is None:
        return control
    return RedisStatePort(settings.redis, control, edge_id, clock=clock, note=observer.event)


def _admission(settings: Settings, clock: Clock) -> Admission:
    failures = settings.tokens.failures_per_minute
    return Admission(settings.admission, settings.wake, clock=clock, failures_per_minute=failures)


def _usage(
    settings: Settings,
    port: StatePort,
    edge_id: str,
    clock: Clock,
    wall: Clock,
    telemetry: Telemetry,
) -> UsageReporter:
    folder = settings.control_plane.usage_dir
    return UsageReporter(
        port,
        edge_id=edge_id,
        clock=clock,
        wall=wall,
        spool=Spool(folder) if folder is not None else None,
        tell=telemetry.event,
    )
