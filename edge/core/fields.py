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
from enum import IntEnum
from functools import lru_cache
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

_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t -~\x80-\xff]*)")
_LINE_MAX = 256
_CACHE_MAX = 4096


def has_half_end(data: bytes | bytearray, searched: int = 0) -> bool:
    """Whether a CR or an LF stands alone: no line with one can become a good one (RFC 9112 section 2.2).

    ``searched`` bytes were found good before; the last of them may be a CR whose LF has come only now.
    Counted, because a pattern takes ten times as long for a head of 64 kB.
    """
    start = searched - 1 if searched and data[searched - 1] == 0x0D else searched
    new = data[start:]
    ends = new.count(b"\r\n")
    return new.count(b"\n") != ends or new.count(b"\r") - new.endswith(b"\r") != ends


class FieldReader:
    """Reads field lines of requests (or of answers) and remembers the harmless ones. Bounded."""

    def __init__(
        self, names: dict[bytes, Kind], prefixes: tuple[tuple[bytes, Kind], ...] = ()
    ) -> None:
        self._names = names
        self._prefixes = prefixes
        self._known: dict[bytes, Field] = {}
        self.plain: set[bytes] = set()
        """Lines known to be well-formed and only to be kept: most of any head, for one look each."""

    @classmethod
    def for_requests(cls) -> FieldReader:
        """A reader that knows what clients send."""
        return cls(REQUEST_NAMES, _REQUEST_PREFIXES)

    @classmethod
    def for_answers(cls) -> FieldReader:
        """A reader that knows what upstreams send."""
        return cls(ANSWER_NAMES)

    def read(self, line: bytes) -> Field | None:
        """One line without its CRLF; None when it is not a field line."""
        field = self._known.get(line)
        return field if field is not None else self._parse(line)

    def _parse(self, line: bytes) -> Field | None:
        match = _LINE.fullmatch(line)
        if match is None:
            return None
        name = match[1].lower()
        kind = self._classify(name)
        if kind is Kind.REFERER and b"?" not in line:
            kind = Kind.KEEP  # only a query can hold what must not be forwarded
        field = Field(kind, name, match[2].rstrip(b" \t"), line)
        if len(line) <= _LINE_MAX and kind not in _UNREMEMBERED and name not in _SECRET_NAMES:
            if len(self._known) >= _CACHE_MAX:
                self._known.clear()
                self.plain.clear()
            self._known[line] = field
            if not kind:
                self.plain.add(line)
        return field

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
