"""The Python of one request, without kernel and event loop: for whoever makes the edge faster.

``python -m bench.hotpath [--profile]`` feeds an edge of production's parts with request and answer over
transports that only count, and prints the processor time of one request. It is steadier than any load
test (other processes hardly move it), and shows what a change in ``edge/`` is worth in seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from statistics import median
from typing import cast

import uvloop

from bench.peers import PAGE
from bench.scenarios import browser_fields, request
from bench.world import FAST, RUNNING, World, host_of
from edge.core.records import GrantRecord, SandboxRecord, State
from edge.core.settings import Settings
from edge.ops.server import build_edge
from edge.state.port import Heartbeat, StatePort, UsageBatch, WatchEvent
from edge.traffic.listener import ClientConnection

BATCH = 2000
"""Requests between two turns of the event loop, so that heartbeats are heard."""
ANSWER = (
    "HTTP/1.1 200 OK\r\nServer: nginx/1.31.3\r\nDate: Tue, 24 Nov 2026 16:19:15 GMT\r\n"
    f"Content-Type: text/html\r\nContent-Length: {len(PAGE)}\r\nConnection: keep-alive\r\n"
    f"Cache-Control: no-cache\r\nX-Powered-By: an app\r\n\r\n{PAGE}"
).encode()


class QuietPort:
    """A state port that knows the bench's world and has nothing to tell but heartbeats."""

    def __init__(self, world: World) -> None:
        self._sandboxes = {one.id: one for one in world.sandboxes}
        self._grants = {one.id: one for one in world.grants}

    async def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        return self._sandboxes.get(sandbox_id)

    async def grant(self, grant_id: str) -> GrantRecord | None:
        return self._grants.get(grant_id)

    async def watch(self, cursor: int | None) -> AsyncIterator[WatchEvent]:
        while True:
            yield Heartbeat(0)
            await asyncio.sleep(0.2)

    async def report(self, batch: UsageBatch) -> None:
        return None

    async def close(self) -> None:
        return None


class CountingTransport:
    """Takes everything and keeps the number of bytes. ``lost`` is called when it is closed."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self.written = 0
        self._lost = lost

    def write(self, data: bytes) -> None:
        self.written += len(data)

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None:
        return None

    def get_extra_info(self, name: str) -> tuple[str, int]:
        return "127.0.0.1", 50000

    def close(self) -> None:
        asyncio.get_running_loop().call_soon(self._lost)

    abort = close


async def measure(
    batches: int, varied: int, run: Callable[[Callable[[], None]], None]
) -> list[float]:
    """Processor seconds of a request in each batch. ``run`` calls what it is given.

    ``varied`` heads and answers take turns, none like the one before.
    """
    loop = asyncio.get_running_loop()
    silent = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    world = World(silent.sockets[0].getsockname()[1], 0)
    world.add_sandbox(RUNNING, State.RUNNING)
    head = request(
        "GET", "/page", browser_fields(host_of(RUNNING, FAST), world.cookie(RUNNING, FAST))
    )
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings.model_validate(
            tomllib.loads(world.edge_settings(1, Path(directory) / "access.log"))
            | {"tokens": {"hs256": [{"kid": "unused", "secret": "x" * 32}]}}
        )
        edge = build_edge(settings, state_port=cast(StatePort, QuietPort(world)))
        await edge.start()
        try:
            client = edge.connections.protocol()
            transport = CountingTransport(lambda: client.connection_lost(None))
            client.connection_made(cast(asyncio.Transport, transport))
            return await _batches(client, transport, head.encode(), batches, varied, run)
        finally:
            silent.close()
            await edge.stop()


async def _batches(
    client: ClientConnection,
    transport: CountingTransport,
    head: bytes,
    batches: int,
    varied: int,
    run: Callable[[Callable[[], None]], None],
) -> list[float]:
    client.data_received(head)
    exchange = client.exchange
    assert exchange is not None
    async with asyncio.timeout(5):
        while exchange.upstream is None:  # noqa: ASYNC110  (look-ups and a dial tell nobody else)
            await asyncio.sleep(0.01)
    upstream = exchange.upstream
    real = upstream.transport
    upstream.transport = cast(asyncio.Transport, CountingTransport(real.abort))
    upstream.data_received(ANSWER)

    turns = [
        (
            head.replace(b"/dashboard", b"/dashboard-%d" % n),
            ANSWER.replace(b"an app", b"an app's %d" % n),
        )
        for n in range(varied)
    ]

    def batch() -> None:
        for _ in range(BATCH // varied):
            for request_head, answer in turns:
                client.data_received(request_head)
                upstream.data_received(answer)

    times = []
    for _ in range(batches):
        before, written = time.process_time(), transport.written
        run(batch)
        times.append((time.process_time() - before) / BATCH)
        if transport.written - written < BATCH * len(PAGE):
            raise RuntimeError("answers are missing; is the request still authorised?")
        await asyncio.sleep(0)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.hotpath", description=__doc__)
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument("--batches", type=int, default=20, help=f"of {BATCH} requests each")
    parser.add_argument("--varied", type=int, default=1, help="different heads that take turns")
    asked = parser.parse_args()
    if asked.profile:
        profile = cProfile.Profile()
        uvloop.run(measure(asked.batches, asked.varied, profile.runcall))
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)
        return
    times = uvloop.run(measure(asked.batches, asked.varied, lambda batch: batch()))
    print(f"{min(times) * 1e6:.1f} us at best, {median(times) * 1e6:.1f} us in the middle")


if __name__ == "__main__":
    main()
