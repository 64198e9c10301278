"""The header section of a request: every field line read, filed and judged as a whole.

Most field lines mean nothing to the edge and go through as they are; a handful does (`special`): Host,
Connection, Cookie, what frames and what authorises. On a connection those few hardly ever change, while
the others do (Accept, Sec-Fetch-Dest, If-None-Match). So a `Section`, which is what the special lines
mean together, is shared by the requests of a connection for as long as these repeat, byte for byte, and
what was concluded from them (`Section.passage`) with it. Nothing of it outlives the connection, for it
may hold credentials.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge.core import errors
from edge.core.errors import bad_request
from edge.core.fields import (
    NO_CONNECTION,
    Connection,
    Field,
    FieldReader,
    Kind,
    known_connection,
    read_length,
)

if TYPE_CHECKING:
    from edge.core.decision import Passage

_UPGRADABLE = b"websocket"


@dataclass(slots=True)
class Section:
    """What the fields of a request mean to the edge, and the lines of the latest request they came with.

    ``special`` are the lines with a meaning, as sent and in order; ``outward`` says what goes upstream in
    the place of each: itself, or nothing. ``cookies`` and ``referers`` are (line, value), because they may
    hold a credential. ``length`` is None without Content-Length. ``block`` and ``lines`` are all lines of
    the latest request, those that Connection names blanked. ``passage`` is how the last one was authorised.
    """

    special: list[bytes]
    minor: int
    block: bytes = b""
    lines: list[bytes] = field(default_factory=list)
    outward: dict[bytes, bytes] = field(default_factory=dict)
    host: bytes = b""
    host_line: bytes = b""
    length: int | None = None
    chunked: bool = False
    keep_alive: bool = True
    websocket: bool = False
    proxy_tokens: tuple[bytes, ...] = ()
    traffic_tokens: tuple[bytes, ...] = ()
    cookies: tuple[tuple[bytes, bytes], ...] = ()
    referers: tuple[tuple[bytes, bytes], ...] = ()
    forwarded: tuple[Field, ...] = ()
    via: int = 0
    request_ids: tuple[bytes, ...] = ()
    sharable: bool = True
    passage: Passage | None = None


@dataclass(slots=True)
class _Facts:
    """What is gathered from the field lines before it can be judged as a whole."""

    section: Section
    hosts: int = 0
    lengths: tuple[bytes, ...] = ()
    codings: tuple[bytes, ...] = ()
    connection: Connection = NO_CONNECTION
    upgrades: tuple[bytes, ...] = ()


class SectionScanner:
    """Scans header sections within the given limit. Not thread-safe; one per process is enough."""

    def __init__(self, *, max_fields: int) -> None:
        self._max_fields = max_fields
        self._fields = FieldReader.for_requests()

    def scan(self, block: bytes, minor: int, recent: Sequence[Section] = ()) -> Section:
        """Understand a section. ``block`` has no CRLF at its end. Raises `EdgeError`.

        ``recent`` are sections of the same connection; one of them is the answer where it can be.
        """
        for section in recent:
            if section.block == block and section.minor == minor:
                return section
        lines = block.split(b"\r\n") if block else []
        if len(lines) > self._max_fields:
            raise errors.too_large("limits.header_count")
        special = self._fields.special(lines, recent[0].outward if recent else ())
        if special is None:
            raise bad_request("a header field line is malformed")
        for section in recent:
            if section.special == special and section.minor == minor and section.sharable:
                section.block, section.lines = block, lines
                return section
        return self._understand(Section(special, minor, block, lines))

    def _understand(self, section: Section) -> Section:
        facts = _Facts(section)
        for line in section.special:
            entry = self._fields.read(line)
            assert entry is not None  # `special` has read it
            _FILING[entry.kind](facts, entry)
        if facts.hosts != 1 or not section.host:  # RFC 9112 section 3.2
            raise bad_request("exactly one Host field is needed")
        _judge_framing(section, facts)
        _judge_connection(section, facts)
        return section


# --- Filing: one function a kind of field. What is kept goes outward as it is. --------------------------


def _drop(facts: _Facts, entry: Field) -> None:
    facts.section.outward[entry.line] = b""


def _keep(facts: _Facts, entry: Field) -> None:
    facts.section.outward[entry.line] = entry.line


def _file_host(facts: _Facts, entry: Field) -> None:
    facts.hosts += 1
    facts.section.host, facts.section.host_line = entry.value, entry.line
    _keep(facts, entry)


def _file_cookie(facts: _Facts, entry: Field) -> None:
    facts.section.cookies += ((entry.line, entry.value),)
    _keep(facts, entry)


def _file_referer(facts: _Facts, entry: Field) -> None:
    facts.section.referers += ((entry.line, entry.value),)
    _keep(facts, entry)


def _file_connection(facts: _Facts, entry: Field) -> None:
    read = known_connection(entry.value)
    if read is None:
        raise bad_request("the Connection field is malformed")
    before = facts.connection
    facts.connection = read if before is NO_CONNECTION else before.joined(read)
    _drop(facts, entry)


def _file_length(facts: _Facts, entry: Field) -> None:
    facts.lengths += (entry.value,)
    _drop(facts, entry)


def _file_coding(facts: _Facts, entry: Field) -> None:
    facts.codings += (entry.value,)
    _drop(facts, entry)


def _file_upgrade(facts: _Facts, entry: Field) -> None:
    facts.upgrades += (entry.value,)
    _drop(facts, entry)


def _file_forwarded(facts: _Facts, entry: Field) -> None:
    facts.section.forwarded += (entry,)
    _drop(facts, entry)


def _file_via(facts: _Facts, entry: Field) -> None:
    facts.section.via += entry.value.count(b"preview-edge")
    _keep(facts, entry)


def _file_request_id(facts: _Facts, entry: Field) -> None:
    facts.section.request_ids += (entry.value,)
    _drop(facts, entry)


def _file_expect(facts: _Facts, entry: Field) -> None:
    if facts.section.minor == 1:
        _keep(facts, entry)
    else:  # RFC 9110 section 10.1.1: not understood by 1.0
        _drop(facts, entry)


def _file_proxy_token(facts: _Facts, entry: Field) -> None:
    facts.section.proxy_tokens += (entry.value,)
    _drop(facts, entry)


def _file_traffic_token(facts: _Facts, entry: Field) -> None:
    facts.section.traffic_tokens += (entry.value,)
    _drop(facts, entry)


def _refuse_twin(_: _Facts, entry: Field) -> None:
    raise bad_request(f"the header field {entry.name.decode('ascii')!r} imitates a framing field")


_FILING: Mapping[Kind, Callable[[_Facts, Field], None]] = {
    Kind.HOST: _file_host,
    Kind.COOKIE: _file_cookie,
    Kind.REFERER: _file_referer,
    Kind.CONNECTION: _file_connection,
    Kind.CONTENT_LENGTH: _file_length,
    Kind.TRANSFER_ENCODING: _file_coding,
    Kind.UPGRADE: _file_upgrade,
    Kind.FORWARDED: _file_forwarded,
    Kind.VIA: _file_via,
    Kind.REQUEST_ID: _file_request_id,
    Kind.EXPECT: _file_expect,
    Kind.PROXY_TOKEN: _file_proxy_token,
    Kind.TRAFFIC_TOKEN: _file_traffic_token,
    Kind.FORBIDDEN: _refuse_twin,
    Kind.DROP: _drop,
}


# --- Judging: what the fields mean together -------------------------------------------------------------


def _judge_framing(section: Section, facts: _Facts) -> None:
    """RFC 9112 section 6.3, without its leniencies: whatever two parsers may read differently is refused."""
    if facts.codings:
        if facts.lengths:
            raise bad_request("both Content-Length and Transfer-Encoding")
        if len(facts.codings) != 1 or facts.codings[0].lower() != b"chunked":
            raise bad_request("the only transfer coding is chunked, once")
        if section.minor == 0:
            raise bad_request("Transfer-Encoding with HTTP/1.0")
        section.chunked = True
    elif facts.lengths:
        section.length = read_length(facts.lengths[0]) if len(facts.lengths) == 1 else None
        if section.length is None:
            raise bad_request("Content-Length must be one plain number")


def _judge_connection(section: Section, facts: _Facts) -> None:
    close, keep_alive, upgrade, names = facts.connection
    section.keep_alive = not close and (section.minor == 1 or keep_alive)
    if names:
        _drop_named(section, names)
    if facts.upgrades and upgrade and section.minor == 1:
        offers = {
            offer.strip(b" \t").lower() for value in facts.upgrades for offer in value.split(b",")
        }
        section.websocket = _UPGRADABLE in offers
    if section.websocket:
        _judge_handshake(section)


def _drop_named(section: Section, names: frozenset[bytes]) -> None:
    """Fields that Connection names are for this hop only. Host is never: it is part of the framing."""
    section.sharable = False  # what it says about lines without a meaning, too, is not in `special`
    section.lines = [
        b"" if line != section.host_line and line.partition(b":")[0].lower() in names else line
        for line in section.lines
    ]
    if b"cookie" in names:
        section.cookies = ()
    if b"referer" in names:
        section.referers = ()


def _judge_handshake(section: Section) -> None:
    """RFC 6455 section 4.1: what the fields of an opening handshake must look like."""
    section.sharable = False  # because of the fields judged here
    if section.chunked or section.length:
        raise bad_request("a WebSocket upgrade is a GET without a body")
    if values(section.lines, b"sec-websocket-version") != [b"13"]:
        raise bad_request("Sec-WebSocket-Version must be 13, once")
    try:
        (key,) = values(section.lines, b"sec-websocket-key")
        nonce = base64.b64decode(key, validate=True)
    except ValueError:  # binascii.Error is one; so is any number of keys but one
        nonce = b""
    if len(nonce) != 16:
        raise bad_request("Sec-WebSocket-Key must be 16 bytes in base64, once")


def values(lines: Sequence[bytes], name: bytes) -> list[bytes]:
    """The values of that (lower-case) name, in order; a linear search, for rare questions."""
    parts = (line.partition(b":") for line in lines)
    return [value.strip(b" \t") for key, _, value in parts if key.lower() == name]
