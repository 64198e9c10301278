"""Header fields: the one grammar for a field line, and the ONE table that classifies names.

Requests and answers use the same grammar (RFC 9110 section 5, RFC 9112 section 5) and refuse the same things: a
control byte, a bare CR or LF, blanks before the colon, a folded line. A line that passes is kept as
the peer spelled it; a line that matters is named by its `Kind`.

Why not a C parser: measured on a browser's request, splitting the head at CRLF and looking whole
lines up in a bounded dict costs less than any parser's callbacks, because browsers repeat their
lines; and what this module lets through is exactly what it says here, on both sides of the edge.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from enum import IntEnum
from functools import lru_cache
from itertools import filterfalse
from typing import NamedTuple


class Kind(IntEnum):
    """What the edge does with a field. KEEP is zero, so that the common case is a falsy test."""

    KEEP = 0
    DROP = 1  # hop-by-hop, or nobody's business in the sandbox
    HOST = 2
    CONTENT_LENGTH = 3
    TRANSFER_ENCODING = 4
    CONNECTION = 5
    UPGRADE = 6
    COOKIE = 7
    SET_COOKIE = 8
    REFERER = 9
    FORWARDED = 10  # X-Forwarded-* and Forwarded: who the client is
    VIA = 11
    REQUEST_ID = 12
    PROXY_TOKEN = 13
    TRAFFIC_TOKEN = 14
    EXPECT = 15
    FORBIDDEN = 16  # the message is refused


class Field(NamedTuple):
    """One field line: the bytes as sent (without CRLF), the name in lower case, the trimmed value."""

    kind: Kind
    name: bytes
    value: bytes
    line: bytes


_BOTH = {
    b"connection": Kind.CONNECTION,
    b"content-length": Kind.CONTENT_LENGTH,
    b"transfer-encoding": Kind.TRANSFER_ENCODING,
    b"upgrade": Kind.UPGRADE,
    # RFC 9110 section 7.6.1: to be removed whether or not Connection names them.
    b"keep-alive": Kind.DROP,
    b"proxy-connection": Kind.DROP,
    b"te": Kind.DROP,
}
REQUEST_NAMES: dict[bytes, Kind] = _BOTH | {
    b"host": Kind.HOST,
    b"cookie": Kind.COOKIE,
    b"referer": Kind.REFERER,
    b"forwarded": Kind.FORWARDED,
    b"via": Kind.VIA,
    b"x-request-id": Kind.REQUEST_ID,
    b"expect": Kind.EXPECT,
    b"x-nullspace-preview-proxy-token": Kind.PROXY_TOKEN,
    b"x-nullspace-traffic-access-token": Kind.TRAFFIC_TOKEN,
    b"http2-settings": Kind.DROP,
    b"proxy-authorization": Kind.DROP,
    # Request trailers are dropped, so their announcement is, too.
    b"trailer": Kind.DROP,
}
ANSWER_NAMES: dict[bytes, Kind] = _BOTH | {
    b"set-cookie": Kind.SET_COOKIE,
    b"proxy-authenticate": Kind.DROP,
}
_REQUEST_PREFIXES = ((b"x-forwarded-", Kind.FORWARDED), (b"x-nullspace-", Kind.DROP))
_FRAMING = frozenset({Kind.CONTENT_LENGTH, Kind.TRANSFER_ENCODING, Kind.HOST})

# Lines that carry secrets, or never repeat, are not remembered across messages.
_UNREMEMBERED = frozenset(
    {
        Kind.COOKIE,
        Kind.SET_COOKIE,
        Kind.REFERER,
        Kind.PROXY_TOKEN,
        Kind.TRAFFIC_TOKEN,
        Kind.REQUEST_ID,
    }
)
_SECRET_NAMES = frozenset({b"authorization", b"proxy-authorization", b"sec-websocket-key"})

_OWN_PAIRS = (b"edge_token=", b"__ns_preview_transport=")
_NAME, _VALUE = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", rb"[\t -~\x80-\xff]*"
_LINE = re.compile(b"(%b):[ \t]*(%b)" % (_NAME, _VALUE))
_AFTER_NAME = re.compile(b":" + _VALUE)
_AFTER_NAME_WITHOUT_QUERY = re.compile(rb":[\t ->@-~\x80-\xff]*")
# What is remembered at most: lines with a meaning; names, and lines without a meaning of each. 3 MB in all.
_LINE_MAX = 256
_SPECIAL_MAX = 1024
_NAMES_MAX, _LINES_PER_NAME = 256, 32


def has_half_end(data: bytes | bytearray, searched: int = 0) -> bool:
    """Whether a CR or an LF stands alone: no line with one can become a good one (RFC 9112 section 2.2).

    ``searched`` bytes were found good before; the last of them may be a CR whose LF has come only now.
    Counted, because a pattern takes ten times as long for a head of 64 kB.
    """
    start = searched - 1 if searched and data[searched - 1] == 0x0D else searched
    new = data[start:]
    ends = new.count(b"\r\n")
    return new.count(b"\n") != ends or new.count(b"\r") - new.endswith(b"\r") != ends


class Habit(NamedTuple):
    """What is known of the lines under one name, in one spelling.

    ``special``: whether they mean something to the edge. ``after_name`` is what the rest of a line looks like, or
    else nothing is known of it. ``lines`` are the remembered ones without a meaning; None = they are secrets.
    """

    special: bool
    after_name: re.Pattern[bytes]
    lines: list[bytes] | None


class FieldReader:
    """Reads field lines of requests (or of answers) and remembers the harmless ones. Bounded.

    Most lines of a message mean nothing to the edge, and were there in the message before: these cost one
    look into a set. A new line under a name that was read before costs a look at its value. Some names
    (a trace id, a date) bring ever new lines, so each has room for `_LINES_PER_NAME` and no more.
    """

    def __init__(
        self, names: dict[bytes, Kind], prefixes: tuple[tuple[bytes, Kind], ...] = ()
    ) -> None:
        self._names = names
        self._prefixes = prefixes
        self._special: dict[bytes, Field] = {}
        self._habits: dict[bytes, Habit] = {}
        self._plain: set[bytes] = set()  # all lines in `_habits`

    @classmethod
    def for_requests(cls) -> FieldReader:
        """A reader that knows what clients send."""
        return cls(REQUEST_NAMES, _REQUEST_PREFIXES)

    @classmethod
    def for_answers(cls) -> FieldReader:
        """A reader that knows what upstreams send."""
        return cls(ANSWER_NAMES)

    def special(self, lines: Iterable[bytes], known: Container[bytes] = ()) -> list[bytes] | None:
        """The lines that mean something to the edge, in order; None when any of all lines is malformed.

        ``known`` are lines of which that is known already, though they may be too secret to be remembered here.
        """
        special = []
        for line in filterfalse(self._plain.__contains__, lines):
            if line in known or line in self._special:
                special.append(line)
                continue
            name = line.partition(b":")[0]
            habit = self._habits.get(name)
            if habit is None or not habit.after_name.fullmatch(line, len(name)):
                field = self.read(line)
                if field is None:
                    return None
                habit = self._habit(name, field)
            if habit.special:
                special.append(line)
            else:
                self._remember(line, habit.lines)
        return special

    def read(self, line: bytes) -> Field | None:
        """One line without its CRLF; None when it is not a field line."""
        field = self._special.get(line)
        return field if field is not None else self._parse(line)

    def _parse(self, line: bytes) -> Field | None:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        name = match[1].lower()
        kind = self._classify(name)
        if kind is Kind.REFERER and not (b"?" in line and any(own in line for own in _OWN_PAIRS)):
            kind = Kind.KEEP  # there is nothing in it that must not be forwarded
        field = Field(kind, name, match[2].rstrip(b" \t"), line)
        secret = kind in _UNREMEMBERED or name in _SECRET_NAMES
        if kind and not secret and len(line) <= _LINE_MAX:
            if len(self._special) >= _SPECIAL_MAX:
                self._special.clear()
            self._special[line] = field
        return field

    def _habit(self, name: bytes, field: Field) -> Habit:
        """What a line says about others under its name."""
        referer = field.name == b"referer"
        query = referer and b"?" in field.line
        secret = query or field.name in _SECRET_NAMES
        after_name = _AFTER_NAME_WITHOUT_QUERY if referer else _AFTER_NAME
        habit = Habit(bool(field.kind), after_name, None if secret else [])
        if query or len(name) > _LINE_MAX:
            return habit  # of this one line
        if len(self._habits) >= _NAMES_MAX:
            # Whoever invents so many names costs us more by having them read than by this.
            self._habits.clear()
            self._plain.clear()
        self._habits[name] = habit
        return habit

    def _remember(self, line: bytes, lines: list[bytes] | None) -> None:
        if lines is None or len(line) > _LINE_MAX:
            return
        if len(lines) == _LINES_PER_NAME:
            self._plain.difference_update(lines)
            lines.clear()
        lines.append(line)
        self._plain.add(line)

    def _classify(self, name: bytes) -> Kind:
        kind = self._names.get(name)
        if kind is not None:
            return kind
        # CGI-like apps read "_" as "-": X_Forwarded_For would be believed like the field of that name,
        # which a proxy before us may have cleaned. So a twin of a field that means something goes.
        plain = name.replace(b"_", b"-")
        for prefix, kind in self._prefixes:
            if plain.startswith(prefix):
                return kind if plain == name else Kind.DROP
        if plain != name:
            twin = self._names.get(plain, Kind.KEEP)
            return Kind.FORBIDDEN if twin in _FRAMING else Kind.DROP if twin else Kind.KEEP
        return Kind.KEEP


class Connection(NamedTuple):
    """What a Connection field says (RFC 9110 section 7.6.1). ``names`` are further fields to drop."""

    close: bool
    keep_alive: bool
    upgrade: bool
    names: frozenset[bytes]

    def joined(self, other: Connection) -> Connection:
        """Two Connection fields mean what one with both lists would mean."""
        return Connection(
            self.close or other.close,
            self.keep_alive or other.keep_alive,
            self.upgrade or other.upgrade,
            self.names | other.names,
        )


_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_OPTIONS = frozenset({b"close", b"keep-alive", b"upgrade"})


def read_connection(value: bytes) -> Connection | None:
    """The options of a Connection value; None when it is not a list of tokens."""
    options = {option.strip(b" \t").lower() for option in value.split(b",")} - {b""}
    if not all(map(_TOKEN.fullmatch, options)):
        return None
    return Connection(
        b"close" in options,
        b"keep-alive" in options,
        b"upgrade" in options,
        frozenset(options - _OPTIONS),
    )


NO_CONNECTION = Connection(False, False, False, frozenset())


_VALUE_MAX = 128
_remembered = lru_cache(maxsize=256)(read_connection)


def known_connection(value: bytes) -> Connection | None:
    """`read_connection` with a bounded memory; there are a handful of values in the wild.

    Long values are not remembered: a stranger's thousand options would stay for as long as we run.
    """
    return _remembered(value) if len(value) <= _VALUE_MAX else read_connection(value)


_LENGTH = re.compile(rb"[0-9]{1,18}")


def read_length(value: bytes) -> int | None:
    """A Content-Length value in bytes; None when it is not plain digits (RFC 9112 section 6.3, rule 5)."""
    return int(value) if _LENGTH.fullmatch(value) else None
