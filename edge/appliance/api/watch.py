"""``WS S/ws`` without a channel: watching a directory for the published client.

The client says once what to watch; every change is a frame. Watching is no activity: it neither keeps
a sandbox from pausing nor ends with a pause, during which nothing changes.
"""

from __future__ import annotations

import asyncio
import json
import time

from aiohttp import WSMsgType, web

from edge.appliance.api.http import parts, sandbox_id
from edge.appliance.api.places import shown_root
from edge.appliance.bodies import parse
from edge.appliance.file_requests import FileWatch
from edge.appliance.problems import ApiError, invalid
from edge.appliance.runtime import RuntimeFault
from edge.appliance.runtime.watch import Seen, changes, look

PING = 15.0
FIRST = 10.0
"""Seconds in which the client says what to watch."""

PAUSE = 0.1
"""Seconds between two looks, at least."""

SHARE = 20
"""A look may take one part in so many of the time."""

GRACE = 5.0
"""Seconds after its own time limit that the client gets to hang up first."""


async def watch(request: web.Request) -> web.StreamResponse:
    """One ``file_watch`` per socket."""
    async with parts(request).sandboxes.use(sandbox_id(request)) as sandbox:
        socket = web.WebSocketResponse(heartbeat=PING, timeout=1, max_msg_size=1 << 16)
        if not socket.can_prepare(request).ok:
            raise invalid("This is a WebSocket; ask for an upgrade.")
        await socket.prepare(request)
    watch_id = None
    try:
        wanted = parse(FileWatch, (await socket.receive_str(timeout=FIRST)).encode())
        watch_id = wanted.id
        await _Watch(request, socket, sandbox.id, wanted).run()
    except (ApiError, RuntimeFault) as e:
        text = (e.message or e.problem.message) if isinstance(e, ApiError) else str(e)
        await _send(socket, type="error", id=watch_id, message=text)
    except (TimeoutError, TypeError, ConnectionError):
        pass  # It said nothing, or nothing that is text, or is gone.
    await socket.close()
    return socket


class _Watch:
    def __init__(
        self, request: web.Request, socket: web.WebSocketResponse, sandbox: str, wanted: FileWatch
    ) -> None:
        self._request = request
        self._runtime = parts(request).runtime
        self._socket = socket
        self._sandbox = sandbox
        self._wanted = wanted
        self._pause = PAUSE

    async def run(self) -> None:
        """Until the client leaves, its time is over, or there is nothing to watch any more."""
        limit = self._wanted.timeout_secs
        seen = await self._look()
        await self._tell("file_watch_started")
        try:
            async with asyncio.timeout(None if limit is None else limit + GRACE):
                while await self._listening():
                    now = await self._look()
                    for change in changes(seen, now):
                        await self._tell(
                            "file_event", event=change.event, name=change.name, path=change.path
                        )
                    seen = now
        except TimeoutError:
            pass

    async def _look(self) -> dict[str, Seen]:
        path, recursive = shown_root(self._request, self._wanted.path), self._wanted.recursive
        begun = time.monotonic()
        seen = await self._runtime.files(
            self._sandbox, lambda tree: look(tree, path, recursive=recursive)
        )
        self._pause = max(PAUSE, SHARE * (time.monotonic() - begun))
        return seen

    async def _listening(self) -> bool:
        """Wait until the next look is due; False when the client left meanwhile."""
        due = time.monotonic() + self._pause
        while (left := due - time.monotonic()) > 0:
            try:
                message = await self._socket.receive(timeout=left)
            except TimeoutError:
                break
            if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                return False
        return True

    async def _tell(self, kind: str, **more: str) -> None:
        await _send(self._socket, type=kind, id=self._wanted.id, **more)


async def _send(socket: web.WebSocketResponse, **message: str | None) -> None:
    try:
        await socket.send_str(json.dumps(message))
    except ConnectionError:
        pass  # The client is gone, as the next read will tell.
