"""``S/ws?channel=exec``: a command whose output is told while it runs; one command a socket.

The client's first frame starts a command (``exec_start``) or follows one that was started before
(``exec_connect``). It hears ``exec_started``, any number of ``exec_stdout`` and ``exec_stderr``, and at
last ``exec_exit`` or ``error``: the socket is never closed without one of these two, unless the client
is gone or takes nothing. Frames are JSON; output is text, decoded as it comes.

The command does not depend on its socket: when that closes, it runs on.
"""

from __future__ import annotations

import asyncio
import codecs
import json
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from edge.appliance.api.exec import command_of
from edge.appliance.api.faults import told
from edge.appliance.api.http import MAX_JSON, parts, sandbox_id
from edge.appliance.bodies import parse
from edge.appliance.parts import Parts
from edge.appliance.problems import (
    INTERNAL_ERROR,
    PAYLOAD_TOO_LARGE,
    QUOTA_EXCEEDED,
    RUNTIME_LOST,
    ApiError,
    invalid,
)
from edge.appliance.requests import ExecConnect, ExecStart, Frame, Stdin
from edge.appliance.runtime import Stream
from edge.appliance.views import Json
from edge.core.errors import Blame

MAX_STREAMS = 64
"""Streams of one sandbox that are open at once."""

OPENING = 10.0
"""Seconds a client has for its first frame."""

PATIENCE = 60.0
"""Seconds a client may take nothing of what it is sent. The command waits for it that long, too."""

_LARGEST = 4 * MAX_JSON
"""Bytes of a frame that can still be refused with an error; beyond, WebSocket itself refuses (1009)."""

_OUTPUT = ("exec_stdout", "exec_stderr")
_GONE = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR)


class _ClientGone(Exception):
    """Nobody is left who could be told anything."""


async def connect(request: web.Request) -> web.WebSocketResponse:
    """``GET S/ws?channel=exec``. What can be refused before the upgrade is refused with a status."""
    socket = web.WebSocketResponse(timeout=PATIENCE, max_msg_size=_LARGEST, compress=False)
    if not socket.can_prepare(request).ok:
        raise invalid("This is a WebSocket; ask for an upgrade.")
    the_parts = parts(request)
    sandbox = the_parts.sandboxes.get(sandbox_id(request)).id
    with _counted(the_parts, sandbox):
        session = _Session(the_parts, sandbox, socket)
        # The sandbox is in use as long as the command is followed, and not while the socket closes.
        async with the_parts.sandboxes.use(sandbox):
            await socket.prepare(request)
            last = await session.run()
        if last is not None:
            await session.close(last)
        transport = request.transport
        if transport is not None and (session.stalled or transport.get_write_buffer_size()):
            # What is not sent by now must not wait for ever for somebody who takes nothing.
            transport.abort()
    return socket


class _Session:
    """One socket, from the client's first frame to the last that it is sent.

    ``stalled``: the client took nothing for `PATIENCE`.
    """

    def __init__(self, the_parts: Parts, sandbox: str, socket: web.WebSocketResponse) -> None:
        self.stalled = False
        self._parts = the_parts
        self._sandbox = sandbox
        self._socket = socket
        self._id: str | None = None
        self._code = WSCloseCode.OK

    async def run(self) -> Json | None:
        """Everything but the last frame, which is returned; None when the client is gone."""
        try:
            stream = await self._open()
            try:
                return await self._follow(stream)
            finally:
                stream.close()
        except ApiError as e:
            return self._error(e)
        except _ClientGone:
            return None
        except Exception as e:  # noqa: BLE001 - after the upgrade only a frame can tell the client
            self._parts.log("internal_error", sandbox=self._sandbox, error=repr(e))
            return self._error(ApiError(INTERNAL_ERROR))

    async def close(self, last: Json) -> None:
        """Send the last frame, and close."""
        try:
            await self._send(last)
            async with asyncio.timeout(PATIENCE):
                # A drain that was cancelled makes aiohttp's next one look cancelled, too, and us with it.
                await self._socket.close(code=self._code, drain=False)
        except _ClientGone:
            pass
        except TimeoutError:
            self.stalled = True

    async def _open(self) -> Stream:
        """Start or find the command. Raises `ApiError`, `_ClientGone`."""
        try:
            async with asyncio.timeout(OPENING):
                body = await self._hear()
        except TimeoutError:
            raise invalid(f"No frame came within {OPENING:g} seconds.") from None
        opening = parse(Frame, body)
        self._id = opening.id
        # An ordered pause may have come since the upgrade.
        async with self._parts.sandboxes.use(self._sandbox):
            with told():
                match opening.type:
                    case "exec_start":
                        command = command_of(parse(ExecStart, body))
                        return await self._parts.runtime.stream(self._sandbox, command)
                    case "exec_connect":
                        pid = parse(ExecConnect, body).pid
                        return self._parts.runtime.attach(self._sandbox, pid)
                    case _:
                        raise invalid("type: the first frame is exec_start or exec_connect")

    async def _follow(self, stream: Stream) -> Json | None:
        """Output one way, input the other, until one of both ends."""
        scope = self._parts.scope
        telling, hearing = tasks = [
            scope.spawn(_unless_gone(side), name=f"stream {self._sandbox}")
            for side in (self._tell(stream), self._obey(stream))
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over = telling if telling.done() else hearing
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        if over.cancelled():
            raise ApiError(RUNTIME_LOST, "The control plane is shutting down.")
        return over.result()

    async def _tell(self, stream: Stream) -> Json:
        await self._say("exec_started", pid=stream.pid)
        decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in _OUTPUT]
        while (piece := await stream.take()) is not None:
            which, data = piece
            if text := decoders[which].decode(data):
                await self._say(_OUTPUT[which], data=text)
        for kind, decoder in zip(_OUTPUT, decoders, strict=True):
            if text := decoder.decode(b"", final=True):
                await self._say(kind, data=text)
        with told():
            return self._frame("exec_exit", exit_code=stream.result())

    async def _obey(self, stream: Stream) -> Json:
        """What the client sends meanwhile. What cannot be done ends the stream, and not the command."""
        runtime = self._parts.runtime
        while True:
            body = await self._hear()
            kind = parse(Frame, body).type
            data = parse(Stdin, body).content if kind == "exec_stdin" else b""
            async with self._parts.sandboxes.use(self._sandbox):
                with told():
                    match kind:
                        case "exec_stdin":
                            runtime.write_stdin(self._sandbox, stream.pid, data)
                        case "exec_kill":
                            await runtime.kill(self._sandbox, stream.pid)
                        case _:
                            raise invalid("type: exec_stdin or exec_kill, once it has started")

    async def _hear(self) -> bytes:
        """The client's next frame. Raises `ApiError` (payload_too_large, invalid_request)."""
        message = await self._socket.receive()
        if message.type in _GONE:
            raise _ClientGone
        if message.type is not WSMsgType.TEXT:
            raise invalid("Frames are text: JSON objects.")
        body: bytes = message.data.encode("utf-8")
        if len(body) > MAX_JSON:
            raise ApiError(PAYLOAD_TOO_LARGE, details={"limit": MAX_JSON})
        return body

    async def _say(self, kind: str, **what: object) -> None:
        await self._send(self._frame(kind, **what))

    async def _send(self, frame: Json) -> None:
        """Raises `_ClientGone`."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._socket.send_str(json.dumps(frame, separators=(",", ":")))
        except ConnectionError:
            raise _ClientGone from None
        except TimeoutError:
            self.stalled = True
            raise _ClientGone from None

    def _frame(self, kind: str, **what: object) -> Json:
        return {"type": kind, **({} if self._id is None else {"id": self._id}), **what}

    def _error(self, error: ApiError) -> Json:
        problem = error.problem
        ours = problem.blame is not Blame.CLIENT
        self._code = WSCloseCode.INTERNAL_ERROR if ours else WSCloseCode.POLICY_VIOLATION
        more: Json = {"details": dict(error.details)} if error.details else {}
        return self._frame(
            "error",
            code=problem.code,
            message=error.message or problem.message,
            retryable=problem.retryable,
            **more,
        )


@contextmanager
def _counted(the_parts: Parts, sandbox: str) -> Iterator[None]:
    """Raises `ApiError` (quota_exceeded)."""
    if the_parts.streams[sandbox] >= MAX_STREAMS:
        raise ApiError(QUOTA_EXCEEDED, details={"limit": MAX_STREAMS})
    the_parts.streams[sandbox] += 1
    try:
        yield
    finally:
        the_parts.streams[sandbox] -= 1
        if not the_parts.streams[sandbox]:
            del the_parts.streams[sandbox]


async def _unless_gone(side: Coroutine[Any, Any, Json]) -> Json | None:
    # A client that leaves is no crash of the task that notices.
    try:
        return await side
    except _ClientGone:
        return None
