"""What the dialogues here have in common: a clock, scripted first answers, counters, and canaries."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.flows.rawclient import RawClient
from tests.flows.scriptedapp import AppConnection, Handler, ScriptedApp, echo_one, fields_of
from tests.flows.stage import Preview, Stage, until

MEGABYTE = 1 << 20
PLENTY = 32 * MEGABYTE
"""Bytes that the buffers of both kernels and ours hold together many times less of."""
HELD = 24 * MEGABYTE
"""More than those buffers hold on any kernel's settings that we met."""
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@contextmanager
def a_mute_port() -> Iterator[int]:
    """A port that neither accepts nor refuses: its queue is full."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        for _ in range(4):
            filler = sockets.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


class Clock:
    """The edge's monotonic clock: it runs, and tests can move it forward."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self._ahead

    def advance(self, seconds: float) -> None:
        """Let time pass at once."""
        self._ahead += seconds

    async def run(self, holds: Callable[[], bool], step: float) -> None:
        """Let time pass in steps until something happens."""

        def stepped() -> bool:
            if holds():
                return True
            self._ahead += step
            return False

        await until(stepped)


async def later(stage: Stage, clock: Clock, seconds: float) -> None:
    """Let time pass; heartbeats did not stop meanwhile, so the edge knows as much as before."""
    clock.advance(seconds)
    await until(lambda: not stage.edge.unready())


Script = Callable[[AppConnection, bytes], Awaitable[object]]
"""Plays one request of an app, from its head on, which has been read already. `OVER` ends the connection."""
OVER = "over"


def first(*scripts: Script) -> Handler:
    """Each script plays one request, over all the app's connections; all later ones are echoed."""
    left = list(scripts)

    async def handler(connection: AppConnection) -> None:
        while head := await connection.read_head():
            if await (left.pop(0) if left else echo_one)(connection, head) is OVER:
                return

    return handler


async def count(connection: AppConnection, head: bytes) -> None:
    """Answer with the length of the body, which is checked and not kept."""
    length, pattern = 0, bytes(range(256)) * 256
    total = int(fields_of(head)[b"content-length"])
    while length < total:
        piece = await connection.read_exactly(min(len(pattern), total - length))
        assert piece == pattern[: len(piece)]
        length += len(piece)
    await connection.answer(b"%d" % length)


def say(answer: bytes, then: Callable[[AppConnection], None] | None = None) -> Script:
    """Read the whole request, answer with these bytes, then perhaps end the connection in some way."""

    async def script(connection: AppConnection, head: bytes) -> object:
        await connection.read_body(head)
        await connection.send(answer)
        if then is None:
            return None
        then(connection)
        return OVER

    return script


def held(event: asyncio.Event, script: Script = echo_one) -> Script:
    """The same, but not before the event."""

    async def play(connection: AppConnection, head: bytes) -> None:
        await event.wait()
        await script(connection, head)

    return play


nothing = say(b"", AppConnection.close)


async def play(stage: Stage, *scripts: Script) -> tuple[Preview, RawClient]:
    """A preview of an app that plays these scripts, and a client of it."""
    box = stage.sandbox(await stage.app(first(*scripts)))
    return box, await stage.client()


def old(request: bytes, fields: bytes = b"") -> bytes:
    """The same request of a client that speaks HTTP/1.0."""
    return request.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n" + fields, 1)


async def canary(client: RawClient, box: Preview, app: ScriptedApp | None = None) -> None:
    """The next exchange on this connection is whole, byte by byte; with ``app``: over its one connection."""
    before = app.connections if app is not None else 0
    answer = await client.ask(box.get("/canary?a=%20b"))
    assert (answer.status, answer.body) == (200, b"GET /canary?a=%20b HTTP/1.1\n")
    if app is not None:
        assert app.connections == before, "the upstream connection did not survive"


async def settled(stage: Stage, box: Preview, read: Callable[[], int]) -> int:
    """A number that has stopped to grow: many whole exchanges with ``box`` fit in without a change."""
    while True:
        before = read()
        for _ in range(20):
            await canary_of_its_own(stage, box)
        if read() == before:
            return before


async def canary_of_its_own(stage: Stage, box: Preview) -> None:
    """A canary on a connection of its own."""
    async with await stage.client() as client:
        await canary(client, box)


def ended(stage: Stage) -> Counter[tuple[str, str, str]]:
    """How exchanges ended so far: (class of status, code of the edge's error, end)."""
    return Counter(
        {
            (sample.labels["status"], sample.labels["code"], sample.labels["end"]): int(
                sample.value
            )
            for family in stage.edge.metrics.collect()
            if family.name == "preview_edge_requests"
            for sample in family.samples
            if sample.name.endswith("_total")
        }
    )


async def ended_so(stage: Stage, status: str, code: str, end: str, times: int = 1) -> None:
    """Wait until so many exchanges have ended like this."""
    await until(lambda: ended(stage)[status, code, end] >= times)


async def visibly_cut(client: RawClient, version: str) -> None:
    """What comes is not taken for all: an HTTP/1.0 client sees a reset, any other one a missing last chunk."""
    if version == "1.0":
        with pytest.raises(ConnectionResetError):
            await client.rest()
    else:
        assert await client.rest() == b"\r\n"


def idle(stage: Stage) -> bool:
    """Whether nothing is under way, waiting or tunneled at the edge."""
    counts = stage.edge.admission.counts()
    return not (counts["exchanges"] or counts["waiting"] or counts["tunnels"])


def dials(stage: Stage) -> dict[str, int]:
    """Attempts to connect to apps so far, by outcome."""
    return {
        sample.labels["outcome"]: int(sample.value)
        for family in stage.edge.metrics.collect()
        if family.name == "preview_edge_upstream_connects"
        for sample in family.samples
        if sample.name.endswith("_total") and sample.value
    }
