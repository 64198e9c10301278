"""Answer heads: apps are as hostile as clients, and are read by the same grammar.

`AnswerScanner.scan` raises `InvalidAnswer` for what is not well-formed HTTP/1.x; the edge answers 502
``preview_upstream_invalid`` then, as long as nothing of the answer has gone out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from edge.core.fields import (
    NO_CONNECTION,
    Connection,
    ConnectionReader,
    FieldReader,
    Kind,
    read_length,
)

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?")


class InvalidAnswer(Exception):
    """The upstream's answer cannot be understood safely. The text says why, without its bytes."""


@dataclass(slots=True)
class Answer:
    """An answer head, understood.

    ``lines`` are the field lines to keep, as sent and in order, Content-Length among them.
    ``length`` is the body's length in bytes when known (0 for answers that have none by their
    status or because HEAD was asked), ``chunked`` its coding; neither = until the connection closes.
    """

    status: int
    status_line: bytes
    minor: int
    lines: list[bytes] = field(default_factory=list)
    length: int | None = None
    chunked: bool = False
    keep_alive: bool = True
    websocket: bool = False


class AnswerScanner:
    """Scans answer heads within the given limits."""

    def __init__(self, *, max_fields: int) -> None:
        self._max_fields = max_fields
        self.fields = FieldReader.for_answers()
        self._connections = ConnectionReader()

    def scan(self, block: bytes, *, to_head: bool, own_cookie: bytes) -> Answer:
        """Understand a head; ``block`` ends before the empty line.

        ``to_head``: the request was a HEAD. ``own_cookie``: the edge's cookie name, which apps may
        not set. Raises `InvalidAnswer`.
        """
        first, *lines = block.split(b"\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise InvalidAnswer("the status line is malformed, or not HTTP/1.0 or HTTP/1.1")
        if len(lines) > self._max_fields:
            raise InvalidAnswer("too many header fields")
        status = int(match[2])
        answer = Answer(status, b"HTTP/1.1 " + match[2] + b" " + (match[3] or b""), int(match[1]))
        lengths, codings, upgrades, connection = self._gather(answer, lines, own_cookie)
        _judge_framing(answer, lengths, codings, to_head)
        answer.keep_alive = not connection.close and (answer.minor == 1 or connection.keep_alive)
        # Content-Length stays even if Connection names it: without it the client would not see where
        # this answer ends and the next one on its connection begins.
        dropped = connection.names - {b"content-length"}
        if dropped:
            answer.lines = [x for x in answer.lines if x.partition(b":")[0].lower() not in dropped]
        answer.websocket = status == 101 and [u.lower() for u in upgrades] == [b"websocket"]
        if status == 426 and upgrades:
            # The one other status whose Upgrade is for the client (RFC 9110 section 15.5.22).
            answer.lines += [b"Connection: Upgrade", *(b"Upgrade: " + u for u in upgrades)]
        return answer

    def _gather(
        self, answer: Answer, lines: list[bytes], own_cookie: bytes
    ) -> tuple[list[bytes], list[bytes], list[bytes], Connection]:
        lengths: list[bytes] = []
        codings: list[bytes] = []
        upgrades: list[bytes] = []
        connection = NO_CONNECTION
        for line in lines:
            entry = self.fields.read(line)
            if entry is None:
                raise InvalidAnswer("a header field line is malformed")
            match entry.kind:
                case Kind.KEEP:
                    answer.lines.append(line)
                case Kind.CONTENT_LENGTH:
                    lengths.append(entry.value)
                    answer.lines.append(line)
                case Kind.TRANSFER_ENCODING:
                    codings.append(entry.value)
                case Kind.CONNECTION:
                    connection = self._join(connection, entry.value)
                case Kind.UPGRADE:
                    upgrades.append(entry.value)
                case Kind.SET_COOKIE:
                    if _cookie_name(entry.value) != own_cookie:
                        answer.lines.append(line)
                case Kind.FORBIDDEN:
                    raise InvalidAnswer("a header field imitates a framing field")
                case _:
                    pass
        return lengths, codings, upgrades, connection

    def _join(self, connection: Connection, value: bytes) -> Connection:
        read = self._connections.read(value)
        if read is None:
            raise InvalidAnswer("the Connection field is malformed")
        return connection.joined(read)


def _cookie_name(value: bytes) -> bytes:
    """The name under which a browser sends a cookie back: ``=a=b`` has no name and comes back as ``a=b``."""
    pair = value.partition(b";")[0]
    return pair.lstrip(b"= \t").partition(b"=")[0].rstrip(b" \t")


def _judge_framing(
    answer: Answer, lengths: list[bytes], codings: list[bytes], to_head: bool
) -> None:
    """RFC 9112 section 6.3, rules 1 to 8 for answers, strictly."""
    length = read_length(lengths[0]) if len(lengths) == 1 else None
    if lengths and length is None:
        raise InvalidAnswer("Content-Length must be one plain number")
    if codings and (
        lengths or len(codings) != 1 or codings[0].lower() != b"chunked" or answer.minor == 0
    ):
        raise InvalidAnswer("Transfer-Encoding must be chunked, alone, once, in HTTP/1.1")
    if answer.status < 200 or answer.status == 204:
        # RFC 9110 section 8.6: these never carry a length.
        answer.lines = [line for line in answer.lines if line[:15].lower() != b"content-length:"]
        answer.length = 0
    elif to_head or answer.status == 304:
        answer.length = 0
    else:
        answer.length, answer.chunked = length, bool(codings)
