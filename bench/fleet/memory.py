"""What one edge process holds in memory: per sandbox it knows, per request that waits, per idle tunnel.

Each is measured with a fresh ``preview-edge serve``, over the same Redis, between a few of the kind and many.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from bench.fleet.clients import Clients, Held
from bench.fleet.world import FleetWorld, Sizes
from bench.machine import rss_of_tree
from bench.processes import BenchError, Crew, Started, python

FEW = 20
"""So many of a kind come first, so that what is loaded and made once does not count."""
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of resident memory that ``count`` of ``what`` took together."""

    what: str
    count: int
    growth: int

    @property
    def each(self) -> float:
        return self.growth / self.count


class Edge:
    """An edge process of its own."""

    def __init__(self, crew: Crew, settings: Path, name: str) -> None:
        command = python("edge", "serve", "--config", str(settings))
        self._started: Started = crew.start(name, command, None)
        said = self._started.said()
        self.port, self.admin_port = int(said["port"]), int(said["admin_port"])

    @property
    def rss(self) -> int:
        return rss_of_tree(self._started.pid)

    async def ready(self, clients: Clients) -> None:
        """Wait until it follows the changes in Redis."""
        await _until(lambda: self._is_ready(clients), "does not become ready")

    async def counts(self, clients: Clients, gauge: str, number: int) -> None:
        """Wait until a gauge has reached a number."""

        async def reached() -> bool:
            page = await clients.text(f"http://127.0.0.1:{self.admin_port}/metrics")
            found = re.search(rf"^{gauge} ([0-9.e+]+)$", page, re.MULTILINE)
            return found is not None and float(found[1]) >= number

        await _until(reached, f"does not count {number} of {gauge}")

    async def _is_ready(self, clients: Clients) -> bool:
        return bool((await clients.json(f"http://127.0.0.1:{self.admin_port}/readyz"))["ready"])

    def stop(self) -> None:
        self._started.stop()


async def _until(come: Callable[[], Awaitable[bool]], trouble: str) -> None:
    end = time.monotonic() + PATIENCE
    while not await come():
        if time.monotonic() > end:
            raise BenchError(f"an edge {trouble}")
        await asyncio.sleep(0.05)


async def measure(
    crew: Crew, settings: Path, there: FleetWorld, sizes: Sizes, clients: Clients
) -> list[Footprint]:
    """All three. Raises `BenchError`."""

    async def know(edge: Edge, _: Held, count: int) -> None:
        part = there.refused[-count:] if count == FEW else there.refused[:count]
        await clients.in_turn(((edge.port, one) for one in part), 16, 503)

    async def wait(edge: Edge, held: Held, count: int) -> None:
        await held.waiters(edge.port, there.hanging, count)
        await edge.counts(clients, "preview_edge_waiting", count)

    async def tunnel(edge: Edge, held: Held, count: int) -> None:
        await held.tunnels(edge.port, there.socket, count)
        await edge.counts(clients, "preview_edge_tunnels", count)

    kinds = [
        ("sandbox known with a grant and a cookie", know, sizes.known - FEW),
        ("waiting request", wait, sizes.waiters),
        ("idle tunnel", tunnel, sizes.tunnels),
    ]
    found = []
    for what, work, count in kinds:
        edge, held = Edge(crew, settings, f"edge-{what.split()[0]}"), Held()
        try:
            await edge.ready(clients)
            await work(edge, held, FEW)
            before = edge.rss
            await work(edge, held, count)
            found.append(Footprint(what, count, edge.rss - before))
        finally:
            held.close()
            edge.stop()
    return found
