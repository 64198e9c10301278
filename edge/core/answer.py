"""Answer heads: apps are as hostile as clients, and are read by the same grammar.

`AnswerScanner.scan` raises `InvalidAnswer` for what is not well-formed HTTP/1.x; the edge answers 502
``preview_upstream_invalid`` then, as long as nothing of the answer has gone out.

The answers on one connection mostly differ in lines that mean nothing to the edge (ETag, Date). So an
`Answer` is shared by the heads of a connection for as long as the lines with a meaning repeat, as a
`Section` is (``section.py``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from edge.core.fields import (
    NO_CONNECTION,
    Connection,
    FieldReader,
    Kind,
    known_connection,
    read_length,
)

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t -~\x80-\xff]*))?")


class InvalidAnswer(Exception):
    """The upstream's answer cannot be understood safely. The text says why, without its bytes."""


@dataclass(slots=True)
class Answer:
    """What an answer head means to the edge, and the lines of the latest head that meant it.

    ``first`` is the status line as sent and ``status_line`` as it goes out. ``special`` are the field lines
    with a meaning, in order, and ``dropped`` those of them that are not for the client. ``length`` is the
    body's length in bytes when known (0 for answers that have none by their status or because HEAD was
    asked), and ``length_at`` where among ``special`` it was said (-1 = nowhere); ``chunked`` is its coding;
    neither = until the connection closes. ``to_head``: HEAD was asked.

    Of the latest head are ``lines``, the field lines to keep, as sent and in order; ``block``, the bytes it
    came in, empty when they hold a cookie and are better forgotten; and ``plain``, a place for
    ``outbound.plain_head``.
    """

    first: bytes
    special: list[bytes]
    to_head: bool
    status: int
    status_line: bytes
    minor: int
    dropped: list[bytes] = field(default_factory=list)
    length: int | None = None
    length_at: int = -1
    chunked: bool = False
    keep_alive: bool = True
    websocket: bool = False
    sharable: bool = True
    lines: list[bytes] = field(default_factory=list)
    block: bytes = b""
    plain: bytes = b""

    def renew(
        self, first: bytes, special: list[bytes], lines: list[bytes], block: bytes, *, to_head: bool
    ) -> bool:
        """Become the answer with this head, if that is understood as this one was, but for the length."""
        if not (
            self.first == first
            and self.to_head is to_head
            and self.sharable
            and (self.special == special or self._resize(special))
        ):
            return False
        self.take(lines, block)
        return True

    def _resize(self, special: list[bytes]) -> bool:
        """Take the length from these lines, if they differ in nothing else."""
        at, before = self.length_at, self.special
        if at < 0 or len(special) != len(before):
            return False
        name, _, value = special[at].partition(b":")
        length = read_length(value.strip(b" \t")) if name.lower() == b"content-length" else None
        if length is None or special[:at] != before[:at] or special[at + 1 :] != before[at + 1 :]:
            return False
        self.special, self.length = special, length
        return True

    def take(self, lines: list[bytes], block: bytes) -> None:
        """These are the field lines of the latest head, and ``block`` is what is to be known of its bytes."""
        for line in self.dropped:
            lines.remove(line)
        self.lines, self.block, self.plain = lines, block, b""


@dataclass(slots=True)
class _Facts:
    """What is gathered from the field lines before it can be judged as a whole."""

    lengths: tuple[bytes, ...] = ()
    codings: tuple[bytes, ...] = ()
    upgrades: tuple[bytes, ...] = ()
    connection: Connection = NO_CONNECTION
    cookies: bool = False
    length_at: int = -1


class AnswerScanner:
    """Scans answer heads within the given limits."""

    def __init__(self, *, max_fields: int) -> None:
        self._max_fields = max_fields
        self.fields = FieldReader.for_answers()

    def scan(
        self, block: bytes, *, to_head: bool, own_cookie: bytes, before: Answer | None = None
    ) -> Answer:
        """Understand a head; ``block`` ends before the empty line.

        ``to_head``: the request was a HEAD. ``own_cookie``: the edge's cookie name, which apps may
        not set. ``before``: an earlier answer on the same connection, which is the answer where it can be.
        Raises `InvalidAnswer`.
        """
        # A head without a byte is no head, and certainly not one that had a cookie (see ``Answer.block``).
        if before is not None and block and before.block == block and before.to_head is to_head:
            return before
        lines = block.split(b"\r\n")
        if len(lines) > self._max_fields + 1:
            raise InvalidAnswer("too many header fields")
        first = lines.pop(0)
        special = self.fields.special(lines)
        if special is None:
            raise InvalidAnswer("a header field line is malformed")
        if before is not None and before.renew(first, special, lines, block, to_head=to_head):
            return before
        answer = _begin(first, special, to_head=to_head)
        facts = self._gather(answer, own_cookie)
        _judge_framing(answer, facts)
        answer.take(lines, b"" if facts.cookies else block)
        _judge_connection(answer, facts)
        return answer

    def _gather(self, answer: Answer, own_cookie: bytes) -> _Facts:
        """What the special lines say. Those that are not for the client are dropped."""
        facts = _Facts()
        for at, line in enumerate(answer.special):
            entry = self.fields.read(line)
            assert entry is not None  # `special` has read it
            match entry.kind:
                case Kind.CONTENT_LENGTH:
                    facts.lengths += (entry.value,)
                    facts.length_at = at
                    continue
                case Kind.TRANSFER_ENCODING:
                    facts.codings += (entry.value,)
                case Kind.CONNECTION:
                    read = known_connection(entry.value)
                    if read is None:
                        raise InvalidAnswer("the Connection field is malformed")
                    facts.connection = facts.connection.joined(read)
                case Kind.UPGRADE:
                    facts.upgrades += (entry.value,)
                case Kind.SET_COOKIE:
                    facts.cookies, answer.sharable = True, False
                    if _cookie_name(entry.value) != own_cookie:
                        continue
                case Kind.FORBIDDEN:
                    raise InvalidAnswer("a header field imitates a framing field")
            answer.dropped.append(line)
        return facts


def _begin(first: bytes, special: list[bytes], *, to_head: bool) -> Answer:
    match = _STATUS_LINE.fullmatch(first)
    if match is None:
        raise InvalidAnswer("the status line is malformed, or not HTTP/1.0 or HTTP/1.1")
    version, status, reason = match.groups()
    status_line = b"HTTP/1.1 " + status + b" " + (reason or b"")
    return Answer(first, special, to_head, int(status), status_line, 1 if version == b"1" else 0)


def _cookie_name(value: bytes) -> bytes:
    """The name under which a browser sends a cookie back: ``=a=b`` has no name and comes back as ``a=b``."""
    pair = value.partition(b";")[0]
    return pair.lstrip(b"= \t").partition(b"=")[0].rstrip(b" \t")


def _judge_framing(answer: Answer, facts: _Facts) -> None:
    """RFC 9112 section 6.3, rules 1 to 8 for answers, strictly."""
    lengths, codings = facts.lengths, facts.codings
    length = read_length(lengths[0]) if len(lengths) == 1 else None
    if lengths and length is None:
        raise InvalidAnswer("Content-Length must be one plain number")
    if codings and (
        lengths or len(codings) != 1 or codings[0].lower() != b"chunked" or answer.minor == 0
    ):
        raise InvalidAnswer("Transfer-Encoding must be chunked, alone, once, in HTTP/1.1")
    if answer.status < 200 or answer.status == 204:
        # RFC 9110 section 8.6: these never carry a length.
        answer.dropped += [x for x in answer.special if x[:15].lower() == b"content-length:"]
        answer.length = 0
    elif answer.to_head or answer.status == 304:
        answer.length = 0
    else:
        answer.length, answer.chunked = length, bool(codings)
        answer.length_at = facts.length_at


def _judge_connection(answer: Answer, facts: _Facts) -> None:
    close, keep_alive, _, names = facts.connection
    answer.keep_alive = not close and (answer.minor == 1 or keep_alive)
    # Content-Length stays even if Connection names it: without it the client would not see where
    # this answer ends and the next one on its connection begins.
    dropped = names - {b"content-length"} if names else names
    if dropped:
        # What it says about lines without a meaning is not in `special`.
        answer.sharable = False
        answer.lines = [x for x in answer.lines if x.partition(b":")[0].lower() not in dropped]
    answer.websocket = answer.status == 101 and [u.lower() for u in facts.upgrades] == [
        b"websocket"
    ]
    if answer.status == 426 and facts.upgrades:
        # The one other status whose Upgrade is for the client (RFC 9110 section 15.5.22).
        answer.lines += [b"Connection: Upgrade", *(b"Upgrade: " + u for u in facts.upgrades)]
        answer.sharable = False
