"""Relays: bytes from one side in, bytes for the other side out. No I/O here.

`RequestRelay` and `AnswerRelay` hold all framing state of one exchange and are thrown away with it,
so that nothing of one message (a trailer, a parser's mood) can reach the next one on a connection.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.core import outbound
from edge.core.answer import Answer, AnswerScanner, InvalidAnswer
from edge.core.fields import FieldReader, has_half_end
from edge.core.framing import (
    LAST_CHUNK,
    ChunkedDecoder,
    CloseDecoder,
    Decoder,
    LengthDecoder,
    chunk,
    last_chunk,
)
from edge.core.head import Head

_MAX_INTERIM = 32
"""Interim answers (1xx) of one exchange; more is an app gone wild."""


class RequestRelay:
    """A request body on its way to the upstream. ``payload`` counts its bytes."""

    __slots__ = ("_chunked", "_decoder", "payload")

    def __init__(self, head: Head, fields: FieldReader, *, max_trailer_bytes: int) -> None:
        self._chunked = head.section.chunked
        self._decoder: Decoder = (
            ChunkedDecoder(fields, max_trailer_bytes=max_trailer_bytes)
            if head.section.chunked
            else LengthDecoder(head.section.length or 0)
        )
        self.payload = 0

    @property
    def done(self) -> bool:
        """The whole body has come."""
        return self._decoder.done

    @property
    def rest(self) -> bytes:
        """What came after the body: the start of the next request."""
        return self._decoder.rest

    def feed(self, data: bytes) -> bytes:
        """Bytes for the upstream. Raises `FramingError`. Request trailers are dropped (contract)."""
        payload = self._decoder.feed(data)
        self.payload += len(payload)
        if not self._chunked:
            return payload
        return chunk(payload) + LAST_CHUNK if self._decoder.done else chunk(payload)


class AnswerRelay:
    """An answer on its way to the client: interim heads, the final head, the body, trailers.

    ``final`` is the final head once it came; ``done`` once the answer has ended; ``surplus`` are bytes
    after it, which no honest upstream sends (after a 101 they belong to the tunnel). ``closing`` is
    asked once, when the final head goes out: must the client's connection end with this answer?
    """

    cookie: bytes | None
    close = False
    done = False
    final: Answer | None = None
    payload = 0
    surplus = b""
    _buffer: bytes | bytearray = b""  # of a head that is not complete
    _searched = 0  # how much of it is known to hold no end of a head
    _interims = 0
    _chunk_out = False
    _left = 0  # of a body of known length, which is counted and not parsed
    _decoder: Decoder | None = None  # for a body that is not

    def __init__(
        self,
        head: Head,
        scanner: AnswerScanner,
        *,
        own_cookie: bytes,
        max_head_bytes: int,
        closing: Callable[[], bool],
        cookie: bytes | None,
        before: Answer | None = None,
    ) -> None:
        self._head = head
        self._scanner = scanner
        self._own_cookie = own_cookie
        self._limits = max_head_bytes
        self._closing = closing
        self._before = before
        self.cookie = cookie

    @property
    def delimited(self) -> bool:
        """Whether the client can tell a truncated answer from a complete one by its framing."""
        return self._chunk_out or (self.final is not None and self.final.length is not None)

    def feed(self, data: bytes) -> bytes:
        """Bytes for the client. Raises `InvalidAnswer` or `FramingError`."""
        if self.final is None:
            return self._heads(data)
        if self.done:
            self.surplus += data
            return b""
        return self._counted(data) if self._decoder is None else self._decoded(data)

    def _heads(self, data: bytes) -> bytes:
        """Interim heads and the final one, with what follows it."""
        if self._buffer:
            return self._more_of_head(data)
        out = b""
        while True:
            end = data.find(b"\r\n\r\n")
            if end < 0 or end > self._limits:
                self._check_start(data, end)
                self._buffer, self._searched = bytearray(data), len(data)
                return out
            answer = self._scanner.scan(
                data[:end],
                to_head=self._head.method == b"HEAD",
                own_cookie=self._own_cookie,
                before=self._before,
            )
            data = data[end + 4 :]
            if answer.status >= 200:
                return out + self._final(answer, data)
            if answer.status == 101:
                return out + self._upgrade(answer, data)
            out += self._interim(answer)

    def _more_of_head(self, data: bytes) -> bytes:
        """More of a head that comes in pieces. However small they are, each byte is looked at once."""
        kept = self._buffer
        kept += data
        end = kept.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            self._check_start(kept, end)
            self._searched = len(kept)
            return b""
        self._buffer, self._searched = b"", 0
        return self._heads(bytes(kept))

    def _check_start(self, data: bytes | bytearray, end: int) -> None:
        """Refuse a head that is not complete and will never be a good one."""
        # Without an end yet, its first three bytes may already be there.
        if end > self._limits or len(data) > self._limits + 3:
            raise InvalidAnswer("the header fields are too large")
        start = data[:7]
        if start != b"HTTP/1."[: len(start)]:
            raise InvalidAnswer("the answer is not HTTP/1.x")
        if has_half_end(data, self._searched):
            raise InvalidAnswer("lines of a head must end with CR LF")

    def _interim(self, answer: Answer) -> bytes:
        self._interims += 1
        if self._interims > _MAX_INTERIM:
            raise InvalidAnswer("too many interim answers")
        # RFC 9110 section 15.2: a 1.0 client never gets a 1xx.
        return outbound.interim_head(answer) if self._head.section.minor == 1 else b""

    def _upgrade(self, answer: Answer, rest: bytes) -> bytes:
        if not (self._head.section.websocket and answer.websocket):
            raise InvalidAnswer("a 101 that nobody asked for")
        self.final, self.done, self.surplus = answer, True, rest
        return outbound.upgrade_head(answer)

    def _final(self, answer: Answer, rest: bytes) -> bytes:
        """The final head for the client, and what of the body came with it."""
        self.final = answer
        length, section = answer.length, self._head.section
        unknown = length is None
        # After a refused upgrade: what a client sends that believes in its tunnel is no next request.
        self.close = self._closing() or section.websocket or (unknown and section.minor == 0)
        del (
            self._closing
        )  # a method of the exchange, which has this relay: they would wait for the collector
        if section.minor == 1 and not self.close and self.cookie is None:
            self._chunk_out = unknown
            head = outbound.plain_head(answer)
        else:
            self._chunk_out = unknown and section.minor == 1
            head = outbound.answer_head(
                answer,
                chunked=self._chunk_out,
                close=self.close,
                minor=section.minor,
                cookie=self.cookie,
            )
        if length is not None:
            self._left = length
            self.done = not length
            if not length:
                self.surplus = rest
                return head
            return head + self._counted(rest)
        self._decoder = self._decoder_for(answer)
        return head + self._decoded(rest) if rest else head

    def _decoder_for(self, answer: Answer) -> Decoder:
        if answer.chunked:
            return ChunkedDecoder(self._scanner.fields, max_trailer_bytes=self._limits)
        return CloseDecoder()

    def _counted(self, data: bytes) -> bytes:
        left = self._left - len(data)
        if left < 0:
            self.surplus = data[left:]
            data, left = data[:left], 0
        self._left = left
        self.payload += len(data)
        self.done = not left
        return data

    def _decoded(self, data: bytes) -> bytes:
        decoder = self._decoder
        assert decoder is not None
        payload = decoder.feed(data)
        self.payload += len(payload)
        if not decoder.done:
            return chunk(payload) if self._chunk_out else payload
        self.done = True
        self.surplus = decoder.rest
        if not self._chunk_out:
            return payload
        return chunk(payload) + last_chunk(decoder.trailers)

    def finish(self) -> bytes | None:
        """The upstream will send no more, and the answer was not ``done``.

        The last bytes for the client, or None if the answer is cut short.
        """
        if self._decoder is None or not self._decoder.finish():
            return None
        self.done = True
        return LAST_CHUNK if self._chunk_out else b""
