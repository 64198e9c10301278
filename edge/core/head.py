"""Scanning: one pass over a request head, from bytes to everything the edge will ever ask about it.

`RequestScanner.scan` is pure: bytes in, `Head` out, or an `EdgeError` for what RFC 9112 (or the list
of ambiguities in section 11 of it) says must not pass. Nobody after it sees raw header fields, and
what goes upstream is built from the Head (``outbound.py``), framed anew.

A Head is what the request line says plus a `Section`, the header fields, which repeated requests share.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from edge.core import errors
from edge.core.errors import EdgeError, bad_request
from edge.core.section import Section, SectionScanner, values

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ([!-~]+) HTTP/1\.([01])")
_METHOD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]{1,32}) ")
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
    ``path`` is the path alone, for logs. ``lines`` are all field lines, as sent. ``edge_tokens`` and
    ``proxy_marker`` were taken from the query.
    """

    method: bytes
    target: bytes
    path: bytes
    section: Section
    lines: list[bytes]
    edge_tokens: tuple[bytes, ...] = ()
    proxy_marker: bool = False

    @property
    def host(self) -> bytes:
        """The value of Host."""
        return self.section.host

    @property
    def websocket(self) -> bool:
        """Whether it asks for an upgrade to WebSocket."""
        return self.section.websocket

    @property
    def has_body(self) -> bool:
        """Whether body bytes follow the head."""
        return self.section.chunked or bool(self.section.length)

    @property
    def proxy_mode(self) -> bool:
        """Whether a customer's own proxy asks (contract: the header, or the marker, means proxy mode)."""
        return self.proxy_marker or bool(self.section.proxy_tokens)

    @property
    def request_id(self) -> bytes | None:
        """The client's request id when it sent exactly one and it is well-formed."""
        ids = self.section.request_ids
        return ids[0] if len(ids) == 1 and _REQUEST_ID.fullmatch(ids[0]) else None

    def value(self, name: bytes) -> bytes | None:
        """The first kept field of that (lower-case) name; a linear search, for rare questions."""
        found = values(self.lines, name)
        return found[0] if found else None

    def values(self, name: bytes) -> list[bytes]:
        """Every kept field of that (lower-case) name, in order."""
        return values(self.lines, name)


class RequestScanner:
    """Scans heads within the given limits. Not thread-safe; one per process is enough."""

    def __init__(self, *, max_fields: int, max_line: int) -> None:
        self._max_line = max_line
        self._sections = SectionScanner(max_fields=max_fields)

    def scan(self, block: bytes, recent: Sequence[Section] = ()) -> Head:
        """Understand a head. ``block`` ends before the empty line. Raises `EdgeError`.

        ``recent`` are sections of earlier requests of the same connection, see `SectionScanner.scan`.
        """
        line, _, fields = block.partition(b"\r\n")
        if len(line) > self._max_line:
            raise errors.too_large("limits.request_line")
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise bad_request("the request line is malformed, or not HTTP/1.0 or HTTP/1.1")
        method, target, version = match.groups()
        if method in _REFUSED_METHODS:
            raise EdgeError(
                errors.METHOD_NOT_ALLOWED, {"method": method.decode()}, close=True, allow=ALLOW
            )
        authority = b""
        whole_server = False
        if target[0] != 0x2F:  # "/"
            authority, target, pathless = _unusual_target(method, target)
            whole_server = pathless and method == b"OPTIONS"
        if b"#" in target:
            raise bad_request("the request target has a fragment")
        minor = 1 if version == b"1" else 0
        section = self._sections.scan(fields, minor, recent)
        if authority and authority.lower() != section.host.lower():
            raise bad_request("the request target and the Host field name different hosts")
        if section.chunked and method in _BODILESS_METHODS:
            raise bad_request("Transfer-Encoding on GET or HEAD")
        if section.websocket and method != b"GET":
            raise bad_request("a WebSocket upgrade is a GET without a body")
        path, question, query = target.partition(b"?")
        head = Head(method, target, path, section, section.lines)
        if question and (b"edge_token" in query or b"__ns_preview" in query):
            _take_credentials(head, path, query)
        if whole_server and head.target == b"/":
            # RFC 9112 section 3.2.4: the last proxy sends a "*" for a URI with neither path nor query.
            head.target = head.path = b"*"
        return head


def glimpse(data: bytes) -> Head | None:
    """What can be told of a head that was refused or is not complete: the method, and who asks.

    Good for the shape of the answer to it, and for nothing else: no line of it was checked. None where not
    even a method can be read.
    """
    match = _METHOD.match(data)
    if match is None:
        return None
    line, _, block = data.partition(b"\r\n")
    lines = block.split(b"\r\n")
    section = Section([], 1, block, lines, keep_alive=False)
    section.websocket = bool(values(lines, b"upgrade"))
    section.proxy_tokens = tuple(values(lines, b"x-nullspace-preview-proxy-token"))
    marker = _MARKER_PAIR + b"=header" in line
    return Head(match[1], b"", b"", section, lines, proxy_marker=marker)


def _unusual_target(method: bytes, target: bytes) -> tuple[bytes, bytes, bool]:
    """Authority and origin-form of an absolute-form target (RFC 9112 section 3.2.2), or ``*``.

    And whether it is a URI without a path.
    """
    if target == b"*" and method == b"OPTIONS":
        return b"", target, False
    match = _ABSOLUTE.fullmatch(target)
    if match is None:
        raise bad_request("the request target is neither a path nor an absolute URI")
    rest = match[2]
    pathless = not rest.startswith(b"/")
    return match[1], b"/" + rest if pathless else rest, pathless


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
