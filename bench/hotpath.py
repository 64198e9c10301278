"""The Python of one request, without kernel and event loop: for whoever makes the edge faster.

``python -m bench.hotpath`` feeds an edge of production's parts with the requests of the scenarios ``get``
and ``mixed`` and with answers to them, over transports that only count, and prints the processor time of one
request of each. It is steadier than any load test (other processes hardly move it), and shows what a
change in ``edge/`` is worth in seconds. ``--profile`` shows where the time goes.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import pstats
import tempfile
import time
import tomllib
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count, cycle
from pathlib import Path
from statistics import median
from typing import cast

import uvloop

from bench.peers import PAGE
from bench.scenarios import CONNECTIONS, scenarios
from bench.world import RUNNING, World
from edge.core.records import GrantRecord, SandboxRecord, State
from edge.core.settings import Settings
from edge.ops.server import build_edge
from edge.state.port import Heartbeat, StatePort, UsageBatch, WatchEvent
from edge.traffic.exchange import Exchange
from edge.traffic.listener import ClientConnection

TURNS = 64
"""How often every connection has its turn in a batch. Between batches the event loop hears heartbeats."""
KINDS = ("get", "mixed")
_HEAD = (
    "HTTP/1.1 200 OK\r\nServer: nginx/1.31.3\r\nDate: Tue, 24 Nov 2026 16:19:15 GMT\r\n"
    f"Content-Type: text/html\r\nContent-Length: {len(PAGE)}\r\nConnection: keep-alive\r\n"
    "Cache-Control: no-cache\r\nX-Powered-By: an app\r\n"
)


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
    kind: str, batches: int, run: Callable[[Callable[[], None]], None]
) -> list[float]:
    """Processor seconds of a request in each batch. ``run`` calls what it is given."""
    loop = asyncio.get_running_loop()
    silent = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)
    world = World(silent.sockets[0].getsockname()[1], 0)
    world.add_sandbox(RUNNING, State.RUNNING)
    (job,) = (one.job for one in scenarios(world) if one.name == kind)
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings.model_validate(
            tomllib.loads(world.edge_settings(1, Path(directory) / "access.log"))
            | {"tokens": {"hs256": [{"kid": "unused", "secret": "x" * 32}]}}
            # On a busy machine the loop has its turns too rarely to hear every heartbeat in time.
            | {"catalog": {"fresh": 60.0, "stale_after": 60.0}}
        )
        edge = build_edge(settings, state_port=cast(StatePort, QuietPort(world)))
        await edge.start()
        try:
            clients = [_connected(edge.connections.protocol()) for _ in range(CONNECTIONS)]
            requests = cycle([one.encode() for one in job.requests])
            return await _batches(clients, requests, answers(kind), batches, run)
        finally:
            silent.close()
            await edge.stop()


def _connected(client: ClientConnection) -> ClientConnection:
    transport = CountingTransport(lambda: client.connection_lost(None))
    client.connection_made(cast(asyncio.Transport, transport))
    return client


def answers(kind: str) -> Iterator[bytes]:
    """What the bench's nginx answers: always the same, or always with another trace id."""
    for number in count():
        trace = f"X-Trace: {number * 0x9E3779B97F4A7C15 % 2**128:032x}\r\n"
        yield f"{_HEAD}{trace if kind == 'mixed' else ''}\r\n{PAGE}".encode()


async def _batches(
    clients: list[ClientConnection],
    requests: Iterator[bytes],
    answers: Iterator[bytes],
    batches: int,
    run: Callable[[Callable[[], None]], None],
) -> list[float]:
    for client in clients:
        client.data_received(next(requests))
    async with asyncio.timeout(5):
        for exchange in _under_way(clients):
            while exchange.upstream is None:  # noqa: ASYNC110  (look-ups and a dial tell nobody else)
                await asyncio.sleep(0.01)
    for exchange in _under_way(clients):
        upstream = exchange.upstream
        assert upstream is not None
        real = upstream.transport
        upstream.transport = cast(asyncio.Transport, CountingTransport(real.abort))
        upstream.data_received(next(answers))

    times = []
    size = TURNS * len(clients)
    for _ in range(batches):
        asked = [[next(requests) for _ in clients] for _ in range(TURNS)]
        said = [[next(answers) for _ in clients] for _ in range(TURNS)]
        before, written = time.process_time(), _written(clients)
        run(lambda: _turns(clients, asked, said))  # noqa: B023  (called at once)
        times.append((time.process_time() - before) / size)
        if _written(clients) - written < size * len(PAGE):
            raise RuntimeError("answers are missing; is the request still authorised?")
        await asyncio.sleep(0)
    return times


def _turns(
    clients: list[ClientConnection], asked: list[list[bytes]], said: list[list[bytes]]
) -> None:
    for requests, answers in zip(asked, said, strict=True):
        for client, request in zip(clients, requests, strict=True):
            client.data_received(request)
        for exchange, answer in zip(_under_way(clients), answers, strict=True):
            assert exchange.upstream is not None
            exchange.upstream.data_received(answer)


def _under_way(clients: list[ClientConnection]) -> Iterator[Exchange]:
    for client in clients:
        assert client.exchange is not None
        yield client.exchange


def _written(clients: list[ClientConnection]) -> int:
    return sum(cast(CountingTransport, client.transport).written for client in clients)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.hotpath", description=__doc__)
    parser.add_argument("--only", nargs="+", default=KINDS, choices=KINDS, help="both otherwise")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    parser.add_argument(
        "--batches", type=int, default=20, help=f"of {TURNS * CONNECTIONS} requests"
    )
    asked = parser.parse_args()
    for kind in asked.only:
        if asked.profile:
            profile = cProfile.Profile()
            uvloop.run(measure(kind, asked.batches, profile.runcall))
            pstats.Stats(profile).sort_stats("tottime").print_stats(45)
            continue
        times = uvloop.run(measure(kind, asked.batches, lambda batch: batch()))
        least, middle = min(times) * 1e6, median(times) * 1e6
        print(f"{kind}: {least:.1f} us at best, {middle:.1f} us in the middle")


if __name__ == "__main__":
    main()
