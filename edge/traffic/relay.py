"""Relays: bytes from one side in, bytes for the other side out. No I/O here.

`RequestRelay` and `AnswerRelay` hold all framing state of one exchange and are thrown away with it,
so that nothing of one message (a trailer, a parser's mood) can reach the next one on a connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from edge.core import outbound
from edge.core.answer import Answer, AnswerScanner, InvalidAnswer
from edge.core.fields import FieldReader
from edge.core.framing import (
    LAST_CHUNK,
    ChunkedDecoder,
    CloseDecoder,
    Decoder,
    FramingError,
    LengthDecoder,
    chunk,
    last_chunk,
)
from edge.core.head import Head

_MAX_INTERIM = 32
"""Interim answers (1xx) of one exchange; more is an app gone wild."""
_BARE_LF = re.compile(rb"(?<!\r)\n")


class RequestRelay:
    """A request body on its way to the upstream. ``payload`` counts its bytes."""

    __slots__ = ("_chunked", "_decoder", "payload")

    def __init__(self, head: Head, fields: FieldReader, *, max_trailer_bytes: int) -> None:
        self._chunked = head.chunked
        self._decoder: Decoder = (
            ChunkedDecoder(fields, max_trailer_bytes=max_trailer_bytes)
            if head.chunked
            else LengthDecoder(head.length or 0)
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

    __slots__ = (
        "_buffer",
        "_chunk_out",
        "_closing",
        "_decoder",
        "_head",
        "_interims",
        "_limits",
        "_own_cookie",
        "_scanner",
        "close",
        "cookie",
        "done",
        "final",
        "payload",
        "surplus",
    )

    def __init__(
        self,
        head: Head,
        scanner: AnswerScanner,
        *,
        own_cookie: bytes,
        max_head_bytes: int,
        closing: Callable[[], bool],
        cookie: bytes | None,
    ) -> None:
        self._head = head
        self._scanner = scanner
        self._own_cookie = own_cookie
        self._limits = max_head_bytes
        self._closing = closing
        self._buffer = b""
        self._interims = 0
        self._chunk_out = False
        self._decoder: Decoder | None = None
        self.cookie = cookie
        self.close = False
        self.done = False
        self.final: Answer | None = None
        self.payload = 0
        self.surplus = b""

    @property
    def delimited(self) -> bool:
        """Whether the client can tell a truncated answer from a complete one by its framing."""
        return self._chunk_out or (self.final is not None and self.final.length is not None)

    def feed(self, data: bytes) -> bytes:
        """Bytes for the client. Raises `InvalidAnswer` or `FramingError`."""
        if self._decoder is not None:
            return self._body(data)
        if self.done:
            self.surplus += data
            return b""
        self._buffer = self._buffer + data if self._buffer else data
        out = b""
        while self._decoder is None:
            end = self._buffer.find(b"\r\n\r\n")
            # Without an end yet, its first three bytes may already be there.
            if end > self._limits or (end < 0 and len(self._buffer) > self._limits + 3):
                raise InvalidAnswer("the header fields are too large")
            if end < 0:
                self._refuse_early()
                break
            block, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
            answer = self._scanner.scan(
                block, to_head=self._head.method == b"HEAD", own_cookie=self._own_cookie
            )
            if answer.status == 101:
                return out + self._upgrade(answer)
            out += self._interim(answer) if answer.status < 200 else self._final(answer)
        return out

    def _refuse_early(self) -> None:
        # What does not begin like HTTP never will: say so at once instead of waiting for an end of head.
        start = self._buffer[:7]
        if start != b"HTTP/1."[: len(start)]:
            raise InvalidAnswer("the answer is not HTTP/1.x")
        if _BARE_LF.search(self._buffer):
            raise InvalidAnswer("a line of the head ends without CR")

    def _interim(self, answer: Answer) -> bytes:
        self._interims += 1
        if self._interims > _MAX_INTERIM:
            raise InvalidAnswer("too many interim answers")
        # RFC 9110 section 15.2: a 1.0 client never gets a 1xx.
        return outbound.interim_head(answer) if self._head.minor == 1 else b""

    def _upgrade(self, answer: Answer) -> bytes:
        if not (self._head.websocket and answer.websocket):
            raise InvalidAnswer("a 101 that nobody asked for")
        self.final, self.done = answer, True
        self.surplus, self._buffer = self._buffer, b""
        return outbound.upgrade_head(answer)

    def _final(self, answer: Answer) -> bytes:
        self.final = answer
        unknown = answer.length is None
        self._chunk_out = unknown and self._head.minor == 1
        # After a refused upgrade: what a client sends that believes in its tunnel is no next request.
        self.close = self._closing() or self._head.websocket or (unknown and self._head.minor == 0)
        head = outbound.answer_head(
            answer,
            chunked=self._chunk_out,
            close=self.close,
            minor=self._head.minor,
            cookie=self.cookie,
        )
        self._decoder = self._decoder_for(answer)
        rest, self._buffer = self._buffer, b""
        return head + self._body(rest) if rest or self._decoder.done else head

    def _decoder_for(self, answer: Answer) -> Decoder:
        if answer.length is not None:
            return LengthDecoder(answer.length)
        if answer.chunked:
            return ChunkedDecoder(self._scanner.fields, max_trailer_bytes=self._limits)
        return CloseDecoder()

    def _body(self, data: bytes) -> bytes:
        decoder = self._decoder
        assert decoder is not None
        if self.done:
            self.surplus += data
            return b""
        payload = decoder.feed(data) if data else b""
        self.payload += len(payload)
        if not decoder.done:
            return chunk(payload) if self._chunk_out else payload
        self.done = True
        self.surplus = decoder.rest
        if not self._chunk_out:
            return payload
        return chunk(payload) + last_chunk(decoder.trailers)

    def finish(self) -> bytes | None:
        """The upstream will send no more: the last bytes for the client, or None if the answer is cut short."""
        if self._decoder is None or not self._decoder.finish():
            return None
        if self.done:
            return b""
        self.done = True
        return LAST_CHUNK if self._chunk_out else b""


__all__ = ["AnswerRelay", "FramingError", "InvalidAnswer", "RequestRelay"]
