"""Two joined connections: bytes, ends and resets, each passed on as what it is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from families import until

from edge.appliance.runtime.ends import End, join, reset


def _connected() -> tuple[socket.socket, socket.socket]:
    """Both sides of one TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here, _ = server.accept()
    for sock in (here, there):
        sock.setblocking(False)
    return here, there


class Joined:
    """The client's and the app's side of what has been joined between them."""

    def __init__(self) -> None:
        self.open: set[End] = set()
        self.outer, self.client = _connected()
        self.inner, self.app = _connected()

    async def read(self, sock: socket.socket) -> bytes:
        """What comes there; nothing is its end."""
        async with asyncio.timeout(5):
            return await asyncio.get_running_loop().sock_recv(sock, 65536)


@pytest.fixture
async def joined() -> AsyncIterator[Joined]:
    """Not joined yet. Nothing of it is left open afterwards."""
    made = Joined()
    yield made
    for sock in (made.client, made.app):
        sock.close()
    await until(lambda: not made.open)


async def test_each_way_ends_by_itself(joined: Joined) -> None:
    """What was sent before the ends were joined arrives first; an end is passed on, and the other way goes on."""
    joined.app.send(b"early")
    joined.app.shutdown(socket.SHUT_WR)
    await join(joined.inner, joined.outer, joined.open)
    assert len(joined.open) == 2
    assert await joined.read(joined.client) == b"early"
    assert await joined.read(joined.client) == b""
    joined.client.send(b"late")
    assert await joined.read(joined.app) == b"late"
    joined.client.shutdown(socket.SHUT_WR)
    assert await joined.read(joined.app) == b""
    await until(lambda: not joined.open)


@pytest.mark.parametrize("first", ["client", "app"])
async def test_a_reset_is_passed_on(joined: Joined, first: str) -> None:
    """From either side, as a reset and not as an end."""
    await join(joined.inner, joined.outer, joined.open)
    one, other = joined.client, joined.app
    if first == "app":
        one, other = other, one
    reset(one)
    with pytest.raises(ConnectionResetError):
        await joined.read(other)
    await until(lambda: not joined.open)


async def test_nothing_is_left_of_a_join_that_fails(joined: Joined) -> None:
    """The socket that could not be joined takes the other one with it."""
    joined.outer.close()
    with pytest.raises((OSError, ValueError)):
        await join(joined.inner, joined.outer, joined.open)
    with pytest.raises(ConnectionResetError):
        await joined.read(joined.app)
