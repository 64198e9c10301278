"""Two ways to end a client's connection that a mere close cannot: reading on, and a reset."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable

_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: closing drops what is unsent and resets the connection."""


class Lingering(asyncio.Protocol):
    """Reads on without listening until the client closes, or somebody ends it (RFC 9112 section 9.6).

    To close while a client still sends would reset its connection, and destroy the answer on its way.
    """

    def __init__(
        self, transport: asyncio.Transport, on_lost: Callable[[BaseException | None], None]
    ) -> None:
        self._transport = transport
        self._on_lost = on_lost

    def eof_received(self) -> bool:
        """The client has closed, too."""
        self._transport.close()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        self._on_lost(exc)


def linger(transport: asyncio.Transport, on_lost: Callable[[BaseException | None], None]) -> None:
    """Close for writing, after what was written before, and read on. ``on_lost`` hears of the end."""
    with contextlib.suppress(OSError, RuntimeError):
        if transport.can_write_eof():
            transport.write_eof()
    transport.set_protocol(Lingering(transport, on_lost))
    transport.resume_reading()


def reset(transport: asyncio.Transport) -> None:
    """Drop a connection so that its peer notices: by a FIN an answer without length would be whole."""
    sock: socket.socket = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()
