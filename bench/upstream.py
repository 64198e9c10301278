"""The app behind the proxies where nginx cannot play it: bodies, sockets, and the time of a first byte.

``python -m bench.upstream`` prints ``{"port": N}``. All paths below ``/live/``::

    GET  /live/now       16 digits: CLOCK_MONOTONIC in nanoseconds when the request's first byte came
    POST /live/count     16 digits: bytes of the body that came
    GET  /live/bytes/N   N bytes
    GET  /live/ws        after the 101, one `SERVER_FRAME` for every `CLIENT_FRAME`
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import cast

import uvloop

CLIENT_FRAME = bytes([0x82, 0x80 | 32]) + b"\1\2\3\4" + bytes(32)
"""A binary WebSocket frame as a client sends it: 32 bytes, masked (RFC 6455 section 5.2)."""
SERVER_FRAME = bytes([0x82, 32]) + b"echo of thirty-two bytes, always"
"""A binary frame as a server sends it: 32 bytes, not masked."""

_BLOCK = bytes(65536)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class App(asyncio.Protocol):
    """One connection. Requests come one at a time; only as much HTTP as the bench speaks."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._head = b""
        self._arrived = 0
        self._counted = 0
        self._body_left = 0
        self._to_send = 0
        self._tunnel = False
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._tunnel:
            self._echo(data)
        elif self._body_left:
            self._body(len(data))
        else:
            self._arrived = self._arrived if self._head else time.monotonic_ns()
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end >= 0:
                head, rest = self._head[: end + 2], self._head[end + 4 :]
                self._head = b""
                self._request(head, rest)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._stream()

    def _request(self, head: bytes, rest: bytes) -> None:
        path = head.split(b" ", 2)[1].partition(b"?")[0]
        if path == b"/live/ws":
            self._tunnel = True
            self._transport.write(_SWITCH)
            self._echo(rest)
        elif path.startswith(b"/live/bytes/"):
            self._to_send = int(path.rpartition(b"/")[2])
            self._transport.write(_answer_head(self._to_send))
            self._stream()
        elif path == b"/live/count":
            length = _LENGTH.search(head)
            self._counted = self._body_left = int(length[1]) if length else 0
            self._body(len(rest))
        else:
            self._say(self._arrived)

    def _body(self, size: int) -> None:
        self._body_left -= size
        if self._body_left <= 0:
            # A body that is too long would show as a wrong count.
            self._say(self._counted - self._body_left)
            self._body_left = 0

    def _say(self, number: int) -> None:
        self._transport.write(_answer_head(16) + b"%016d" % number)

    def _stream(self) -> None:
        while self._to_send and not self._paused:
            size = min(self._to_send, len(_BLOCK))
            self._to_send -= size
            self._transport.write(_BLOCK[:size])

    def _echo(self, data: bytes) -> None:
        data = self._head + data
        count, left = divmod(len(data), len(CLIENT_FRAME))
        if data[: count * len(CLIENT_FRAME)] != CLIENT_FRAME * count:
            self._transport.abort()
            return
        self._head = data[len(data) - left :]
        if count:
            self._transport.write(SERVER_FRAME * count)


def _answer_head(length: int) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"
    ) % length


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", 0, backlog=1024)
    print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
