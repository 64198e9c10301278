"""A hop that passes bytes on as they come, ends of either side included, and remembers them all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Self

_HEAD_END = b"\r\n\r\n"


@dataclass
class Stream:
    """What went one way over a connection. ``ended``: its sender said that no more will come."""

    data: bytearray = field(default_factory=bytearray)
    ended: bool = False

    @property
    def head(self) -> bytes:
        """The first head, with its empty line."""
        head, end, _ = bytes(self.data).partition(_HEAD_END)
        assert end, f"no whole head in {head!r}"
        return head + end

    @property
    def rest(self) -> bytes:
        """Everything after the first head."""
        return bytes(self.data.partition(_HEAD_END)[2])


class Link:
    """One connection through a hop: ``up`` went to the server, ``down`` to the client."""

    def __init__(self) -> None:
        self.up = Stream()
        self.down = Stream()

    async def play(
        self, port: int, reader: asyncio.StreamReader, out: asyncio.StreamWriter
    ) -> None:
        """Pass everything on until both sides have ended, or one is gone."""
        there, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(_pass_on(self.up, reader, writer))
                ways.create_task(_pass_on(self.down, there, out))
        except* OSError:
            # An RST on one side becomes one on the other; a FIN to who is gone already says as much.
            writer.transport.abort()
            out.transport.abort()
        finally:
            writer.close()
            out.close()


async def _pass_on(
    stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while data := await reader.read(1 << 18):
        stream.data += data
        writer.write(data)
        await writer.drain()
    stream.ended = True
    if writer.is_closing():  # Nobody is left to be told.
        raise ConnectionResetError
    writer.write_eof()


class Hop:
    """Listens on a port of its own for connections to another one, the ``target``."""

    def __init__(self, target: int = 0) -> None:
        self.links: list[Link] = []
        self.port = 0
        self.target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def finished(self, seconds: float = 20.0) -> list[Link]:
        """The connections since the last time, in order, once all have ended on both sides."""
        async with asyncio.timeout(seconds):
            while self._tasks:
                await asyncio.wait(self._tasks)
        return self.take()

    async def link(self) -> Link:
        """The only connection since the last time, once it has ended."""
        (link,) = await self.finished()
        return link

    def take(self) -> list[Link]:
        """The connections since the last time, in order, ended or not."""
        links, self.links = self.links, []
        return links

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = Link()
        self.links.append(link)
        try:
            await link.play(self.target, reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # The other side refuses, or the test is over.
        finally:
            writer.close()
            self._tasks.discard(task)
