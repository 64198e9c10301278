"""A client on a bare connection: sends bytes as they are, reads answers strictly (RFC 9112)."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

PATIENCE = 30.0
"""Seconds after which what did not come will never come."""

_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) ([\t -~\x80-\xff]*)")
_FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")


@dataclass
class Answer:
    """One answer. ``fields`` are (name, value) as sent; ``interim`` the heads of 1xx before it."""

    head: bytes
    status: int
    reason: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    interim: list[bytes] = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        """The values of every field of that name."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.fields if key.lower() == wanted]

    def value(self, name: str) -> str | None:
        """The value of a field that is there once or not at all."""
        values = self.values(name)
        assert len(values) <= 1, f"{name} is there {len(values)} times"
        return values[0] if values else None

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The error code of a JSON error."""
        return str(self.json["code"])


def parse_head(head: bytes) -> Answer:
    """An answer's head, without body. Raises AssertionError for anything a strict client refuses."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    status = _STATUS_LINE.fullmatch(first)
    assert status, f"not a status line: {first!r}"
    fields = []
    for line in lines:
        match = _FIELD_LINE.fullmatch(line)
        assert match, f"not a field line: {line!r}"
        fields.append((match[1], match[2]))
    return Answer(head, int(status[1]), status[2], fields)


async def _soon(reading: Coroutine[Any, Any, bytes]) -> bytes:
    # A test that waits in vain should fail where it waits.
    async with asyncio.timeout(PATIENCE):
        return await reading


def reset(writer: asyncio.StreamWriter) -> None:
    """Drop a connection with a RST; aborting alone would say FIN, like a peer that still reads."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()


class RawClient:
    """One connection to the edge."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, port: int, host: str = "127.0.0.1") -> Self:
        """Connect."""
        return cls(*await asyncio.open_connection(host, port))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def send(self, data: bytes) -> None:
        """Write, and wait until there is room for more."""
        self.writer.write(data)
        await self.writer.drain()

    def end(self) -> None:
        """Send no more (FIN), still receive."""
        self.writer.write_eof()

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()

    def reset(self) -> None:
        """Drop the connection with a RST."""
        reset(self.writer)

    async def ask(self, data: bytes) -> Answer:
        """Send a request and read its answer."""
        await self.send(data)
        return await self.answer(data.split(b" ", 1)[0])

    async def answer(self, method: bytes = b"GET") -> Answer:
        """The next final answer with its body; 1xx heads before it are kept beside it."""
        interim: list[bytes] = []
        while True:
            answer = await self.head()
            if answer.status >= 200 or answer.status == 101:
                break
            interim.append(answer.head)
        answer.interim = interim
        if method != b"HEAD" and answer.status not in (101, 204, 304):
            answer.body = await self._body(answer)
        return answer

    async def head(self) -> Answer:
        """The next head alone, final or not."""
        return parse_head(await _soon(self.reader.readuntil(b"\r\n\r\n")))

    async def chunk(self) -> bytes:
        """The next chunk of a chunked body; empty for the last (which must have no trailers)."""
        size = _CHUNK_SIZE.fullmatch(await _soon(self.reader.readuntil(b"\r\n")))
        assert size, "not a chunk size"
        data = await _soon(self.reader.readexactly(int(size[1], 16) + 2))
        assert data.endswith(b"\r\n"), "a chunk is longer than its size"
        return data[:-2]

    async def exactly(self, count: int) -> bytes:
        """So many bytes."""
        return await _soon(self.reader.readexactly(count))

    async def rest(self) -> bytes:
        """Everything until the edge closes."""
        return await _soon(self.reader.read())

    async def at_end(self) -> bool:
        """Whether the edge closed without another byte."""
        try:
            return await _soon(self.reader.read(1)) == b""
        except ConnectionError:  # a reset is an end, too
            return True

    async def _body(self, answer: Answer) -> bytes:
        lengths, codings = answer.values("content-length"), answer.values("transfer-encoding")
        assert len(lengths) + len(codings) <= 1, "ambiguous framing"
        if codings:
            assert codings == ["chunked"]
            body = b""
            while chunk := await self.chunk():
                body += chunk
            return body
        if lengths:
            return await _soon(self.reader.readexactly(int(lengths[0])))
        return await _soon(self.reader.read())
