"""Two connections joined: what comes in at one goes out at the other, as it is, the way it ends included."""

from __future__ import annotations

import asyncio
import socket
import struct
from asyncio.trsock import TransportSocket


async def join(inner: socket.socket, outer: socket.socket, open_ends: set[End]) -> None:
    """Join two connected sockets, which are ours from now on. Both ends are in ``open_ends`` while they are open.

    Nothing is left of either when it fails.
    """
    ends = End(open_ends), End(open_ends)
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    left = [inner, outer]
    try:
        for end in ends:
            await _carry(end, left[-1])
            left.pop()
    except BaseException:
        for sock in left:
            reset(sock)
        for end in ends:
            end.cut()
        raise


class End(asyncio.Protocol):
    """One of the two connections: what comes in here goes out at its peer, as it is. FIN stays FIN, RST stays RST."""

    peer: End

    def __init__(self, ends: set[End]) -> None:
        self._ends = ends
        self.early: list[bytes] = []
        self.transport: asyncio.Transport | None = None
        self.finished = False
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The first one waits for the other. It may be read nevertheless: older Pythons forget that it is paused."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._ends.add(self)
        first = self.peer
        if first.transport is None:
            transport.pause_reading()
        elif first.lost:
            self.cut()
        else:
            transport.writelines(first.early)
            first.early.clear()
            if first.finished:
                transport.write_eof()
            first.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self.peer.transport is None:
            self.early.append(data)
        else:
            self.peer.transport.write(data)

    def pause_writing(self) -> None:
        """Who is not read does not get more to read."""
        if self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        """There is room again."""
        if self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def eof_received(self) -> bool:
        """One way is over; with the other one, all is."""
        self.finished = True
        if self.peer.transport is None:
            return True
        if self.peer.finished:
            self.peer.transport.close()
            return False
        self.peer.transport.write_eof()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        """The other connection ends in the same way."""
        self.lost = True
        self._ends.discard(self)
        if self.peer.transport is None:
            return
        if error is not None or not self.finished:
            self.peer.cut()
        else:
            self.peer.transport.close()

    def cut(self) -> None:
        """End it at once, and so that the other side does not take it for the end of what was sent."""
        if self.transport is not None:
            # An abort alone is seen as an ordinary end, unless something was left unread.
            _reset_at_close(self.transport.get_extra_info("socket"))
            self.transport.abort()


async def _carry(end: End, sock: socket.socket) -> None:
    await asyncio.get_running_loop().connect_accepted_socket(lambda: end, sock)


def reset(sock: socket.socket) -> None:
    """Close it so that the other side knows that nobody was there."""
    _reset_at_close(sock)
    sock.close()


def _reset_at_close(sock: socket.socket | TransportSocket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass  # It is closed already.
