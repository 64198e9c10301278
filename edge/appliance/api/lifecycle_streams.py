"""Streams of lifecycle events: two WebSockets, of all sandboxes and of one.

The client says first what it wants (``subscribe``), the server what it understood (``subscribed``); then
come events until somebody leaves. An ``error`` frame is the server's last word: the published client does
not come back after one. After any other end it does, with the last event it saw, so whatever is not the
client's mistake (a connection that is cut, a restart of ours) is no error.
"""

from __future__ import annotations

import asyncio
import json
import socket as sockets
import sys
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from aiohttp import WSCloseCode, WSMessage, WSMsgType, web
from aiohttp.abc import AbstractStreamWriter

from edge.appliance.api.http import parts, query
from edge.appliance.api.lifecycle import known_sandbox
from edge.appliance.events import EventLog, LifecycleEvent
from edge.appliance.problems import invalid
from edge.appliance.subscription import (
    TOO_SLOW,
    Reader,
    StreamError,
    Subscription,
    read_subscription,
)
from edge.appliance.tasks import Scope
from edge.appliance.views import event_view

SUBSCRIBE = 10.0
"""Seconds a client may take for its first frame."""

PING = 15.0
"""Seconds between pings; whoever has missed two when the next one is due is gone."""

STALL = 25.0
"""Seconds in which a client has to take something of what waits for it: less than two pings, so that a
reader that is alive and too slow hears so."""

LINGER = 5.0
"""Seconds a client may take to hear the end."""

MAX_FRAME = 64 * 1024
"""Bytes of a frame of a client."""

HARD_LIMIT = 1 << 20
"""Bytes of a frame beyond which the WebSocket is closed unread (1009), without a word."""

SEND_BUFFER = 64 * 1024
"""Bytes the kernel holds for a client: what is not taken yet stays in the log."""


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a stream ends: with an error frame, or with a close code alone."""

    code: int
    error: str | None = None


_GONE = _Ending(WSCloseCode.OK)
_SILENT = _Ending(WSCloseCode.INTERNAL_ERROR)  # as clients' libraries close for a missing pong
_CRASHED = _Ending(WSCloseCode.INTERNAL_ERROR)
_GOING_AWAY = _Ending(WSCloseCode.GOING_AWAY)


async def all_events(request: web.Request) -> web.WebSocketResponse:
    """``GET /v1/lifecycle/ws``: of all sandboxes."""
    return await _stream(request, None)


async def sandbox_events(request: web.Request) -> web.WebSocketResponse:
    """``GET S/lifecycle/ws``: of one sandbox, also after it was destroyed."""
    return await _stream(request, known_sandbox(request))


async def _stream(request: web.Request, sandbox_id: str | None) -> web.WebSocketResponse:
    query(request)
    the_parts = parts(request)
    socket = web.WebSocketResponse(
        timeout=LINGER,
        autoping=False,
        compress=False,
        max_msg_size=HARD_LIMIT,
        writer_limit=sys.maxsize,
    )
    if not socket.can_prepare(request).ok:
        raise invalid("This is a WebSocket; ask for an upgrade.")
    with the_parts.lifecycle_streams.taken():
        out = _Out(socket, await socket.prepare(request), request.transport)
        talk = _Talk(socket, out, the_parts.events, sandbox_id)
        await out.end(await _until_end(the_parts.scope, talk))
    return socket


async def _until_end(scope: Scope, talk: _Talk) -> _Ending:
    """Let the sides of a talk run until the first of them ends."""
    try:
        tasks = [
            scope.spawn(_ending(side()), name=f"lifecycle stream, {side.__name__}")
            for side in (talk.listen, talk.tell, talk.ping)
        ]
    except RuntimeError:
        return _GOING_AWAY
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if all(task.cancelled() for task in tasks):
        return _GOING_AWAY  # by the scope
    ends = [one.result() for one in tasks if not one.cancelled() and one.exception() is None]
    return next((end for end in ends if end.error is not None), ends[0] if ends else _CRASHED)


async def _ending(side: Coroutine[Any, Any, _Ending]) -> _Ending:
    try:
        return await side
    except StreamError as e:
        return _Ending(WSCloseCode.POLICY_VIOLATION, str(e))
    except ConnectionError:
        return _GONE


class _Out:
    """What goes to the client. What a slow one has not taken waits in the log, not in buffers."""

    def __init__(
        self,
        socket: web.WebSocketResponse,
        writer: AbstractStreamWriter,
        transport: asyncio.Transport | None,
    ) -> None:
        self._socket = socket
        self._writer = writer
        if transport is None:
            raise ConnectionResetError("the client is gone")
        self._transport = transport
        transport.set_write_buffer_limits(high=0)
        raw = transport.get_extra_info("socket")
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_SNDBUF, SEND_BUFFER)

    async def frame(self, document: dict[str, object]) -> None:
        """Send JSON. Raises `StreamError` when the client does not take it, ConnectionError without one."""
        await self.taken(self._socket.send_str(_frame(document)))

    async def taken(self, sending: Coroutine[Any, Any, None]) -> None:
        """Send, and wait until the kernel has taken it. Raises as `frame` does."""
        # Into the transport's buffer, whole: the socket has no limit at which it would wait.
        await sending
        try:
            async with asyncio.timeout(STALL):
                # A drain that is cancelled makes aiohttp's next one look cancelled, too: `end` has none.
                await self._writer.drain()
        except TimeoutError:
            raise StreamError(TOO_SLOW) from None

    async def end(self, ending: _Ending) -> None:
        """Say how it ends; who does not listen is cut off."""
        try:
            async with asyncio.timeout(LINGER):
                if ending.error is not None:
                    await self._socket.send_str(_frame({"type": "error", "message": ending.error}))
                await self._socket.close(code=ending.code, drain=False)
        except (TimeoutError, ConnectionError):
            pass
        finally:
            # By itself, a transport that is closed waits for ever for a client that takes nothing.
            if self._transport.get_write_buffer_size():
                self._transport.abort()


class _Talk:
    """One client's conversation. Its sides run at once; the first that ends, ends it."""

    def __init__(
        self, socket: web.WebSocketResponse, out: _Out, log: EventLog, sandbox_id: str | None
    ) -> None:
        self._socket = socket
        self._out = out
        self._log = log
        self._sandbox_id = sandbox_id
        self._asked: asyncio.Future[Subscription] = asyncio.get_running_loop().create_future()
        self._unanswered = 0

    async def listen(self) -> _Ending:
        """Read what the client says: one subscription, pings and pongs, its leave."""
        while True:
            message = await self._socket.receive()
            self._unanswered = 0
            match message.type:
                case WSMsgType.TEXT | WSMsgType.BINARY:
                    self._take(message)
                case WSMsgType.PING:
                    await self._out.taken(self._socket.pong(message.data))
                case WSMsgType.PONG:
                    pass
                case _:
                    return _GONE

    async def tell(self) -> _Ending:
        """Hear what is asked for, then send event after event."""
        try:
            async with asyncio.timeout(SUBSCRIBE):
                wanted = await self._asked
        except TimeoutError:
            raise StreamError(f"No subscribe came within {SUBSCRIBE:g} seconds.") from None
        reader = Reader(self._log, wanted)
        await reader.start()
        await self._out.frame(wanted.answer())
        await reader.follow(self._send_event)
        return _GONE

    async def ping(self) -> _Ending:
        """Notice a client that is gone without a word."""
        while True:
            await asyncio.sleep(PING)
            if self._unanswered >= 2:
                return _SILENT
            self._unanswered += 1
            await self._out.taken(self._socket.ping())

    def _take(self, message: WSMessage) -> None:
        if message.type is WSMsgType.BINARY:
            raise StreamError("The frame is not text.")
        if len(message.data.encode()) > MAX_FRAME:
            raise StreamError(f"The frame is too large; {MAX_FRAME} bytes are the most.")
        if self._asked.done():
            raise StreamError("Nothing is expected after subscribe.")
        self._asked.set_result(read_subscription(message.data, self._sandbox_id))

    async def _send_event(self, event: LifecycleEvent) -> None:
        await self._out.frame({"type": "event", "event": event_view(event)})


def _frame(document: dict[str, object]) -> str:
    return json.dumps(document, separators=(",", ":"))


ROUTES = [
    ("GET", "/v1/lifecycle/ws", all_events),
    ("GET", "/v1/sandboxes/{sandbox}/lifecycle/ws", sandbox_events),
]
