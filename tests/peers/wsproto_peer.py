"""The library `wsproto`, which does no I/O of its own, on plain streams: this peer can half-close."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Message,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from tests.peers.part import Events, Part, Serving, Step, binary, payload

_NO_CODE = 1005
"""In place of a close code: the frame has none (RFC 6455 section 7.4.1)."""


class Wsproto:
    """See `Peer`."""

    @asynccontextmanager
    async def serve(self, part: Part) -> AsyncIterator[Serving]:
        """Play the server."""
        events: asyncio.Future[Events] = asyncio.get_running_loop().create_future()

        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                events.set_result(await _Talk(ConnectionType.SERVER, reader, writer).serve(part))
            except BaseException as e:  # noqa: BLE001 - the test that waits for the events gets it
                events.set_exception(e)
            finally:
                writer.close()

        server = await asyncio.start_server(play, "127.0.0.1", 0)
        try:
            yield Serving(server.sockets[0].getsockname()[1], events)
        finally:
            server.close()

    async def visit(self, part: Part, port: int, host: str, target: str) -> Events:
        """Play the client."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await _Talk(ConnectionType.CLIENT, reader, writer).visit(part, host, target)
        finally:
            writer.close()


class _Talk:
    def __init__(
        self, side: ConnectionType, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._ws = WSConnection(side)
        self._side = side
        self._reader = reader
        self._writer = writer
        self._inbox: deque[Event] = deque()
        self._events: Events = []
        self._ended = False
        self._held = b""

    # --- Handshakes ---------------------------------------------------------------------------------

    async def serve(self, part: Part) -> Events:
        request = await self._next()
        assert isinstance(request, Request)
        if part.refuse is not None:
            status, body = part.refuse
            length = ("Content-Length", str(len(body.encode())))
            fields = [(k.encode(), v.encode()) for k, v in [*part.fields, length]]
            await self._send(RejectConnection(status, fields, has_body=True))
            await self._send(RejectData(body.encode()))
            return [["refused", request.target]]
        wanted = [name for name in part.subprotocols if name in request.subprotocols]
        subprotocol = wanted[0] if wanted else None
        fields = [(k.encode(), v.encode()) for k, v in part.fields]
        accepted = self._ws.send(AcceptConnection(subprotocol, _deflate(part), fields))
        if part.steps[0][0] == "text":
            self._held = accepted  # They go out in one piece: a frame comes right behind the 101.
        else:
            self._writer.write(accepted)
        return [["open", request.target, subprotocol], *await self._play(part.steps)]

    async def visit(self, part: Part, host: str, target: str) -> Events:
        fields = [(k.encode(), v.encode()) for k, v in part.fields]
        await self._send(Request(host, target, _deflate(part), fields, part.subprotocols))
        answer = await self._next()
        if isinstance(answer, RejectConnection):
            body = b""
            while isinstance(data := await self._next(), RejectData):
                body += data.data
                if data.body_finished:
                    break
            return [["refused", answer.status_code, body.decode()]]
        assert isinstance(answer, AcceptConnection)
        cookies = [v.decode() for k, v in answer.extra_headers if k.lower() == b"set-cookie"]
        return [["open", answer.subprotocol, cookies], *await self._play(part.steps)]

    # --- Steps --------------------------------------------------------------------------------------

    async def _play(self, steps: list[Step]) -> Events:
        for word, *args in steps:
            match word:
                case "text":
                    await self._send(TextMessage(args[0]))
                case "binary":
                    await self._send(BytesMessage(payload(args[0])))
                case "fragments":
                    await self._fragments(args[0])
                case "ping":
                    await self._send(Ping(args[0].encode()))
                    pong = await self._next()
                    assert isinstance(pong, Pong) and pong.payload.decode() == args[0]
                case "pong":
                    await self._send(Pong(args[0].encode()))
                case "raw":
                    self._writer.write(bytes.fromhex(args[0]))
                case "get":
                    await self._message()
                case "end":
                    self._writer.write_eof()
                case "eof":
                    assert await self._next() is None
                    self._events.append(["eof"])
                case "close" | "wait" | "drop":
                    await self._closed(word, args)
        return self._events

    async def _fragments(self, parts: list[Any]) -> None:
        last = max(n for n, part in enumerate(parts) if isinstance(part, str))
        for n, part in enumerate(parts):
            if isinstance(part, str):
                await self._send(TextMessage(part, message_finished=n == last))
            else:
                await self._send(Ping(part["ping"].encode()))

    async def _message(self) -> None:
        frames: list[list[Any]] = [[]]
        while True:
            event = await self._next()
            if isinstance(event, Pong):
                continue
            assert isinstance(event, Message), event
            frames[-1].append(event.data)
            if event.message_finished:
                break
            if event.frame_finished:
                frames.append([])
        if isinstance(event, TextMessage):
            self._events.append(["text", ["".join(frame) for frame in frames]])
        else:
            self._events.append(binary([b"".join(frame) for frame in frames]))

    async def _closed(self, word: str, args: list[Any]) -> None:
        if word == "drop":
            self._writer.transport.abort()
            return
        if word == "close":
            code, reason = args
            await self._send(CloseConnection(_NO_CODE if code is None else code, reason))
        told: list[Any] = [1006, ""]
        while (event := await self._next()) is not None:
            if not isinstance(event, CloseConnection):
                continue
            told = [int(event.code), event.reason or ""]
            if self._ws.state is not ConnectionState.CLOSED:  # They closed, or broke the protocol.
                await self._send(event.response())
            if self._side is ConnectionType.SERVER:
                break  # Section 7.1.1: the server closes the connection first.
        self._events.append(["closed", *told])

    # --- Bytes --------------------------------------------------------------------------------------

    async def _send(self, event: Event) -> None:
        self._writer.write(self._held + self._ws.send(event))
        self._held = b""
        await self._writer.drain()

    async def _next(self) -> Event | None:
        """The next event that is no ping; None at the end of the connection."""
        while True:
            while self._inbox:
                event = self._inbox.popleft()
                if isinstance(event, Ping):
                    self._events.append(["ping", bytes(event.payload).decode()])
                    await self._send(event.response())
                    continue
                if isinstance(event, Pong):
                    self._events.append(["pong", bytes(event.payload).decode()])
                return event
            if self._ended:
                return None
            await self._read()

    async def _read(self) -> None:
        try:
            data = await self._reader.read(1 << 18)
        except ConnectionError:
            data = b""
        if not data:
            self._ended = True
            return
        self._ws.receive_data(data)
        self._inbox.extend(self._ws.events())


def _deflate(part: Part) -> list[Any]:
    return [] if part.deflate is None else [PerMessageDeflate(**part.deflate)]
