"""One door by itself: closed, open, closed again, under one number."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from edge.appliance.runtime.door import Door
from edge.appliance.runtime.ports import Ports


async def _knock(number: int) -> bytes:
    """What is said to somebody who comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", number)
    try:
        return await reader.read()
    finally:
        writer.close()


async def test_it_is_refused_or_let_in() -> None:
    """Nobody gets in while it is shut; whoever comes while it is open is handed on, and can be talked to."""

    def entered(outer: socket.socket) -> None:
        outer.sendall(b"welcome")
        outer.close()

    door = Door(Ports(time.monotonic).take(), entered)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            await _knock(door.number)
        door.set(open_=True)
        assert await asyncio.gather(*(_knock(door.number) for _ in range(3))) == [b"welcome"] * 3
        door.set(open_=False)
    door.set(open_=True)
    door.close()
    with pytest.raises(ConnectionRefusedError):
        await _knock(door.number)
