"""Draining: no new work, and every exchange under way gets the best end there is still time for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from edge.core.reports import End
from edge.core.settings import DrainSettings
from edge.traffic.connections import Connections
from edge.traffic.exchange import Exchange, Phase
from edge.traffic.flow import Flow

_STEP = 0.1
"""Seconds between looks at what is left."""


async def drain(connections: Connections, flow: Flow, settings: DrainSettings) -> None:
    """End everything within ``settings``; returns once no client connection is left, or time is up.

    1. Idle connections are closed, answers say ``Connection: close`` from now on.
    2. Exchanges waiting for a wake are answered ``edge_draining`` after ``waiters`` seconds.
    3. Tunnels are closed, spread evenly over ``tunnels`` seconds, so that clients do not return at once:
       with a close frame to both peers, where their streams stand between two frames.
    4. Exchanges still under way after ``timeout`` seconds are cut.
    """
    loop = asyncio.get_running_loop()
    flow.draining = True
    began = loop.time()
    tunnels = [exchange for exchange in flow.active() if exchange.phase is Phase.TUNNEL]
    while connections:
        elapsed = loop.time() - began
        for connection in connections:
            connection.close_if_idle()
        _close_due(tunnels, elapsed, settings.tunnels)
        if elapsed >= settings.waiters:
            for exchange in flow.waiting():
                exchange.cut(End.DRAINED)
        if elapsed >= settings.timeout:
            _cut_everything(connections)
            return
        await asyncio.sleep(_STEP)


def _close_due(tunnels: Sequence[Exchange], elapsed: float, spread: float) -> None:
    due = len(tunnels) if elapsed >= spread else int(len(tunnels) * elapsed / spread)
    for exchange in tunnels[:due]:
        if exchange.phase is Phase.TUNNEL:
            exchange.cut(End.DRAINED)


def _cut_everything(connections: Connections) -> None:
    for connection in connections:
        if connection.exchange is not None:
            connection.exchange.cut(End.DRAINED)
        connection.abort()
