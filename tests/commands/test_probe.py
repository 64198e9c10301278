"""Asking a running edge whether it is alive."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from edge.commands import probe
from edge.commands.probe import alive


@asynccontextmanager
async def admin(
    answer: bytes | None, host: str = "127.0.0.1"
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Something that listens: it reads a head, keeps its first line, answers (None = never)."""
    asked: list[bytes] = []
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")[0])
        if answer is None:
            await over.wait()
        else:
            writer.write(answer)
        writer.close()
        await writer.wait_closed()
        done.set()

    done = asyncio.Event()
    server = await asyncio.start_server(serve, host, 0)
    try:
        yield server.sockets[0].getsockname()[1], asked
    finally:
        over.set()
        server.close()
        await asyncio.wait_for(done.wait(), 10)


Ask = Callable[[str, int], Awaitable[str | None]]


async def ask(host: str, port: int) -> str | None:
    """`alive` blocks, so it has a thread here."""
    return await asyncio.to_thread(alive, host, port)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", ""])
async def test_200_is_alive(host: str) -> None:
    """An address that means all of them is asked on this machine."""
    async with admin(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as (port, asked):
        assert await ask(host, port) is None
        assert asked == [b"GET /healthz HTTP/1.1"]


async def test_another_status_is_not() -> None:
    """It answers, but not that it is alive."""
    async with admin(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n") as (port, _):
        assert await ask("127.0.0.1", port) == "the admin listener answered 500"


@pytest.mark.parametrize(
    "answer", [b"SSH-2.0-x\r\n\r\n", b"", None], ids=["noise", "end", "silence"]
)
async def test_what_is_no_answer(answer: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else listens there, or it hangs: one line, in bounded time."""
    monkeypatch.setattr(probe, "TIMEOUT", 0.2)
    async with admin(answer) as (port, _):
        said = await ask("127.0.0.1", port)
    assert said is not None and "\n" not in said
    assert said.startswith(f"no answer from the admin listener on 127.0.0.1:{port}: ")


async def test_nobody_there() -> None:
    """A port that refuses is said to do so."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        said = await ask("127.0.0.1", held.getsockname()[1])
    assert said is not None and "refused" in said
