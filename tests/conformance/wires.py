"""Both ends of the wire: the client's and the app's connections, read exactly, and framing by an own reader."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

PATIENCE = 10.0
"""Seconds until a peer that should have said something is given up. Nothing good takes this long."""


class Wire(asyncio.Protocol):
    """One connection. ``unread``: came and not yet expected; ``ended``: no more will; ``reset``: nor cleanly."""

    def __init__(self, news: asyncio.Event | None = None) -> None:
        self._news = news or asyncio.Event()
        self.unread = b""
        self.ended = False
        self.reset = False
        self.gone = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.unread += data
        self._news.set()

    def eof_received(self) -> bool:
        self.ended = True
        self._news.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.reset = exc is not None
        self.gone.set()
        self._news.set()

    def __repr__(self) -> str:
        return f"<Wire unread={self.unread!r} ended={self.ended}>"

    async def until(self, true: Callable[[], object], what: str) -> None:
        """Wait for something to become true of this wire."""
        await until(self._news, true, lambda: f"{what}; unread: {self.unread!r}")

    async def send(self, data: bytes, piece: int) -> None:
        """Write in pieces of so many bytes, each in a turn of the loop of its own."""
        for at in range(0, len(data), piece):
            if self.transport.is_closing():
                return  # refused before all was said
            self.transport.write(data[at : at + piece])
            await asyncio.sleep(0)

    async def take(self, expected: bytes, what: str) -> None:
        """Exactly these bytes must come next."""

        def known() -> bool:
            so_far = self.unread[: len(expected)]
            return so_far == expected or self.ended or not expected.startswith(so_far)

        await self.until(known, f"{what} waits for {expected!r}")
        got = self.unread[: len(expected)]
        assert got == expected, f"{what} got\n{self.unread!r}\nexpected\n{expected!r}"
        self.unread = self.unread[len(expected) :]

    async def take_message(self, expected: bytes, what: str) -> None:
        """This message must come next; a chunked one may be cut into chunks in any way."""
        head, end, body = expected.partition(b"\r\n\r\n")
        await self.take(head + end, what)
        if not (body and is_chunked(head)):
            await self.take(body, what)
            return
        reader = ChunkReader()

        def whole() -> bool:
            reader.feed(self.unread)
            self.unread = reader.rest
            return reader.done or self.ended

        await self.until(whole, f"{what} waits for the last chunk")
        wanted = ChunkReader()
        wanted.feed(body)
        assert wanted.done, f"the case's own chunks are wrong: {body!r}"
        got = (reader.done, reader.payload, reader.trailers)
        assert got == (True, wanted.payload, wanted.trailers), f"{what} got {got}"

    async def head(self, what: str) -> bytes:
        """The next head, whatever it says, without its empty line."""
        await self.until(
            lambda: b"\r\n\r\n" in self.unread or self.ended, f"{what} waits for a head"
        )
        assert b"\r\n\r\n" in self.unread, f"{what} ended after {self.unread!r}"
        head, _, self.unread = self.unread.partition(b"\r\n\r\n")
        return head

    async def end(self, what: str) -> None:
        """The other side must end the connection without another byte."""
        await self.until(lambda: self.ended or self.unread, f"{what} waits for the end")
        assert not self.unread, f"{what} got more: {self.unread!r}"

    async def close(self) -> None:
        """Let go of it, and wait until it is gone."""
        if not self.gone.is_set():
            self.transport.abort()
            await self.gone.wait()


async def until(news: asyncio.Event, true: Callable[[], object], what: Callable[[], str]) -> None:
    """Wait for something to become true, looking whenever there is news."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not true():
                news.clear()
                await news.wait()
    except TimeoutError:
        raise AssertionError(f"nothing happened: {what()}") from None


def is_chunked(head: bytes) -> bool:
    """Whether a head that the edge wrote says so; it writes the field in one way."""
    return b"\r\ntransfer-encoding: chunked" in head.lower()


class ChunkReader:
    """Reads the chunked coding, strictly and without extensions: the edge must not send any."""

    def __init__(self) -> None:
        self.payload = b""
        self.trailers: list[bytes] = []
        self.done = False
        self.rest = b""
        self._in_trailers = False

    def feed(self, data: bytes) -> None:
        """Read as far as whole chunks go; ``rest`` is what remains, to be fed again."""
        self.rest = data
        while not self.done:
            line, end, after = self.rest.partition(b"\r\n")
            if not end or not (self._in_trailers or self._chunk(line, after)):
                return
            if self._in_trailers:
                self.rest = after
                if line and line != b"0":
                    self.trailers.append(line)
                self.done = not line

    def _chunk(self, line: bytes, after: bytes) -> bool:
        size = int(line, 16)
        assert b"%x" % size == line, f"not how the edge writes a chunk size: {line!r}"
        if size == 0:
            self._in_trailers = True
            return True
        if len(after) < size + 2:
            return False
        assert after[size : size + 2] == b"\r\n", f"a chunk does not end with CR LF: {after!r}"
        self.payload += after[:size]
        self.rest = after[size + 2 :]
        return True


def is_whole(message: bytes) -> bool:
    """Whether these bytes hold a whole message (or more), as its reader would see it."""
    head, end, body = message.partition(b"\r\n\r\n")
    if not end:
        return False
    if is_chunked(head):
        reader = ChunkReader()
        reader.feed(body)
        return reader.done
    return len(body) >= length_of(head)


def length_of(head: bytes) -> int:
    """What Content-Length says, 0 without one."""
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
