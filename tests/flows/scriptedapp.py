"""Apps inside sandboxes: a TCP server whose every connection is played by a small coroutine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Self

from tests.flows.rawclient import reset

HEAD_END = b"\r\n\r\n"


class AppConnection:
    """The app's end of one connection. ``received`` has every byte that came, in order."""

    def __init__(
        self, app: ScriptedApp, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.app = app
        self.received = bytearray()
        self.ended = False
        """Whether the edge has said that it will send no more."""
        self._reader = reader
        self._writer = writer
        self._buffer = bytearray()

    async def _fill(self) -> bool:
        data = await self._reader.read(65536)
        self.received += data
        self.ended = not data
        self._buffer += data
        self.app.notify()
        return bool(data)

    async def read_until(self, end: bytes) -> bytes:
        """Everything up to and with ``end``; empty at a clean end of the connection."""
        while (at := self._buffer.find(end)) < 0:
            if not await self._fill():
                assert not self._buffer, f"the edge stopped in the middle of {self._buffer!r}"
                return b""
        return self._cut(at + len(end))

    async def read_exactly(self, count: int) -> bytes:
        """So many bytes."""
        while len(self._buffer) < count:
            if not await self._fill():
                raise asyncio.IncompleteReadError(bytes(self._buffer), count)
        return self._cut(count)

    async def read_some(self) -> bytes:
        """What has come; waits while that is nothing. Empty when the edge ended its side."""
        if not self._buffer:
            await self._fill()
        return self._cut(len(self._buffer))

    async def read_to_end(self) -> bytes:
        """Everything until the edge ends its side."""
        while await self._fill():
            pass
        return self._cut(len(self._buffer))

    async def read_head(self) -> bytes:
        """The next request's head with its empty line; empty when there is none. It is recorded."""
        head = await self.read_until(HEAD_END)
        if head:
            self.app.requests.append(head)
            self.app.notify()
        return head

    async def read_body(self, head: bytes) -> bytes:
        """The body that goes with a head, chunks joined."""
        fields = fields_of(head)
        if fields.get(b"transfer-encoding") == b"chunked":
            return await self.read_chunks()
        return await self.read_exactly(int(fields.get(b"content-length", b"0")))

    async def read_chunk(self) -> bytes:
        """The next chunk's payload; empty for the last one."""
        size = int((await self.read_until(b"\r\n"))[:-2], 16)
        data = await self.read_exactly(size + 2)
        assert data[size:] == b"\r\n"
        return data[:size]

    async def read_chunks(self) -> bytes:
        """A chunked body without trailers."""
        body = b""
        while chunk := await self.read_chunk():
            body += chunk
        return body

    async def send(self, data: bytes) -> None:
        """Write and wait until there is room for more."""
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self, body: bytes, status: bytes = b"200 OK", fields: bytes = b"") -> None:
        """A whole answer of known length; ``fields`` are further lines, each with its CR LF."""
        await self.send(
            b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, fields, len(body), body)
        )

    def end(self) -> None:
        """Send no more (FIN), still receive."""
        self._writer.write_eof()

    def close(self) -> None:
        """Close the connection."""
        self._writer.close()

    def reset(self) -> None:
        """Drop the connection with a RST."""
        reset(self._writer)

    def _cut(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data


Handler = Callable[[AppConnection], Awaitable[None]]


def fields_of(head: bytes) -> dict[bytes, bytes]:
    """The fields of a head, names in lower case; the last of a repeated one."""
    lines = head.removesuffix(HEAD_END).split(b"\r\n")[1:]
    pairs = (line.split(b":", 1) for line in lines)
    return {name.lower(): value.strip(b" \t") for name, value in pairs}


async def echo_one(connection: AppConnection, head: bytes) -> None:
    """Answer a request with its request line and its body."""
    line = head.split(b"\r\n", 1)[0]
    said = line + b"\n" + await connection.read_body(head)
    if line.startswith(b"HEAD "):
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said))
    else:
        await connection.answer(said)


async def echo(connection: AppConnection) -> None:
    """Answers every request like that."""
    while head := await connection.read_head():
        await echo_one(connection, head)


class ScriptedApp:
    """An app on a port of its own. With ``listening=False`` the port is held but refuses connections.

    ``requests`` are the heads it read, ``played`` its connections in order.
    """

    def __init__(self, handler: Handler = echo, *, listening: bool = True) -> None:
        self._handler = handler
        self._listening = listening
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._gone = False
        self._something = asyncio.Event()
        self.requests: list[bytes] = []
        self.played: list[AppConnection] = []
        # Bound and not listening: the port is ours, and the kernel refuses whoever connects.
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    async def __aenter__(self) -> Self:
        if self._listening:
            await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._socket.close()

    @property
    def connections(self) -> int:
        """Connections accepted so far."""
        return len(self.played)

    async def listen(self) -> None:
        """Begin to accept."""
        self._gone = False
        self._server = await asyncio.start_server(self._connected, sock=self._socket, backlog=1024)

    async def stop(self) -> None:
        """The app is gone: its port refuses, its connections end."""
        self._gone = True
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks)

    async def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until something that came makes ``holds`` true."""
        async with asyncio.timeout(seconds):
            while not holds():
                await self._something.wait()

    def notify(self) -> None:
        """Something came."""
        happened, self._something = self._something, asyncio.Event()
        happened.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._gone:  # It was accepted just before.
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = AppConnection(self, reader, writer)
        self.played.append(connection)
        self.notify()
        try:
            await self._handler(connection)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # The edge hung up, or the test is over.
        finally:
            self._tasks.discard(task)
            writer.close()
