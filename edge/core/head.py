"""Scanning: one pass over a request head, from bytes to everything the edge will ever ask about it.

`RequestScanner.scan` is pure: bytes in, `Head` out, or an `EdgeError` for what RFC 9112 (or the list
of ambiguities in section 11 of it) says must not pass. Nobody after it sees raw header fields, and
what goes upstream is built from the Head (``outbound.py``), framed anew.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

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

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]+) HTTP/1\.([01])")
_ABSOLUTE = re.compile(rb"https?://([^/?#]+)(/[^#]*|\?[^#]*|)", re.IGNORECASE)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_TOKEN_PAIR, _MARKER_PAIR = b"edge_token", b"__ns_preview_transport"
_REFUSED_METHODS = frozenset({b"TRACE", b"CONNECT"})
_BODILESS_METHODS = frozenset({b"GET", b"HEAD"})
ALLOW = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


@dataclass(slots=True)
class Head:
    """A request head, understood.

    ``target`` is what goes upstream: origin-form (or ``*``), without the edge's own query pairs.
    ``path`` is the path alone, for logs. ``lines`` are the field lines to keep, as sent and in order;
    the cookie and referer lines among them are at the indices ``cookies`` and ``referers`` because
    they may hold a credential. ``length`` is None for a request without Content-Length.
    """

    method: bytes
    target: bytes
    path: bytes
    minor: int
    host: bytes = b""
    host_at: int = -1
    lines: list[bytes] = field(default_factory=list)
    length: int | None = None
    chunked: bool = False
    keep_alive: bool = True
    websocket: bool = False
    expect: bool = False
    edge_tokens: tuple[bytes, ...] = ()
    proxy_marker: bool = False
    proxy_tokens: list[bytes] = field(default_factory=list)
    traffic_tokens: list[bytes] = field(default_factory=list)
    cookies: list[tuple[int, bytes]] = field(default_factory=list)
    referers: list[tuple[int, bytes]] = field(default_factory=list)
    forwarded: list[Field] = field(default_factory=list)
    via: int = 0
    request_ids: list[bytes] = field(default_factory=list)

    @property
    def has_body(self) -> bool:
        """Whether body bytes follow the head."""
        return self.chunked or bool(self.length)

    @property
    def proxy_mode(self) -> bool:
        """Whether a customer's own proxy asks (contract: the header, or the marker, means proxy mode)."""
        return self.proxy_marker or bool(self.proxy_tokens)

    @property
    def request_id(self) -> bytes | None:
        """The client's request id when it sent exactly one and it is well-formed."""
        ids = self.request_ids
        return ids[0] if len(ids) == 1 and _REQUEST_ID.fullmatch(ids[0]) else None

    def value(self, name: bytes) -> bytes | None:
        """The first kept field of that (lower-case) name; a linear search, for rare questions."""
        values = self.values(name)
        return values[0] if values else None

    def values(self, name: bytes) -> list[bytes]:
        """Every kept field of that (lower-case) name, in order."""
        parts = (line.partition(b":") for line in self.lines)
        return [value.strip(b" \t") for key, _, value in parts if key.lower() == name]


@dataclass(slots=True)
class _Facts:
    """What is gathered from the field lines before it can be judged as a whole."""

    hosts: list[bytes] = field(default_factory=list)
    lengths: list[bytes] = field(default_factory=list)
    codings: list[bytes] = field(default_factory=list)
    connection: Connection = NO_CONNECTION
    upgrades: list[bytes] = field(default_factory=list)


class RequestScanner:
    """Scans heads within the given limits. Not thread-safe; one per process is enough."""

    def __init__(self, *, max_fields: int, max_line: int) -> None:
        self._max_fields = max_fields
        self._max_line = max_line
        self._fields = FieldReader.for_requests()
        self._connections = ConnectionReader()

    def scan(self, block: bytes) -> Head:
        """Understand a head. ``block`` ends before the empty line. Raises `EdgeError`."""
        first, *lines = block.split(b"\r\n")
        if len(first) > self._max_line or len(lines) > self._max_fields:
            raise EdgeError(errors.REQUEST_HEADER_TOO_LARGE, close=True)
        head = _request_line(first)
        facts = self._gather(head, lines)
        _judge_host(head, facts)
        _judge_framing(head, facts)
        _judge_connection(head, facts)
        return head

    def _gather(self, head: Head, lines: list[bytes]) -> _Facts:
        facts = _Facts()
        read, kept = self._fields.read, head.lines
        for line in lines:
            entry = read(line)
            if entry is None:
                raise bad_request("a header field line is malformed")
            if not entry[0]:
                kept.append(line)
            elif entry[0] is not Kind.DROP:
                self._special(head, facts, entry)
        return facts

    def _special(self, head: Head, facts: _Facts, entry: Field) -> None:
        """File a field that means something to the edge. Kept ones also stay in ``head.lines``."""
        kind, name, value, line = entry
        match kind:
            case Kind.HOST:
                head.host_at = len(head.lines)
                head.lines.append(line)
                facts.hosts.append(value)
            case Kind.COOKIE:
                head.cookies.append((len(head.lines), value))
                head.lines.append(line)
            case Kind.REFERER:
                head.referers.append((len(head.lines), value))
                head.lines.append(line)
            case Kind.CONNECTION:
                self._connection(facts, value)
            case Kind.CONTENT_LENGTH:
                facts.lengths.append(value)
            case Kind.TRANSFER_ENCODING:
                facts.codings.append(value)
            case Kind.UPGRADE:
                facts.upgrades.append(value)
            case Kind.FORWARDED:
                head.forwarded.append(entry)
            case Kind.VIA:
                head.via += value.count(b"preview-edge")
                head.lines.append(line)
            case Kind.REQUEST_ID:
                head.request_ids.append(value)
            case Kind.EXPECT:
                head.expect = head.minor == 1
                if head.minor == 1:  # RFC 9110 section 10.1.1: not understood by 1.0
                    head.lines.append(line)
            case Kind.PROXY_TOKEN:
                head.proxy_tokens.append(value)
            case Kind.TRAFFIC_TOKEN:
                head.traffic_tokens.append(value)
            case _:
                raise bad_request(
                    f"the header field {name.decode('ascii')!r} imitates a framing field"
                )

    def _connection(self, facts: _Facts, value: bytes) -> None:
        read = self._connections.read(value)
        if read is None:
            raise bad_request("the Connection field is malformed")
        facts.connection = facts.connection.joined(read)


def _request_line(line: bytes) -> Head:
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise bad_request("the request line is malformed, or not HTTP/1.0 or HTTP/1.1")
    method, target, minor = match[1], match[2], int(match[3])
    if method in _REFUSED_METHODS:
        raise EdgeError(
            errors.METHOD_NOT_ALLOWED, {"method": method.decode()}, close=True, allow=ALLOW
        )
    authority = b""
    if target[0:1] != b"/":
        authority, target = _unusual_target(method, target)
    if b"#" in target:
        raise bad_request("the request target has a fragment")
    head = Head(method, target, target, minor, authority)
    path, question, query = target.partition(b"?")
    if question:
        head.path = path
        if b"edge_token" in query or b"__ns_preview" in query:
            _take_credentials(head, path, query)
    return head


def _unusual_target(method: bytes, target: bytes) -> tuple[bytes, bytes]:
    """Authority and origin-form of an absolute-form target (RFC 9112 section 3.2.2), or ``*``."""
    if target == b"*" and method == b"OPTIONS":
        return b"", target
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise bad_request("the request target is neither a path nor an absolute URI")
    rest = match[2]
    return match[1], rest if rest.startswith(b"/") else b"/" + rest


def _take_credentials(head: Head, path: bytes, query: bytes) -> None:
    """Move the edge's own pairs out of the query; everything else stays byte for byte."""
    kept, tokens = [], []
    for pair in query.split(b"&"):
        name, equals, value = pair.partition(b"=")
        if equals and name == _TOKEN_PAIR:
            tokens.append(unquote_to_bytes(value) if b"%" in value else value)
        elif equals and name == _MARKER_PAIR:
            head.proxy_marker = head.proxy_marker or value == b"header"
        else:
            kept.append(pair)
    head.edge_tokens = tuple(dict.fromkeys(tokens))
    rest = b"&".join(kept)
    head.target = path + b"?" + rest if rest else path


def strip_query_credentials(url: bytes) -> bytes:
    """A URL without the edge's own query pairs, all else byte for byte (for Referer)."""
    if b"edge_token=" not in url and b"__ns_preview_transport=" not in url:
        return url
    front, _, query = url.partition(b"?")
    names = (_TOKEN_PAIR + b"=", _MARKER_PAIR + b"=")
    pairs = query.split(b"&")
    kept = [pair for pair in pairs if not pair.startswith(names)]
    if len(kept) == len(pairs):
        return url
    rest = b"&".join(kept)
    return front + b"?" + rest if rest else front


def _judge_host(head: Head, facts: _Facts) -> None:
    """RFC 9112 section 3.2: exactly one Host; an absolute-form target must agree with it."""
    if len(facts.hosts) != 1 or not facts.hosts[0]:
        raise bad_request("exactly one Host field is needed")
    if head.host and head.host.lower() != facts.hosts[0].lower():
        raise bad_request("the request target and the Host field name different hosts")
    head.host = facts.hosts[0]


def _judge_framing(head: Head, facts: _Facts) -> None:
    """RFC 9112 section 6.3, without its leniencies: whatever two parsers may read differently is refused."""
    if facts.codings:
        if facts.lengths:
            raise bad_request("both Content-Length and Transfer-Encoding")
        if len(facts.codings) != 1 or facts.codings[0].lower() != b"chunked":
            raise bad_request("the only transfer coding is chunked, once")
        if head.minor == 0 or head.method in _BODILESS_METHODS:
            raise bad_request("Transfer-Encoding with HTTP/1.0 or on GET or HEAD")
        head.chunked = True
    elif facts.lengths:
        head.length = read_length(facts.lengths[0]) if len(facts.lengths) == 1 else None
        if head.length is None:
            raise bad_request("Content-Length must be one plain number")


def _judge_connection(head: Head, facts: _Facts) -> None:
    connection = facts.connection
    head.keep_alive = not connection.close and (head.minor == 1 or connection.keep_alive)
    if connection.names:
        _drop_named(head, connection.names)
    if facts.upgrades and connection.upgrade and head.minor == 1:
        offers = {
            offer.strip(b" \t").lower() for value in facts.upgrades for offer in value.split(b",")
        }
        head.websocket = b"websocket" in offers
    if head.websocket:
        _judge_handshake(head)


def _drop_named(head: Head, names: frozenset[bytes]) -> None:
    """Fields that Connection names are for this hop only. Host is never: it is part of the framing."""
    for index, line in enumerate(head.lines):
        if index != head.host_at and line.partition(b":")[0].lower() in names:
            head.lines[index] = b""  # keeps the indices of the others; outbound skips it
    head.cookies = [entry for entry in head.cookies if head.lines[entry[0]]]
    head.referers = [entry for entry in head.referers if head.lines[entry[0]]]
    if b"expect" in names:
        head.expect = False


def _judge_handshake(head: Head) -> None:
    """RFC 6455 section 4.1: what an opening handshake must look like."""
    if head.method != b"GET" or head.has_body:
        raise bad_request("a WebSocket upgrade is a GET without a body")
    if head.values(b"sec-websocket-version") != [b"13"]:
        raise bad_request("Sec-WebSocket-Version must be 13, once")
    try:
        (key,) = head.values(b"sec-websocket-key")
        nonce = base64.b64decode(key, validate=True)
    except ValueError:  # binascii.Error is one; so is any number of keys but one
        nonce = b""
    if len(nonce) != 16:
        raise bad_request("Sec-WebSocket-Key must be 16 bytes in base64, once")
