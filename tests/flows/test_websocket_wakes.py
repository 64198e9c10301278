"""A WebSocket upgrade wakes its sandbox, and what the app says in its handshake is what the client gets."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from edge.core.credentials import Family
from edge.core.records import State, Transport
from tests.flows.scriptedapp import AppConnection, fields_of
from tests.flows.scripts import after
from tests.flows.stage import Preview, Stage

ACCEPTED = (
    b"HTTP/1.1 101 Welcome\r\nX-App: one\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"sec-websocket-protocol: chat\r\nSet-Cookie: app=1\r\nX-App: two\r\n"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)
"""An app's handshake answer with spellings and orders of its own."""
FIELDS = [
    (b"X-App", b"one"),
    (b"Sec-WebSocket-Accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
    (b"sec-websocket-protocol", b"chat"),
    (b"Set-Cookie", b"app=1"),
    (b"X-App", b"two"),
]


async def shout(connection: AppConnection) -> None:
    """Accepts, says hello in the same breath, then sends everything back until the client ends."""
    await connection.read_head()
    await connection.send(ACCEPTED + b"hello")
    while data := await connection.read_some():
        await connection.send(data)
    connection.end()


async def test_an_upgrade_wakes_and_bytes_flow_both_ways(stage: Stage) -> None:
    """The 101 keeps the app's fields and order; bytes after it come through untouched; so does the end."""
    app, ready = await stage.app(shout), asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(app, State.PAUSED)
    async with await stage.client() as client:
        await client.send(box.upgrade("/ws?room=1", b"Sec-WebSocket-Protocol: chat, other\r\n"))
        handshake = asyncio.create_task(client.answer())
        await stage.plane.called("resume")
        assert not handshake.done() and app.connections == 0
        ready.set()
        answer = await handshake
        assert (answer.status, answer.reason) == (101, b"Welcome")
        assert answer.fields[: len(FIELDS)] == FIELDS
        assert [v.lower() for v in answer.values("connection")] == ["upgrade"]
        assert answer.values("upgrade") == ["websocket"]
        assert await client.exactly(5) == b"hello"
        for data in (b"\x81\x05short", bytes(range(256)) * 1024):
            await client.send(data)
            assert await client.exactly(len(data)) == data
        client.end()
        assert await client.rest() == b""
    head = app.requests[0]
    assert head.startswith(b"GET /ws?room=1 HTTP/1.1\r\n")
    fields = fields_of(head)
    assert fields[b"sec-websocket-protocol"] == b"chat, other"
    assert fields[b"sec-websocket-key"] == b"dGhlIHNhbXBsZSBub25jZQ=="
    assert fields[b"connection"].lower() == b"upgrade" and fields[b"upgrade"] == b"websocket"
    assert stage.plane.counts["resume"] == stage.plane.incarnations[box.id] == 1


async def test_what_an_impatient_client_sends_early_comes_after_the_handshake(stage: Stage) -> None:
    """Bytes sent while the sandbox sleeps wait for the 101, however many, and arrive complete."""
    ready = asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(await stage.app(shout), State.PAUSED)
    early = bytes(range(256)) * 4096
    async with await stage.client() as client:
        client.writer.write(box.upgrade() + early)
        await stage.plane.called("resume")
        ready.set()
        assert (await client.answer()).status == 101
        assert await client.exactly(5 + len(early)) == b"hello" + early


async def test_a_refused_upgrade_is_the_apps_own_answer(stage: Stage) -> None:
    """An app that does not want the upgrade says so itself, after it was woken for it."""

    async def handler(connection: AppConnection) -> None:
        await connection.read_head()
        await connection.answer(b"not here", b"426 Upgrade Required", b"X-Why: because\r\n")

    box = stage.sandbox(await stage.app(handler), State.PAUSED)
    answer = await stage.ask(box.upgrade())
    assert (answer.status, answer.body) == (426, b"not here")
    assert answer.value("x-why") == "because"
    assert stage.plane.incarnations[box.id] == 1


async def test_requests_and_upgrades_share_one_wake(stage: Stage) -> None:
    """HTTP and WebSocket clients of one paused sandbox wait for the same resume."""

    async def either(connection: AppConnection) -> None:
        head = await connection.read_head()
        if b"upgrade" in fields_of(head):
            await connection.send(ACCEPTED)
        else:
            await connection.answer(b"plain")

    ready = asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(await stage.app(either), State.PAUSED)
    requests = [box.get(), box.upgrade()] * 5
    waiting = [asyncio.create_task(stage.ask(request)) for request in requests]
    await stage.plane.called("resume")
    ready.set()
    answers = await asyncio.gather(*waiting)
    assert [answer.status for answer in answers] == [200, 101] * 5
    assert stage.plane.counts["resume"] == stage.plane.incarnations[box.id] == 1


@pytest.mark.parametrize("family", [Family.EDGE, Family.PROXY])
async def test_a_real_client_and_a_real_server_talk_through_a_wake(
    stage: Stage, family: Family
) -> None:
    """The websockets package at both ends: subprotocol, compression, big frames, pings, close codes."""
    closed: asyncio.Queue[tuple[int | None, str | None]] = asyncio.Queue()

    async def parrot(connection: ServerConnection) -> None:
        try:
            async for message in connection:
                await connection.send(message)
        except websockets.ConnectionClosed:
            pass  # Any code but 1000 and 1001 ends the loop this way.
        closed.put_nowait((connection.close_code, connection.close_reason))

    async with serve(parrot, "127.0.0.1", 0, subprotocols=["chat"], max_size=None) as server:
        app: Any = SimpleNamespace(port=next(iter(server.sockets)).getsockname()[1])
        box = stage.sandbox(app, State.PAUSED)
        async with dial(stage, box, family) as socket:
            assert socket.subprotocol == "chat"
            for message in ("hello", "ü" * 100_000, b"\x00" * 3_000_000, ""):
                await socket.send(message)
                assert await socket.recv() == message
            await (await socket.ping())
            await socket.close(4321, "enough")
        async with asyncio.timeout(20):
            assert await closed.get() == (4321, "enough")
    assert stage.plane.counts["resume"] == stage.plane.incarnations[box.id] == 1


async def test_a_real_client_sees_the_error_as_an_http_answer(stage: Stage) -> None:
    """A WebSocket client that is refused gets the status, not a broken handshake."""
    box = stage.sandbox(await stage.app(), State.PAUSED, auto_resume=False)
    with pytest.raises(websockets.InvalidStatus) as caught:
        async with dial(stage, box, Family.EDGE):
            pass
    response = caught.value.response
    assert response.status_code == 503 and response.headers["Retry-After"] == "5"
    assert b"sandbox_paused_auto_resume_disabled" in response.body
    assert stage.plane.counts["resume"] == 0


def dial(stage: Stage, box: Preview, family: Family) -> connect:
    """A client of the websockets package, by edge token or by proxy token."""
    token = box.token(family, kind=Transport.WEBSOCKET)
    query, fields = f"edge_token={token}", {}
    if family is Family.PROXY:
        query = "__ns_preview_transport=header"
        fields = {"x-nullspace-preview-proxy-token": token}
    return connect(
        f"ws://{box.host}/ws?{query}",
        host="127.0.0.1",
        port=stage.edge.port,
        subprotocols=["chat"],
        additional_headers=fields,
        max_size=None,
        proxy=None,
    )
