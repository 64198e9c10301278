"""The story that the client's guide tells, from the first create to the last event: once with the synchronous
client, once with the asynchronous one, on a ``preview-edge dev`` with real edges and a real app.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import nullspace
import pytest
from nullspace import (
    AsyncLifecycle,
    AsyncSandbox,
    AsyncSnapshot,
    AsyncVolume,
    Lifecycle,
    Sandbox,
    Snapshot,
    Volume,
)
from nullspace.errors import NotFoundError, SandboxError
from websockets.asyncio.client import connect as connect_async
from websockets.sync.client import connect

from bench.ports import free_port
from edge import redact_preview_token, redact_preview_url
from tests.commands.test_dev import KEY, Dev
from tests.sdk.planes import Cutter
from tests.sdk.test_lifecycle import Task, Thread

# What the client does with its WebSocket library is deprecated there.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:connect\(\) must be used as a context manager:DeprecationWarning"
)

APP = """
import sys
from aiohttp import web

count = 0

async def page(request):
    global count
    count += 1
    said = {"count": count, "host": request.headers.get("X-Forwarded-Host"), "query": request.query_string}
    return web.json_response(said)

async def echo(request):
    global count
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        count += 1
        await socket.send_str(f"{count} {message.data}")
    return socket

app = web.Application()
app.add_routes([web.get("/", page), web.get("/ws", echo)])
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""
"""Counts in memory, so that it shows whether it is still the same process."""

PAUSES: dict[str, Any] = {"on_timeout": "pause", "auto_resume": True}
FIELDS = ["id", "status", "snapshot_id"]
FORWARDED = {
    "x-forwarded-host": "app.example",
    "x-forwarded-proto": "https",
    "x-forwarded-for": "192.0.2.1",
}


class Visitor:
    """Somebody at the edge. Names below .localhost do not resolve everywhere, so it connects by address."""

    def __init__(self, port: int) -> None:
        self._port = port

    def request(self, url: str, **headers: str | None) -> tuple[str, dict[str, str]]:
        """Where to, and with which header fields."""
        asked = httpx.URL(url)
        given = {name.replace("_", "-"): value for name, value in headers.items() if value}
        to = f"http://127.0.0.1:{self._port}{asked.raw_path.decode()}"
        return to, {"Host": asked.netloc.decode(), **given}

    def get(self, url: str, **headers: str | None) -> httpx.Response:
        """What it gets, after a wake if need be."""
        to, fields = self.request(url, **headers)
        return httpx.get(to, headers=fields, timeout=30)

    async def get_async(self, url: str, **headers: str | None) -> httpx.Response:
        """The same without a thread."""
        to, fields = self.request(url, **headers)
        async with httpx.AsyncClient(timeout=30) as client:
            return await client.get(to, headers=fields)

    def socket(self) -> socket.socket:
        """A connection for a WebSocket."""
        return socket.create_connection(("127.0.0.1", self._port), 30)


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One for both tellings."""
    with Dev(tmp_path_factory.mktemp("story"), "--no-demo") as one:
        one.up()
        yield one


@pytest.fixture
def visitor(dev: Dev) -> Visitor:
    """A visitor of its edge."""
    return Visitor(_port(dev.row("edge")))


def _port(row: str) -> int:
    return int(row.partition("//")[2].split(" ")[0].rstrip("/").rpartition(":")[2])


def _at(url: str, path: str) -> str:
    """A token is good on any path of its host."""
    return url.replace("/?", f"{path}?", 1)


def _off(refused: httpx.Response) -> None:
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    told = refused.json()
    assert told["code"] == "sandbox_paused_auto_resume_disabled" and told["retryable"] is False


def _nothing_is_shown(dev: Dev, sandbox: str, urls: list[str], tokens: list[str]) -> None:
    """Our redaction and the client's are the same; and no log has a token."""
    for url in urls:
        token = httpx.URL(url).params["edge_token"]
        shown = redact_preview_url(url)
        assert shown == nullspace.redact_preview_url(url) and token not in shown
        tokens.append(token)
    for token in tokens:
        assert redact_preview_token(token) == nullspace.redact_preview_token(token) != token
    log = dev.folder / dev.row("data") / "access.log"
    dev.until(lambda: sandbox in log.read_text())
    for text in (dev.out, dev.err, log.read_text()):
        assert not [token for token in tokens if token in text]


# --- Synchronous ------------------------------------------------------------------------------------


async def test_the_story(dev: Dev, visitor: Visitor) -> None:
    """All of it, while a lifecycle stream follows on a connection that is cut; it misses nothing."""
    login = {"base_url": dev.row("API"), "api_key": KEY}
    async with Cutter(_port(dev.row("API")), seed=1) as way:
        cut = {"base_url": f"http://127.0.0.1:{way.port}", "api_key": KEY}
        following = Lifecycle(**cut)
        reader = Thread(following.stream_events(replay_limit=1000))
        sandbox = await asyncio.to_thread(_story, dev, visitor, login)
        while not way.cuts:
            # Somebody who only wants to know what a command prints.
            ran = await asyncio.to_thread(lambda: Sandbox.run_once("echo", ["once"], **login))
            assert (ran.exit_code, ran.stdout) == (0, "once\n")
        reader.last = sandbox.id
        await asyncio.to_thread(_end, visitor, sandbox, login)
        seen = await reader.end()
        following.close()
    listed = Lifecycle(**login)
    page = listed.list_events(order_asc=True, limit=1000)
    assert seen == [event.id for event in page.events] and not page.has_more
    listed.close()


def _story(dev: Dev, visitor: Visitor, login: dict[str, Any]) -> Sandbox:
    volume = Volume.create("sync", **login)
    sandbox = Sandbox.create(
        metadata={"story": "sync"},
        volumes=[volume.mount("/workspace/shared")],
        **PAUSES,
        **login,
    )
    with pytest.raises(SandboxError) as refused:
        Sandbox.create(warm_pool="twp_none", warm_pool_mode="require", **login)
    assert refused.value.code == "warm_pool_unavailable"
    port = free_port()
    sandbox.files.write("app.py", APP)
    sandbox.commands.run(sys.executable, ["app.py", str(port)], background=True)
    assert sandbox.wait_for_preview(port, kind="http", path="/", timeout_secs=30).ready
    preview = sandbox.get_preview_url(port)
    first = visitor.get(preview.url).json()
    assert first["query"] == "" and first["host"] == httpx.URL(preview.url).netloc.decode()

    pause = sandbox.pause()
    asleep = {"id": sandbox.id, "status": "paused", "snapshot_id": pause.id}
    assert sandbox.get_info().status.value == "paused" and not sandbox.is_running()
    assert sandbox.get_info(fields=FIELDS) == asleep
    assert Sandbox.get_info_by_id(sandbox.id, fields="id,status,snapshot_id", **login) == asleep
    assert [one.id for one in Sandbox.list(state="paused", **login)] == [sandbox.id]
    assert [one.id for one in Snapshot.list(sandbox_id=sandbox.id, **login)] == [pause.id]
    assert len(sandbox.list_preview_urls(port=port)) == 1
    signed = sandbox.create_signed_preview_url(port, expires_in_seconds=600)
    target = sandbox.create_preview_proxy_target(port)
    assert sandbox.get_info(fields=["status"]) == {"status": "paused"}

    second = visitor.get(signed.url).json()
    assert second["count"] == first["count"] + 1, "its memory is there again"
    assert sandbox.is_running()
    sandbox.pause()
    where = _at(signed.websocket_url, "/ws")
    with connect(where, sock=visitor.socket()) as websocket:
        websocket.send("hello")
        assert websocket.recv(30) == f"{second['count'] + 1} hello"
    assert sandbox.is_running()

    sandbox.pause()
    tokens = {target.token_header_name: target.http_token, **FORWARDED}
    through = visitor.get(target.http_url, **tokens)
    assert through.json()["host"] == "app.example" and "set-cookie" not in through.headers
    assert through.json()["count"] == second["count"] + 2
    carried = {target.token_header_name: target.websocket_token, **FORWARDED}
    where = _at(target.websocket_url, "/ws")
    with connect(where, sock=visitor.socket(), additional_headers=carried) as websocket:
        websocket.send("again")
        assert websocket.recv(30) == f"{second['count'] + 3} again"
    crossed = visitor.get(target.http_url, **carried)
    assert (crossed.status_code, crossed.json()["code"]) == (
        *(403, "preview_proxy_token_scope_mismatch"),
    )
    urls = [url for one in (preview, signed) for url in (one.url, one.websocket_url)]
    _nothing_is_shown(dev, sandbox.id, urls, [target.http_token, target.websocket_token])

    with Sandbox.create(on_timeout="pause", **login) as off:
        closed = off.get_preview_url(port).url
        off.pause()
        _off(visitor.get(closed))
        assert off.get_info().status.value == "paused"
    sandbox.files.write("shared/all", "1")
    sandbox.files.write("own", "2")
    with sandbox.fork() as fork:
        assert (fork.files.read("shared/all"), fork.files.read("own")) == ("1", "2")
        fork.files.write("shared/all", "3")
        fork.files.write("own", "4")
        assert not fork.commands.list(), "its processes are not carried"
        assert (sandbox.files.read("shared/all"), sandbox.files.read("own")) == ("3", "2")
    assert json.loads(Sandbox.run_once("echo", ["[1]"], **login).stdout) == [1]
    return sandbox


def _end(visitor: Visitor, sandbox: Sandbox, login: dict[str, Any]) -> None:
    url = sandbox.get_preview_url(8080).url
    sandbox.kill()
    with pytest.raises(NotFoundError) as gone:
        Sandbox.get_info_by_id(sandbox.id, **login)
    assert gone.value.code == "sandbox_not_found"
    assert visitor.get(url).json()["code"] == "sandbox_not_found"


# --- Asynchronous -----------------------------------------------------------------------------------


async def test_the_story_asynchronously(
    dev: Dev, visitor: Visitor, async_connections_closed: None
) -> None:
    """The same story with the asynchronous client, and with the stream of one sandbox, too."""
    login = {"base_url": dev.row("API"), "api_key": KEY}
    async with Cutter(_port(dev.row("API")), seed=2) as way:
        following = AsyncLifecycle(base_url=f"http://127.0.0.1:{way.port}", api_key=KEY)
        listed = AsyncLifecycle(**login)
        before = (await listed.list_events(limit=1)).events
        after = before[0].id if before else None
        reader = Task(following.stream_events(after_event_id=after))
        sandbox = await _story_async(dev, visitor, login)
        while not way.cuts:
            ran = await AsyncSandbox.run_once("echo", ["once"], **login)
            assert (ran.exit_code, ran.stdout) == (0, "once\n")
        own = Task(sandbox.stream_events())
        own.last = reader.last = sandbox.id
        url = (await sandbox.get_preview_url(8080)).url
        await sandbox.kill()
        with pytest.raises(NotFoundError) as gone:
            await AsyncSandbox.get_info_by_id(sandbox.id, **login)
        assert gone.value.code == "sandbox_not_found"
        assert (await visitor.get_async(url)).json()["code"] == "sandbox_not_found"
        seen = await reader.end()
        page = await listed.list_events(order_asc=True, limit=1000)
        ids = [event.id for event in page.events]
        assert seen == ids[ids.index(after) + 1 if after else 0 :]
        assert await own.end() == [one.id for one in page.events if one.sandbox_id == sandbox.id]
        for one in (sandbox, following, listed):
            await one.close()


async def _story_async(dev: Dev, visitor: Visitor, login: dict[str, Any]) -> AsyncSandbox:
    volume = await AsyncVolume.create("async", **login)
    mounts = [volume.mount("/workspace/shared")]
    sandbox = await AsyncSandbox.create(metadata={"n": 1}, volumes=mounts, **PAUSES, **login)
    with pytest.raises(SandboxError) as refused:
        await AsyncSandbox.create(warm_pool="twp_none", warm_pool_mode="require", **login)
    assert refused.value.code == "warm_pool_unavailable"
    port = free_port()
    await sandbox.files.write("app.py", APP)
    await sandbox.commands.run(sys.executable, ["app.py", str(port)], background=True)
    assert (await sandbox.wait_for_preview(port, kind="http", path="/", timeout_secs=30)).ready
    preview = await sandbox.get_preview_url(port)
    first = (await visitor.get_async(preview.url)).json()

    pause = await sandbox.pause()
    asleep = {"id": sandbox.id, "status": "paused", "snapshot_id": pause.id}
    assert (await sandbox.get_info()).status.value == "paused"
    assert await sandbox.get_info(fields=FIELDS) == asleep
    assert await AsyncSandbox.get_info_by_id(sandbox.id, fields=FIELDS, **login) == asleep
    found = [one.id async for one in await AsyncSandbox.list(state="paused", **login)]
    assert found == [sandbox.id]
    assert [one.id for one in await AsyncSnapshot.list(sandbox_id=sandbox.id, **login)] == [
        pause.id
    ]
    signed = await sandbox.create_signed_preview_url(port, expires_in_seconds=600)
    target = await sandbox.create_preview_proxy_target(port)
    assert await sandbox.get_info(fields=["status"]) == {"status": "paused"}

    second = (await visitor.get_async(signed.url)).json()
    assert second["count"] == first["count"] + 1, "its memory is there again"
    await sandbox.pause()
    where = _at(signed.websocket_url, "/ws")
    async with connect_async(where, sock=visitor.socket()) as websocket:
        await websocket.send("hello")
        assert await websocket.recv() == f"{second['count'] + 1} hello"
    assert await sandbox.is_running()

    await sandbox.pause()
    tokens = {target.token_header_name: target.http_token, **FORWARDED}
    through = (await visitor.get_async(target.http_url, **tokens)).json()
    assert (through["host"], through["count"]) == ("app.example", second["count"] + 2)
    carried = {target.token_header_name: target.websocket_token, **FORWARDED}
    where = _at(target.websocket_url, "/ws")
    async with connect_async(where, sock=visitor.socket(), additional_headers=carried) as websocket:
        await websocket.send("again")
        assert await websocket.recv() == f"{second['count'] + 3} again"
    urls = [url for one in (preview, signed) for url in (one.url, one.websocket_url)]
    _nothing_is_shown(dev, sandbox.id, urls, [target.http_token, target.websocket_token])

    async with await AsyncSandbox.create(on_timeout="pause", **login) as off:
        closed = (await off.get_preview_url(port)).url
        await off.pause()
        _off(await visitor.get_async(closed))
        assert (await off.get_info()).status.value == "paused"
    await sandbox.files.write("shared/all", "1")
    async with await sandbox.fork() as fork:
        assert await fork.files.read("shared/all") == "1"
        await fork.files.write("shared/all", "3")
        assert not await fork.commands.list(), "its processes are not carried"
        assert await sandbox.files.read("shared/all") == "3"
    ran = await AsyncSandbox.run_once("echo", ["[1]"], **login)
    assert json.loads(ran.stdout) == [1]
    await volume._client.close()
    return sandbox
