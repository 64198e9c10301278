"""``preview-edge dev --isolation netns``: the published client, the edge, and two apps on one port."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx
import pytest
from nullspace import Sandbox, SandboxError, Volume

from tests.development import ROOT, development
from tests.state.redis.valkey import Valkey

pytestmark = pytest.mark.needs_tool("netns")

APP = """
import asyncio, sys
from aiohttp import web

async def hello(request):
    return web.Response(text=sys.argv[1])

async def echo(request):
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(sys.argv[1] + " " + message.data)
    return ws

app = web.Application()
app.add_routes([web.get("/", hello), web.get("/ws", echo)])

async def serve():
    runner = web.AppRunner(app)
    await runner.setup()
    for port in (9000, 9001, 9002, 8080):
        await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()

asyncio.run(serve())
"""
VISIT = """
import errno, json, socket, sys
def visit(name):
    with socket.socket(socket.AF_UNIX) as sock:
        return errno.errorcode.get(sock.connect_ex(name.replace("@", chr(0), 1)))
print(json.dumps({name: visit(name) for name in sys.argv[1:]}))
"""
LOOK = "import socket, sys; print(socket.socket().connect_ex(('127.0.0.1', int(sys.argv[1]))))"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The first screen of a ``dev`` for this module's tests, and where its temporary files are."""
    folder = tmp_path_factory.mktemp("dev")
    options = ("--isolation", "netns", "--window", "4", "--workers", "2")
    with development(folder, *options, TMPDIR=str(folder)) as rows:
        yield rows | {"TMPDIR": str(folder)}


@pytest.fixture
def login(said: dict[str, str]) -> dict[str, Any]:
    """What every call of the client needs to know."""
    return {"base_url": said["API"], "api_key": said["API key"]}


def _start(name: str, login: dict[str, Any]) -> Sandbox:
    """A sandbox that wakes, with the app on port 8080."""
    sandbox = Sandbox.create(on_timeout="pause", auto_resume=True, **login)
    sandbox.files.write("app.py", APP)
    sandbox.commands.run(sys.executable, ["app.py", name], background=True)
    assert sandbox.wait_for_preview(8080, kind="http", timeout_secs=25).ready
    return sandbox


class Door:
    """Requests to previews. The edge goes by the Host field; not every resolver knows ``*.localhost``."""

    def __init__(self, session: aiohttp.ClientSession, edge: str) -> None:
        self._session = session
        self._edge = edge

    async def get(self, url: str) -> tuple[int, str]:
        """Status and body."""
        at = urlsplit(url)
        async with self._session.get(
            f"{self._edge}{at.path}?{at.query}", headers={"Host": at.netloc}
        ) as answer:
            return answer.status, await answer.text()

    async def talk(self, url: str) -> aiohttp.ClientWebSocketResponse:
        """A WebSocket."""
        at = urlsplit(url)
        return await self._session.ws_connect(
            f"{self._edge}/ws?{at.query}", headers={"Host": at.netloc}
        )


async def test_two_sandboxes_on_one_port(said: dict[str, str], login: dict[str, Any]) -> None:
    """Both over HTTP and WebSocket, kept open and anew, paused and woken by either; each gets its own answers."""
    made = [await asyncio.to_thread(_start, name, login) for name in ("one", "two")]
    previews = [await asyncio.to_thread(sandbox.get_preview_url, 8080) for sandbox in made]
    async with aiohttp.ClientSession() as session:
        door = Door(session, said["edge"])
        for name, sandbox, preview in zip(("one", "two"), made, previews, strict=True):
            for _ in range(3):
                assert await door.get(preview.url) == (200, name)
            socket_ = await door.talk(preview.websocket_url)
            await socket_.send_str("a")
            assert await socket_.receive_str(timeout=20) == f"{name} a"
            await asyncio.to_thread(sandbox.pause)
            assert (await socket_.receive(timeout=20)).type in (
                aiohttp.WSMsgType.CLOSED,
                aiohttp.WSMsgType.CLOSE,
                aiohttp.WSMsgType.ERROR,
            )
        # The first is woken by a request, the second by a WebSocket.
        assert await door.get(previews[0].url) == (200, "one")
        socket_ = await door.talk(previews[1].websocket_url)
        await socket_.send_str("b")
        assert await socket_.receive_str(timeout=20) == "two b"
        await socket_.close()
        for sandbox in made:
            info = await asyncio.to_thread(sandbox.get_info)
            assert info.status == "running"
            (sample,) = await asyncio.to_thread(sandbox.get_metrics)
            assert sample.network_rx_bytes and sample.network_tx_bytes
            await asyncio.to_thread(sandbox.kill)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The first screen of a ``dev`` with three edges over a real Redis."""
    folder = tmp_path_factory.mktemp("fleet")
    redis = Valkey(folder)
    options = ("--isolation", "netns", "--edges", "3", "--no-demo", "--redis-url", redis.url)
    try:
        asyncio.run(redis.start())
        with development(folder, *options) as rows:
            yield rows
    finally:
        redis.kill()


async def test_the_same_through_each_of_many_edges(fleet: dict[str, str]) -> None:
    """Two sandboxes on one port: each edge wakes and serves both, and each of them what another edge has woken."""
    login = {"base_url": fleet["API"], "api_key": fleet["API key"]}
    names = ("one", "two")
    made = [await asyncio.to_thread(_start, name, login) for name in names]
    previews = [await asyncio.to_thread(sandbox.get_preview_url, 8080) for sandbox in made]
    async with aiohttp.ClientSession() as session:
        doors = [Door(session, fleet[f"edge-{number}"]) for number in (1, 2, 3)]
        for first in range(3):
            # The first one wakes; with the last one first, the others meet a record that is news to them.
            order = [*doors[first:], *doors[:first]]
            for name, sandbox, preview in zip(names, made, previews, strict=True):
                await asyncio.to_thread(sandbox.pause)
                for door in order:
                    assert await door.get(preview.url) == (200, name)
                socket_ = await order[-1].talk(preview.websocket_url)
                await socket_.send_str("a")
                assert await socket_.receive_str(timeout=20) == f"{name} a"
                await socket_.close()
            # A port that had no way in until now: whichever edge is asked, and however soon.
            for name, sandbox in zip(names, made, strict=True):
                late = await asyncio.to_thread(sandbox.get_preview_url, 9000 + first)
                asked = await asyncio.gather(*(door.get(late.url) for door in doors))
                assert asked == [(200, name)] * 3
        for sandbox in made:
            await asyncio.to_thread(sandbox.pause)
        # All at once: six requests, two wakes.
        asked = await asyncio.gather(*(door.get(one.url) for door in doors for one in previews))
        assert asked == [(200, "one"), (200, "two")] * 3
    for sandbox in made:
        told = await asyncio.to_thread(sandbox.list_lifecycle)
        resumes = [one for one in told.events if one.operation == "resume_from_snapshot"]
        assert [one.status for one in resumes] == ["succeeded"] * 4
        await asyncio.to_thread(sandbox.kill)


async def test_a_closed_port_is_told_as_ever(said: dict[str, str], login: dict[str, Any]) -> None:
    """Nobody listens in there, whatever listens out here, and it says so."""
    sandbox = await asyncio.to_thread(_start, "one", login)
    with socket.create_server(("127.0.0.1", 0)) as host:
        port = host.getsockname()[1]
        ran = await asyncio.to_thread(sandbox.commands.run, sys.executable, ["-c", LOOK, str(port)])
        assert ran.stdout == "111\n"
        for each in (urlsplit(said["API"]).port, urlsplit(said["edge"]).port):
            ran = await asyncio.to_thread(
                sandbox.commands.run, sys.executable, ["-c", LOOK, str(each)]
            )
            assert ran.stdout == "111\n"
        ready = await asyncio.to_thread(sandbox.wait_for_preview, port, timeout_secs=1)
        preview = await asyncio.to_thread(sandbox.get_preview_url, port)
        async with aiohttp.ClientSession() as session:
            door = Door(session, said["edge"])
            # Young sandboxes get the window for it; after that it is plain that nobody listens.
            async with asyncio.timeout(30):
                while (closed := await door.get(preview.url))[0] == 503:
                    assert "sandbox_resume_timeout" in closed[1]
        assert closed[0] == 502 and "preview_service_not_ready" in closed[1]
        assert (ready.ready, ready.route_ready, ready.code) == (
            False,
            True,
            "preview_service_not_ready",
        )
    # What cannot be reached either: the way out. So asking for no way out is no lie here.
    inside = await asyncio.to_thread(lambda: Sandbox.create(internet_access=False, **login))
    for each in (sandbox, inside):
        await asyncio.to_thread(each.kill)


def test_a_volume_to_read_only(said: dict[str, str], login: dict[str, Any]) -> None:
    """Written by one sandbox, read by others, which can change nothing: by processes, by calls, after a fork."""
    volume = Volume.create("library", **login)
    place = {"ref": "library", "mount_path": "/workspace/v"}
    with Sandbox.create(volumes=[place], **login) as writer:
        writer.files.write("v/f", "one")
        with Sandbox.create(
            volumes=[place | {"read_only": True}], on_timeout="pause", auto_resume=True, **login
        ) as reader:
            (attachment,) = reader.list_volumes()
            assert attachment.read_only and attachment.mount_path == "/workspace/v"
            reader.attach_volume("library", "/workspace/later", read_only=True)
            fork = reader.fork()
            reader.pause()
            for one in (reader, fork):
                assert [each.read_only for each in one.list_volumes()] == [True, True]
                assert one.files.read("v/f") == "one"
                ran = one.commands.run("cat v/f; echo two > v/f; touch later/g", shell=True)
                assert ran.stdout == "one" and ran.stderr.count("Read-only file system") == 2
                for name in ("v/f", "later/g"):
                    with pytest.raises(SandboxError) as refused:
                        one.files.write(name, "two")
                    assert refused.value.code == "permission_denied"
            for attachment in reader.list_volumes():
                assert reader.get_volume_health(str(attachment.id)).state == "mounted"
            writer.files.write("v/f", "three")
            assert reader.commands.run("cat", ["later/f"]).stdout == "three"
            fork.kill()
    volume.delete()


def test_no_worker_of_the_edge_is_in_reach(said: dict[str, str], login: dict[str, Any]) -> None:
    """Their admin listeners answer the supervisor, and nobody in a sandbox, who is the same user."""
    found = re.findall(r" (\S+)$", Path("/proc/net/unix").read_text(), re.MULTILINE)
    names = [one for one in found if one.startswith((said["TMPDIR"], "@preview-edge-"))]
    assert len(names) >= 2
    admin = said["admin"].partition("/metrics")[0]
    assert httpx.get(f"{admin}/readyz").json() == {"ready": True}
    with Sandbox.create(**login) as sandbox:
        ran = sandbox.commands.run(sys.executable, ["-c", VISIT, *names])
    assert dict.fromkeys(names, "ECONNREFUSED") == json.loads(ran.stdout)


async def test_the_demo_runs_in_its_own(said: dict[str, str]) -> None:
    """The first link works as it does without the option."""
    at = urlsplit(said["preview"])
    async with aiohttp.ClientSession() as session:
        status, text = await Door(session, said["edge"]).get(at._replace(fragment="").geturl())
    assert status == 200 and "<html" in text


@pytest.mark.needs_tool("unshare")
def test_where_the_machine_forbids_it_nothing_starts(tmp_path: Path) -> None:
    """One line that says what is missing and what to do, exit status 2, and not a process without it."""
    script = (
        'echo 0 > /proc/sys/user/max_net_namespaces; exec "$0" -m edge dev --isolation netns '
        '--api-port 0 --edge-port 0 --admin-port 0 --data-dir "$1"'
    )
    began = time.monotonic()
    refused = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-ec", script, sys.executable, tmp_path],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "preview-edge: control plane: isolation netns: unshare(2): No space left on device; let an administrator "
        "run: sysctl -w user.max_net_namespaces=10000; or do without the option\n"
    )
    assert time.monotonic() - began < 30
