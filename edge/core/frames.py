"""WebSocket frames, as far as the edge looks at them: where one ends (RFC 6455 section 5.2).

Tunnels carry bytes untouched. But an edge that shuts down owes both peers a close frame, and may put one
into the stream only between two frames.
"""

from __future__ import annotations

_CLOSE = 0x8
_TOO_LONG = 1 << 63

GOING_AWAY = 1001
"""Status code of an endpoint that goes away (RFC 6455 section 7.4.1)."""


class FrameTracker:
    """Follows one direction of a tunnel. ``closed`` once a close frame has begun to pass."""

    __slots__ = ("_head", "_left", "closed")

    def __init__(self) -> None:
        self._head = b""  # of a frame whose head has not come completely
        self._left = 0  # bytes of payload to come
        self.closed = False

    @property
    def between_frames(self) -> bool:
        """Whether another frame may begin here."""
        return not (self._left or self._head or self.closed)

    def feed(self, data: bytes) -> None:
        """Bytes that pass. Nothing is refused: what is no frame only never ends."""
        if self._left >= len(data):
            self._left -= len(data)
            return
        if self._head:
            data, self._head = self._head + data, b""
        at, size = self._left, len(data)
        while at < size:
            end = self._frame(data, at)
            if end is None:
                self._left, self._head = 0, data[at:]
                return
            at = end
        self._left = at - size

    def _frame(self, data: bytes, at: int) -> int | None:
        """Where the frame that begins at ``at`` ends; None while its head is incomplete."""
        if len(data) < at + 2:
            return None
        length, head = data[at + 1] & 0x7F, 2
        if length >= 126:
            head = 4 if length == 126 else 10
            if len(data) < at + head:
                return None
            length = int.from_bytes(data[at + 2 : at + head], "big")
        if data[at + 1] & 0x80:
            head += 4
            if len(data) < at + head:
                return None
        if data[at] & 0xF == _CLOSE:
            self.closed = True
        return at + head + min(length, _TOO_LONG)


def close_frame(code: int, mask: bytes = b"") -> bytes:
    """A close frame. Clients mask theirs, with four bytes nobody can foresee (RFC 6455 section 5.3)."""
    payload = code.to_bytes(2, "big")
    if not mask:
        return bytes((0x80 | _CLOSE, len(payload))) + payload
    hidden = bytes(byte ^ mask[index] for index, byte in enumerate(payload))
    return bytes((0x80 | _CLOSE, 0x80 | len(payload))) + mask + hidden
