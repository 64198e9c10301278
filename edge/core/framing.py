"""Framing: where a message body ends, and how the same body is framed for the other side.

Decoders take bytes as they come and give back payload; ``rest`` holds what came after the end, which
belongs to the next message and never to this one. What goes out is framed anew: the peer's chunk
sizes and extensions end here (RFC 9112 section 7.1.1), so no two readers can disagree about them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from edge.core.fields import FieldReader, Kind, has_half_end


class FramingError(Exception):
    """The body is not framed as its head said. Where the message ends is no longer known."""


class Decoder(Protocol):
    """Takes a body's bytes off the wire.

    ``done`` once it has ended; ``rest`` is what follows it; ``trailers`` are its trailer lines.
    """

    done: bool
    rest: bytes
    trailers: Sequence[bytes]

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``, possibly empty. Raises `FramingError`."""

    def finish(self) -> bool:
        """The peer will send no more: whether the body is complete now."""


class LengthDecoder:
    """A body of known length, in bytes."""

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.done = length == 0
        self.rest = b""
        self.trailers: Sequence[bytes] = ()

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``."""
        remaining = self.remaining - len(data)
        if remaining > 0:
            self.remaining = remaining
            return data
        self.done = True
        self.remaining = 0
        if remaining == 0:
            return data
        self.rest = data[remaining:]
        return data[:remaining]

    def finish(self) -> bool:
        """True only if every byte has come."""
        return self.done


class CloseDecoder:
    """A body that ends with the connection (RFC 9112 section 6.3, rule 8)."""

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.trailers: Sequence[bytes] = ()

    def feed(self, data: bytes) -> bytes:
        """All of it is payload."""
        return data

    def finish(self) -> bool:
        """The end of the connection is the end of the body."""
        self.done = True
        return True


_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(;[\t -~\x80-\xff]*)?")
_SIZE_LINE_MAX = 1024
# Trailers that would be framing, routing or a cookie of ours if they became headers.
_TRAILER_KINDS = frozenset({Kind.KEEP, Kind.VIA, Kind.REQUEST_ID})


class ChunkedDecoder:
    """The chunked coding (RFC 9112 section 7.1), strictly: CRLF everywhere, sizes of 15 digits at most.

    ``trailers`` are the trailer lines, validated, without those that frame or route messages.
    Extensions are read over, their bytes bounded in proportion to the payload (an attacker could
    otherwise have the edge chew on 1 kB of extension for every byte).
    """

    _EXTENSIONS_FREE = 16_384

    def __init__(self, fields: FieldReader, *, max_trailer_bytes: int) -> None:
        self.done = False
        self.rest = b""
        self._trailers: list[bytes] = []
        self.trailers: Sequence[bytes] = self._trailers
        self._fields = fields
        self._max_trailer_bytes = max_trailer_bytes
        # A bytearray while a line is not complete: bytes would be copied for every read that adds to them.
        self._buffer: bytes | bytearray = b""
        self._at = 0  # how much of the buffer is used; cutting it at every line would be quadratic
        self._searched = 0  # how much of it is known to hold no end of a line
        self._step = self._size
        self._remaining = 0
        self._extensions = 0
        self._payload_bytes = 0
        self._trailer_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """The payload in ``data``. Raises `FramingError`."""
        if self._buffer:
            self._buffer += data
        else:
            self._buffer = data
        payload: list[bytes] = []
        while self._step(payload) and not self.done:
            pass
        if self._at == len(self._buffer):
            self._buffer, self._at, self._searched = b"", 0, 0
        else:
            self._drop_used()
        return payload[0] if len(payload) == 1 else b"".join(payload)

    def _drop_used(self) -> None:
        """Keep what there is no use for yet."""
        used, self._at = self._at, 0
        if self.done:
            self.rest, self._buffer = bytes(self._buffer[used:]), b""
        elif used or not isinstance(self._buffer, bytearray):
            # Never more than came in this read: what was kept before it has been used up.
            self._buffer = bytearray(self._buffer[used:])
            self._searched = max(0, self._searched - used)

    def finish(self) -> bool:
        """True only if the last chunk and the trailer section have come."""
        return self.done

    def _line(self, limit: int) -> bytes | None:
        """The next line without CRLF, or None while it is incomplete."""
        start = self._at
        # From the last byte of what was searched before: it may be the CR of the line's end.
        new = self._searched - 1 if self._searched > start else start
        end = self._buffer.find(b"\r\n", new, start + limit + 2)
        if end < 0:
            if len(self._buffer) - start > limit + 1:  # the one may be the CR of its end
                raise FramingError("a line of the chunked coding is too long")
            # Half an end can never become part of a good line: refuse at once rather than wait.
            if has_half_end(self._buffer, max(start, self._searched)):
                raise FramingError("lines of the chunked coding must end with CR LF")
            self._searched = len(self._buffer)
            return None
        self._at = end + 2
        return bytes(self._buffer[start:end])

    def _size(self, payload: list[bytes]) -> bool:
        line = self._line(_SIZE_LINE_MAX)
        if line is None:
            return False
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise FramingError("a chunk size is malformed")
        self._extensions += len(match[2] or b"")
        if self._extensions > self._EXTENSIONS_FREE + self._payload_bytes:
            raise FramingError("too many chunk extensions")
        self._remaining = int(match[1], 16)
        self._step = self._data if self._remaining else self._trailer
        return True

    def _data(self, payload: list[bytes]) -> bool:
        piece = bytes(self._buffer[self._at : self._at + self._remaining])
        if not piece:
            return False
        self._at += len(piece)
        self._remaining -= len(piece)
        self._payload_bytes += len(piece)
        payload.append(piece)
        if not self._remaining:
            self._step = self._data_end
        return True

    def _data_end(self, payload: list[bytes]) -> bool:
        end = self._buffer[self._at : self._at + 2]
        if end != b"\r\n"[: len(end)]:
            raise FramingError("a chunk is longer than its size")
        if len(end) < 2:
            return False
        self._at += 2
        self._step = self._size
        return True

    def _trailer(self, payload: list[bytes]) -> bool:
        line = self._line(self._max_trailer_bytes)
        if line is None:
            return False
        if not line:
            self.done = True
            return False
        self._trailer_bytes += len(line)
        field = self._fields.read(line)
        if field is None or self._trailer_bytes > self._max_trailer_bytes:
            raise FramingError("the trailer section is malformed or too large")
        if field.kind in _TRAILER_KINDS:
            self._trailers.append(line)
        return True


LAST_CHUNK = b"0\r\n\r\n"


def chunk(payload: bytes) -> bytes:
    """One chunk; nothing for an empty payload, which would end the body."""
    return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""


def last_chunk(trailers: Sequence[bytes]) -> bytes:
    """The end of a chunked body with its trailer section."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n" + b"".join(line + b"\r\n" for line in trailers) + b"\r\n"
