"""Ends of a connection: an answer on its way survives what the client still sends, and a reset shows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import pytest

from edge.traffic.closing import linger, reset
from tests.flows.rawclient import RawClient


class Served(asyncio.Protocol):
    """The server's side of the one connection of a test."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport
        self.connected = asyncio.Event()
        self.lost: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of it.
        self.transport = cast(asyncio.Transport, transport)
        self.connected.set()

    def data_received(self, data: bytes) -> None:
        raise AssertionError("nobody listens any more")


Connect = Callable[[], Awaitable[tuple[RawClient, Served]]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Make the two sides of a connection."""
    served = Served()
    server = await asyncio.get_running_loop().create_server(lambda: served, "127.0.0.1", 0)
    clients: list[RawClient] = []

    async def both() -> tuple[RawClient, Served]:
        clients.append(await RawClient.open(server.sockets[0].getsockname()[1]))
        await served.connected.wait()
        return clients[0], served

    yield both
    for client in clients:
        client.close()
    server.close()


async def test_a_lingering_connection_reads_on_until_the_client_closes(connect: Connect) -> None:
    """All of the answer and the end come, whatever the client still sends; then it is over."""
    client, served = await connect()
    served.transport.write(b"the answer")
    linger(served.transport, served.lost.set_result)
    await client.send(b"x" * 1_000_000)
    assert await client.reader.read(-1) == b"the answer"
    assert not served.lost.done()
    client.close()
    async with asyncio.timeout(20):
        await served.lost


async def test_lingering_reads_on_what_was_paused(connect: Connect) -> None:
    """Back-pressure of the exchange that is over must not keep the client's FIN from being seen."""
    client, served = await connect()
    served.transport.pause_reading()
    linger(served.transport, served.lost.set_result)
    client.close()
    async with asyncio.timeout(20):
        await served.lost


async def test_a_reset_is_no_orderly_end(connect: Connect) -> None:
    """An answer without a length would be taken for whole."""
    client, served = await connect()
    served.transport.write(b"half of")
    assert await client.reader.read(100) == b"half of"
    reset(served.transport)
    with pytest.raises(ConnectionResetError):
        await client.reader.read(100)
