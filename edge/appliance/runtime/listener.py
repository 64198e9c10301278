"""What one reader of a command's output has still to take: in order, in pieces, and bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

PIECE_BYTES = 1 << 16
"""Bytes of a piece, at most."""

FULL_BYTES = 1 << 18
"""From here on the command's pipes are not read, until the reader has taken some."""

_ENTRY = 128
"""What a piece weighs beyond its bytes, so that a great many tiny ones fill a listener, too."""

Piece = tuple[int, bytes]
"""Of which stream (0 stdout, 1 stderr), and what was written to it."""


class Listener:
    """Made by `Output.listen`, for one taker. ``eased`` is called when a full one has room again.

    It begins with what was written before it listened: ``both`` streams as one, and in ``order`` the
    stream of each of those bytes. That is cut into pieces only when they are taken, because a command
    can change streams with every byte.
    """

    def __init__(self, both: bytes, order: bytes, eased: Callable[[], None]) -> None:
        self._both = both
        self._order = order
        self._at = 0
        self._pieces: deque[Piece] = deque()
        self._weight = 0
        self._over = False
        self._came = asyncio.Event()
        self._eased = eased

    @property
    def full(self) -> bool:
        """Whether no more should be read for it."""
        return self._weight >= FULL_BYTES

    def feed(self, stream: int, data: bytes) -> None:
        """Keep it until it is taken. It may be more than there is room for: the last of a dead command."""
        for start in range(0, len(data), PIECE_BYTES):
            piece = data[start : start + PIECE_BYTES]
            self._pieces.append((stream, piece))
            self._weight += len(piece) + _ENTRY
        self._came.set()

    def finish(self) -> None:
        """There will be no more."""
        self._over = True
        self._came.set()

    async def take(self) -> Piece | None:
        """The next piece, waited for; neighbours of one stream come as one. None after the last."""
        if self._at < len(self._both):
            return self._earlier()
        while not self._pieces:
            if self._over:
                return None
            self._came.clear()
            await self._came.wait()
        was_full = self.full
        stream, first = self._pop()
        parts, size = [first], len(first)
        while self._pieces and self._pieces[0][0] == stream:
            size += len(self._pieces[0][1])
            if size > PIECE_BYTES:
                break
            parts.append(self._pop()[1])
        if was_full and not self.full:
            self._eased()
        return stream, b"".join(parts)

    def _pop(self) -> Piece:
        piece = self._pieces.popleft()
        self._weight -= len(piece[1]) + _ENTRY
        return piece

    def _earlier(self) -> Piece:
        stream = self._order[self._at]
        end = self._order.find(bytes([1 - stream]), self._at, self._at + PIECE_BYTES)
        if end < 0:
            end = min(self._at + PIECE_BYTES, len(self._both))
        piece = self._both[self._at : end]
        self._at = end
        if end == len(self._both):
            self._both = self._order = b""
            self._at = 0
        return stream, piece
