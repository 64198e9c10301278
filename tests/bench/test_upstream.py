"""The app behind the proxies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from bench.upstream import App


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """The app, listening."""
    server = await asyncio.get_running_loop().create_server(App, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def ask(port: int, request: bytes) -> bytes:
    """The body of the answer to one request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    body = await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()
    return body


async def test_the_time_of_the_first_byte(port: int) -> None:
    """It lies between asking and knowing, on the clock all processes of a machine share."""
    before = time.monotonic_ns()
    told = int(await ask(port, b"GET /live/now HTTP/1.1\r\nHost: x\r\n\r\n"))
    assert before < told < time.monotonic_ns()


async def test_bodies_of_any_size_come_whole(port: int) -> None:
    """More than any buffer holds arrives, so the app resumes after a full one."""
    size = 5_000_000
    body = await ask(port, b"GET /live/bytes/%d HTTP/1.1\r\nHost: x\r\n\r\n" % size)
    assert len(body) == size


async def test_uploads_are_counted(port: int) -> None:
    """The number told is the number of bytes that came."""
    size = 300_000
    head = b"POST /live/count HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    assert int(await ask(port, head + bytes(size))) == size
