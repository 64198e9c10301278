"""One port of this machine, for one inside a sandbox: bound all the time, open only while somebody is behind it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

_BACKLOG = 512
_BUSY = 64
"""Connections taken from a door at once."""


class Door:
    """A bound socket that listens now and then; it is ours from now on. ``entered`` gets each connection."""

    def __init__(self, sock: socket.socket, entered: Callable[[socket.socket], None]) -> None:
        self._sock = sock
        self._entered = entered
        self.open = False
        self.number: int = sock.getsockname()[1]

    def set(self, *, open_: bool) -> None:
        """Begin to listen, or stop."""
        loop = asyncio.get_running_loop()
        if open_:
            # To listen again while connections are open. Only while it listens, which keeps everybody out: whoever else
            # asks for the same could have the port of a closed door, and would be taken for the app.
            self._reusable(1)
            try:
                self._sock.listen(_BACKLOG)
            except OSError:
                self._reusable(0)
                return  # The next look tries again.
            loop.add_reader(self._sock, self._knock)
        else:
            loop.remove_reader(self._sock)
            # Linux takes a listening socket back to a bound one; those who wait to be accepted are reset.
            self._sock.shutdown(socket.SHUT_RDWR)
            self._reusable(0)
        self.open = open_

    def _reusable(self, yes: int) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, yes)

    def close(self) -> None:
        """Give the port back."""
        if self.open:
            asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    def _knock(self) -> None:
        for _ in range(_BUSY):
            try:
                outer, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                # No descriptors are left, say. The next look opens again: until then nobody knocks in vain for us.
                self.set(open_=False)
                return
            outer.setblocking(False)
            self._entered(outer)
