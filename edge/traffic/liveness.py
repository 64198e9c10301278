"""Peers that have vanished without a word: the kernel is told to find out, for silence can be honest.

A tunnel or a stream of events may be quiet for hours, so no deadline of ours can tell a quiet peer from
one whose machine has lost power. Two things can: probes on a silent connection (RFC 9293 section 3.8.4),
and a bound on how long sent bytes may go unacknowledged (RFC 5482).

The second also ends connections whose peer lives and takes no byte. For a request's body that is
``deadlines.first_byte``'s to say, so the upstream's side has it only once it belongs to a tunnel.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from math import ceil

from edge.core.settings import TcpSettings

Option = tuple[int, int, int]
"""Level, name and value, as ``setsockopt`` takes them."""

# macOS has its own name for the first, and lacks the last.
_IDLE = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))
_INTERVAL = getattr(socket, "TCP_KEEPINTVL", None)
_COUNT = getattr(socket, "TCP_KEEPCNT", None)
_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)


class Liveness:
    """What the kernel is told about connections, for the settings of one edge."""

    __slots__ = ("_delivery", "_probes")

    def __init__(self, settings: TcpSettings) -> None:
        self._probes = list(_probes(settings))
        self._delivery = list(_delivery(settings))

    def probe(self, sock: socket.socket | None) -> None:
        """Ask a silent peer whether it is there. Those a listening socket accepts inherit it."""
        _set(sock, self._probes)

    def expect_delivery(self, sock: socket.socket | None) -> None:
        """The same, and give up on bytes that do not arrive."""
        _set(sock, self._probes)
        _set(sock, self._delivery)


def _probes(settings: TcpSettings) -> Iterator[Option]:
    if not settings.keepalive_idle:
        return
    yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
    for name, value in (
        (_IDLE, settings.keepalive_idle),
        (_INTERVAL, settings.keepalive_interval),
        (_COUNT, settings.keepalive_count),
    ):
        if name is not None:
            yield socket.IPPROTO_TCP, name, value


def _delivery(settings: TcpSettings) -> Iterator[Option]:
    if settings.user_timeout and _USER_TIMEOUT is not None:
        yield socket.IPPROTO_TCP, _USER_TIMEOUT, ceil(settings.user_timeout * 1000)


def _set(sock: socket.socket | None, options: list[Option]) -> None:
    if sock is None:
        return
    with contextlib.suppress(OSError):  # not TCP (a Unix socket), or gone already
        for option in options:
            sock.setsockopt(*option)
