"""``preview-edge serve`` as a process: it starts, serves, drains, and ends as it is told."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from pathlib import Path

import aiohttp
import pytest

from edge.core.records import State
from tests.flows.scriptedapp import AppConnection
from tests.flows.scripts import hang
from tests.ops.programs import PREVIEW_EDGE, Program, family
from tests.ops.serving import Serving

SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
# Frames of RFC 6455; the last says status 1001.
MASKED_PING, PONG, GOING_AWAY = b"\x89\x80abcd", b"\x8a\x00", b"\x88\x02\x03\xe9"


class App:
    """Streams until `gate`, becomes a tunnel, or answers, by what is asked."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def __call__(self, connection: AppConnection) -> None:
        while head := await connection.read_head():
            if b"pgrade: websocket" in head:
                await connection.send(SWITCHING)
                await connection.read_exactly(len(MASKED_PING))
                await connection.send(PONG)
                await connection.read_to_end()
                return
            if head.startswith(b"GET /stream"):
                await connection.send(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n"
                )
                await self.gate.wait()
                await connection.send(b"5\r\nended\r\n0\r\n\r\n")
            else:
                await connection.answer(b"ok")


async def test_a_drain_lets_everything_end_as_well_as_it_can(tmp_path: Path) -> None:
    """SIGTERM with a waiter, a stream and a WebSocket under way.

    /readyz turns first and /healthz stays; the waiter gets 503 edge_draining; the tunnel is told and closed; the
    stream is complete; the admin listener goes last; exit status 0.
    """
    drain = {"wait": 0.3, "waiters": 0.0, "tunnels": 0.1, "timeout": 25.0}
    async with Serving(tmp_path, drain=drain) as serving:
        app = App()
        running = serving.sandbox(await serving.app(app))
        asleep = serving.sandbox(await serving.app(app), State.PAUSED)
        serving.plane.on_resume = hang
        async with (
            await serving.client() as stream,
            await serving.client() as tunnel,
            await serving.client() as waiter,
            await serving.client() as idle,
        ):
            assert (await idle.ask(running.get("/idle"))).status == 200
            await stream.send(running.get("/stream"))
            assert (await stream.head()).status == 200
            assert await stream.chunk() == b"begun"
            assert (await tunnel.ask(running.upgrade("/tunnel"))).status == 101
            await tunnel.send(MASKED_PING)
            assert await tunnel.exactly(len(PONG)) == PONG
            await waiter.send(asleep.get("/waiter"))
            await serving.plane.called("resume")

            serving.signal(signal.SIGTERM)
            assert await serving.unready() == ["draining"]
            assert (await serving.admin("/healthz"))[0] == 200
            answer = await waiter.answer()
            assert (answer.status, answer.code) == (503, "edge_draining")
            assert answer.value("retry-after") == "5" and answer.json["retryable"] is True
            assert await tunnel.exactly(4) == GOING_AWAY
            await tunnel.send(b"\x88\x80abcd")
            tunnel.end()
            assert await tunnel.at_end()
            assert await idle.at_end()
            with pytest.raises(ConnectionRefusedError):
                await serving.client()
            assert (await serving.admin("/healthz"))[0] == 200
            app.gate.set()
            assert (await stream.chunk(), await stream.chunk()) == (b"ended", b"")
            assert await stream.at_end()
        assert await serving.ended() == 0
        with pytest.raises(aiohttp.ClientConnectorError):
            await serving.admin("/healthz")

        ends = {
            line["path"]: (line["status"], line["code"], line["end"]) for line in serving.access()
        }
        assert ends == {
            "/idle": (200, None, "complete"),
            "/stream": (200, None, "complete"),
            "/tunnel": (101, None, "drained"),
            "/waiter": (503, "edge_draining", "drained"),
        }
        told = [json.loads(line)["event"] for line in serving.program.err.splitlines()]
        assert (
            told.index("started") < told.index("draining") < told.index("stopped") == len(told) - 1
        )
        assert not list(serving.program.temporary.iterdir())


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_signal_breaks_the_start_off(tmp_path: Path, workers: int) -> None:
    """The keys do not come; it ends without ever having listened, and leaves nobody behind."""
    asked = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks.json"
        setting = Serving(tmp_path, tokens={"jwks_url": url}, listen={"workers": workers})
        with setting.start() as program:
            await asyncio.wait_for(asked.wait(), 20)
            program.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(program.process.wait, 20)
            assert program.ended() == 0, program.err
            assert not program.out
            assert not family(tmp_path)


async def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    """While the first one's wait for load balancers goes on, requests are still served."""
    async with Serving(tmp_path, drain={"wait": 600.0}) as serving:
        app = App()
        box = serving.sandbox(await serving.app(app))
        async with await serving.client() as stream:
            await stream.send(box.get("/stream"))
            await stream.head()
            serving.signal(signal.SIGTERM)
            assert await serving.unready() == ["draining"]
            assert (await serving.ask(box.get("/late"))).status == 200
            serving.signal(signal.SIGTERM)
            assert await serving.ended() == -signal.SIGTERM


async def test_a_hangup_opens_the_log_anew(tmp_path: Path) -> None:
    """Logrotate moves the file and sends SIGHUP; nothing is lost, nothing stops."""
    async with Serving(tmp_path) as serving:
        box = serving.sandbox(await serving.app(App()))
        await serving.ask(box.get("/1"))
        await serving.until(lambda: serving.access_log.stat().st_size > 0)
        old = serving.access_log.rename(tmp_path / "access.log.1")
        serving.signal(signal.SIGHUP)
        await serving.until(serving.access_log.exists)
        await serving.ask(box.get("/2"))
        await serving.until(lambda: bool(serving.access()))
        serving.signal(signal.SIGINT)
        assert await serving.ended() == 0
        assert json.loads(old.read_text())["path"] == "/1"
        assert [line["path"] for line in serving.access()] == ["/2"]


async def test_a_tied_edge_ends_with_its_parent(tmp_path: Path) -> None:
    """The end of its standard input is a SIGTERM; by default the access log goes to standard output."""

    class Tied(Serving):
        def start(self, **options: object) -> Program:
            return super().start(stdin=subprocess.PIPE, command=PREVIEW_EDGE)

    async with Tied(tmp_path, "--tied", log={"access": "-"}) as serving:
        box = serving.sandbox(await serving.app(App()))
        assert (await serving.ask(box.get("/hello"))).status == 200
        assert serving.program.process.stdin is not None
        serving.program.process.stdin.close()
        assert await serving.ended() == 0
        listening, line = serving.program.out.splitlines()
        assert json.loads(listening) == {
            "event": "listening",
            "port": serving.port,
            "admin_port": serving.admin_port,
        }
        assert json.loads(line)["path"] == "/hello"
