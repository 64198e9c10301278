"""The header section of a request: every field line read, filed and judged as a whole.

Of a connection's requests most carry the very same section, byte for byte (RFC 7541 was made for that).
So a `Section` is scanned once and, while its bytes repeat, shared by the requests of its connection; what
was concluded from those bytes (`Section.passage`) is remembered with it. Nothing of it outlives the
connection, for it may hold credentials.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge.core import errors
from edge.core.errors import EdgeError, bad_request
from edge.core.fields import (
    NO_CONNECTION,
    Connection,
    ConnectionReader,
    Field,
    FieldReader,
    Kind,
    read_length,
)

if TYPE_CHECKING:
    from edge.core.decide import Passage

_UPGRADABLE = b"websocket"


@dataclass(slots=True)
class Section:
    """A header section, understood. ``block`` are its bytes, ``minor`` the HTTP/1 version it came under.

    ``lines`` are the field lines to keep, as sent and in order; the cookie and referer lines among them
    are at the indices ``cookies`` and ``referers`` because they may hold a credential. ``length`` is None
    without Content-Length. ``passage`` is how the request before it was authorised, None at first.
    """

    block: bytes
    minor: int
    lines: list[bytes]
    host: bytes = b""
    host_at: int = -1
    length: int | None = None
    chunked: bool = False
    keep_alive: bool = True
    websocket: bool = False
    expect: bool = False
    proxy_tokens: tuple[bytes, ...] = ()
    traffic_tokens: tuple[bytes, ...] = ()
    cookies: tuple[tuple[int, bytes], ...] = ()
    referers: tuple[tuple[int, bytes], ...] = ()
    forwarded: tuple[Field, ...] = ()
    via: int = 0
    request_ids: tuple[bytes, ...] = ()
    passage: Passage | None = None

    def values(self, name: bytes) -> list[bytes]:
        """Every kept field of that (lower-case) name, in order; a linear search, for rare questions."""
        parts = (line.partition(b":") for line in self.lines)
        return [value.strip(b" \t") for key, _, value in parts if key.lower() == name]


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
        self._connections = ConnectionReader()
        self._filing: dict[Kind, Callable[[_Facts, Field], None]] = {
            Kind.HOST: _file_host,
            Kind.COOKIE: _file_cookie,
            Kind.REFERER: _file_referer,
            Kind.CONNECTION: self._file_connection,
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
        }

    def scan(self, block: bytes, minor: int) -> Section:
        """Understand a section. ``block`` has no CRLF at its end. Raises `EdgeError`."""
        lines = block.split(b"\r\n") if block else []
        if len(lines) > self._max_fields:
            raise EdgeError(errors.REQUEST_HEADER_TOO_LARGE, close=True)
        kept: list[bytes] = []
        section = Section(block, minor, kept)
        facts = _Facts(section)
        plain, filing = self._fields.plain, self._filing
        for line in lines:
            if line in plain:
                kept.append(line)
                continue
            entry = self._fields.read(line)
            if entry is None:
                raise bad_request("a header field line is malformed")
            kind = entry.kind
            if not kind:
                kept.append(line)
            elif kind is not Kind.DROP:
                filing[kind](facts, entry)
        if facts.hosts != 1 or not section.host:  # RFC 9112 section 3.2
            raise bad_request("exactly one Host field is needed")
        _judge_framing(section, facts)
        _judge_connection(section, facts)
        return section

    def _file_connection(self, facts: _Facts, entry: Field) -> None:
        read = self._connections.read(entry.value)
        if read is None:
            raise bad_request("the Connection field is malformed")
        before = facts.connection
        facts.connection = read if before is NO_CONNECTION else before.joined(read)


# --- Filing: one function a kind of field. Kept ones also go to ``section.lines``. ----------------------


def _file_host(facts: _Facts, entry: Field) -> None:
    section = facts.section
    facts.hosts += 1
    section.host, section.host_at = entry.value, len(section.lines)
    section.lines.append(entry.line)


def _file_cookie(facts: _Facts, entry: Field) -> None:
    section = facts.section
    section.cookies += ((len(section.lines), entry.value),)
    section.lines.append(entry.line)


def _file_referer(facts: _Facts, entry: Field) -> None:
    section = facts.section
    section.referers += ((len(section.lines), entry.value),)
    section.lines.append(entry.line)


def _file_length(facts: _Facts, entry: Field) -> None:
    facts.lengths += (entry.value,)


def _file_coding(facts: _Facts, entry: Field) -> None:
    facts.codings += (entry.value,)


def _file_upgrade(facts: _Facts, entry: Field) -> None:
    facts.upgrades += (entry.value,)


def _file_forwarded(facts: _Facts, entry: Field) -> None:
    facts.section.forwarded += (entry,)


def _file_via(facts: _Facts, entry: Field) -> None:
    facts.section.via += entry.value.count(b"preview-edge")
    facts.section.lines.append(entry.line)


def _file_request_id(facts: _Facts, entry: Field) -> None:
    facts.section.request_ids += (entry.value,)


def _file_expect(facts: _Facts, entry: Field) -> None:
    section = facts.section
    if section.minor == 1:  # RFC 9110 section 10.1.1: not understood by 1.0
        section.expect = True
        section.lines.append(entry.line)


def _file_proxy_token(facts: _Facts, entry: Field) -> None:
    facts.section.proxy_tokens += (entry.value,)


def _file_traffic_token(facts: _Facts, entry: Field) -> None:
    facts.section.traffic_tokens += (entry.value,)


def _refuse_twin(_: _Facts, entry: Field) -> None:
    raise bad_request(f"the header field {entry.name.decode('ascii')!r} imitates a framing field")


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
    lines = section.lines
    for index, line in enumerate(lines):
        if index != section.host_at and line.partition(b":")[0].lower() in names:
            lines[index] = b""  # keeps the indices of the others; outbound skips it
    section.cookies = tuple(entry for entry in section.cookies if lines[entry[0]])
    section.referers = tuple(entry for entry in section.referers if lines[entry[0]])
    if b"expect" in names:
        section.expect = False


def _judge_handshake(section: Section) -> None:
    """RFC 6455 section 4.1: what the fields of an opening handshake must look like."""
    if section.chunked or section.length:
        raise bad_request("a WebSocket upgrade is a GET without a body")
    if section.values(b"sec-websocket-version") != [b"13"]:
        raise bad_request("Sec-WebSocket-Version must be 13, once")
    try:
        (key,) = section.values(b"sec-websocket-key")
        nonce = base64.b64decode(key, validate=True)
    except ValueError:  # binascii.Error is one; so is any number of keys but one
        nonce = b""
    if len(nonce) != 16:
        raise bad_request("Sec-WebSocket-Key must be 16 bytes in base64, once")
