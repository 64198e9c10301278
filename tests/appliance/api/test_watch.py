"""Watching a directory over a WebSocket, as the published client does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType, WSServerHandshakeError
from service import KEY, PAUSES, Service

HEADERS = {"Authorization": f"Bearer {KEY}"}


class Socket:
    """A watch under way."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket

    async def next(self) -> dict[str, Any]:
        """The next frame."""
        return json.loads(await self.socket.receive_str(timeout=20))

    async def closed(self) -> bool:
        """Whether nothing but the end comes."""
        message = await self.socket.receive(timeout=20)
        return message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED)


async def _watch(service: Service, sandbox: str, **said: object) -> Socket:
    socket = await service.session.ws_connect(f"/v1/sandboxes/{sandbox}/ws", headers=HEADERS)
    message = {"type": "file_watch", "id": "w1", "path": "/", "user": None, "recursive": False}
    await socket.send_str(json.dumps(message | {"timeout_secs": None} | said))
    return Socket(socket)


async def _write(service: Service, sandbox: str, path: str, content: str = "") -> None:
    body = {"path": path, "content": content}
    assert (await service.api("POST", f"/v1/sandboxes/{sandbox}/files/write", body))[0] == 200


async def test_changes_are_told(service: Service) -> None:
    """From the moment it has begun, in order, with the watch's own id and paths of the tree."""
    sandbox = await service.create()
    await _write(service, sandbox, "d/old")
    watch = await _watch(service, sandbox, path="d", recursive=True)
    assert await watch.next() == {"type": "file_watch_started", "id": "w1"}
    await _write(service, sandbox, "d/sub/new")
    frame = {"type": "file_event", "id": "w1", "event": "create"}
    assert await watch.next() == frame | {"name": "sub", "path": "/workspace/d/sub"}
    assert await watch.next() == frame | {"name": "sub/new", "path": "/workspace/d/sub/new"}
    await _write(service, sandbox, "d/old", "x")
    assert (await watch.next())["event"] == "write"
    await service.api("POST", f"/v1/sandboxes/{sandbox}/exec", {"command": "rm", "args": ["d/old"]})
    assert await watch.next() == frame | {
        "event": "remove",
        "name": "old",
        "path": "/workspace/d/old",
    }
    await watch.socket.close()


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"path": "none"}, "none does not exist."),
        ({"path": "../x"}, "../x leads out of /workspace."),
        ({"path": "file"}, "file: not a directory."),
    ],
)
async def test_what_cannot_be_watched(service: Service, said: dict[str, Any], message: str) -> None:
    """Is an error with the watch's id, and the end."""
    sandbox = await service.create()
    await _write(service, sandbox, "file")
    watch = await _watch(service, sandbox, **said)
    assert await watch.next() == {"type": "error", "id": "w1", "message": message}
    assert await watch.closed()


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"type":"file_watch","id":"w"}', '{"type":"exec_start"}']
)
async def test_what_is_no_request_to_watch(service: Service, text: str) -> None:
    """Is an error, and the end; as is a frame that is no text."""
    path = f"/v1/sandboxes/{await service.create()}/ws"
    async with service.session.ws_connect(path, headers=HEADERS) as socket:
        await socket.send_str(text)
        assert (await Socket(socket).next())["type"] == "error"
        assert await Socket(socket).closed()
    async with service.session.ws_connect(path, headers=HEADERS) as socket:
        await socket.send_bytes(b"x")
        assert await Socket(socket).closed()


async def test_a_watch_ends_with_what_it_watches(service: Service) -> None:
    """A directory that goes, and a sandbox that goes, end it with an error."""
    sandbox = await service.create()
    await _write(service, sandbox, "d/x")
    gone, whole = await _watch(service, sandbox, path="d"), await _watch(service, sandbox)
    for watch in (gone, whole):
        assert (await watch.next())["type"] == "file_watch_started"
    await service.api("POST", f"/v1/sandboxes/{sandbox}/files/remove", {"path": "d"})
    assert (await gone.next())["message"] == "d does not exist."
    assert (await whole.next())["event"] == "remove"
    await service.api("DELETE", f"/v1/sandboxes/{sandbox}")
    while (frame := await whole.next())["type"] != "error":
        pass
    assert await whole.closed() and await gone.closed(), frame


async def test_refusals_come_before_the_upgrade(service: Service) -> None:
    """No key, no sandbox, a paused one that does not resume by itself, other channels; one that does resumes."""
    paused = await service.create(timeout_action="hibernate")
    await service.api("POST", f"/v1/sandboxes/{paused}/hibernate")
    for path, headers, status in (
        (f"{paused}/ws", {}, 401),
        ("sb_none0000/ws", HEADERS, 404),
        (f"{paused}/ws", HEADERS, 409),
        (f"{paused}/ws?channel=pty", HEADERS, 501),
    ):
        with pytest.raises(WSServerHandshakeError) as refused:
            await service.session.ws_connect(f"/v1/sandboxes/{path}", headers=headers)
        assert refused.value.status == status
    sandbox = await service.create(**PAUSES)
    assert (await service.api("GET", f"/v1/sandboxes/{sandbox}/ws"))[0] == 400
    await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
    watch = await _watch(service, sandbox)
    assert (await watch.next())["type"] == "file_watch_started"
    assert (await service.api("GET", f"/v1/sandboxes/{sandbox}"))[1]["status"] == "running"
    await watch.socket.close()
