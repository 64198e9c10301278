"""What generated exchanges have found, each as short as it can be said."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from tests.flows.scriptedapp import AppConnection
from tests.flows.stage import Stage, until
from tests.properties.live import SWITCHING

Loop = Callable[[], asyncio.AbstractEventLoop]
LOOPS = pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.SelectorEventLoop])
"""The two of production: they differ in what they tell a protocol that was told of an end before."""


@LOOPS
def test_a_fin_before_the_101_reaches_the_app(tmp_path: Path, loop: Loop) -> None:
    """A client that has finished before its tunnel opens: the app hears the end, on either loop."""
    heard: list[bytes] = []
    finished = asyncio.Event()

    async def app(connection: AppConnection) -> None:
        await connection.read_head()
        await finished.wait()
        await connection.send(SWITCHING + b"down")
        heard.append(await connection.read_to_end())

    async def play() -> None:
        async with Stage(tmp_path) as stage:
            box = stage.sandbox(await stage.app(app))
            async with await stage.client() as client:
                await client.send(box.upgrade() + b"up")
                client.end()
                await until(lambda: any(one.half_closed for one in stage.edge.connections))
                finished.set()
                assert (await client.rest()).endswith(b"\r\n\r\ndown")
            await until(lambda: not any(stage.edge.admission.counts().values()))

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play())
    assert heard == [b"up"]


@LOOPS
def test_nobody_lingers_for_a_client_that_has_finished(tmp_path: Path, loop: Loop) -> None:
    """An answer that ends the connection, more bytes, a FIN: there is nothing left to read on for."""
    finished = asyncio.Event()

    async def app(connection: AppConnection) -> None:
        await connection.read_head()
        await finished.wait()
        await connection.answer(b"first")

    async def play() -> None:
        async with Stage(tmp_path, deadlines={"linger": 3600.0}) as stage:
            box = stage.sandbox(await stage.app(app))
            async with await stage.client() as client:
                await client.send(box.get(fields=b"Connection: close\r\n") + b"more")
                client.end()
                await until(lambda: any(one.half_closed for one in stage.edge.connections))
                finished.set()
                assert (await client.rest()).endswith(b"first")
                await until(lambda: not stage.edge.admission.counts()["connections"])

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play())


async def test_a_silent_stream_ends_when_its_reader_may_be_gone(tmp_path: Path) -> None:
    """A page with a stream of events is closed: its FIN is all there is to see until the app speaks."""
    go_on, left = asyncio.Event(), asyncio.Event()
    ahead = 0.0

    async def app(connection: AppConnection) -> None:
        await connection.read_head()
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\none")
        await go_on.wait()
        await connection.send(b"two")
        assert await connection.read_to_end() == b""
        left.set()

    def under_way(seconds: float) -> bool:
        """Whether it still is, so much later."""
        nonlocal ahead
        ahead += seconds
        flow.tick()
        return bool(stage.edge.admission.counts()["exchanges"])

    async with Stage(tmp_path, deadlines={"body_stall": 1000.0}) as stage:
        flow = stage.edge.flow
        flow.clock = lambda: time.monotonic() + ahead
        box = stage.sandbox(await stage.app(app))
        async with await stage.client() as client:
            await client.send(box.get())
            await client.head()
            assert await client.chunk() == b"one"
            # Who may still send something is there.
            assert under_way(0) and under_way(5000)
            client.end()
            await until(lambda: any(one.half_closed for one in stage.edge.connections))
            assert under_way(0) and under_way(600)
            go_on.set()
            # Who has finished sending gets what there is, for as long as there is something.
            assert await client.chunk() == b"two"
            assert under_way(300) and under_way(600)
            assert not under_way(600)
            await left.wait()
        await until(lambda: not any(stage.edge.admission.counts().values()))
