"""Wires for tests: ways to feed bytes, independent parsers as oracles, and nasty pieces to build heads from."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import h11
import httptools
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_parser import HttpRequestParser
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from edge.core.head import Head, RequestScanner

HOST = b"3000-sb-aaaaaaaa.preview.example"
TAIL = b"GET /canary HTTP/1.1\r\n"

FACTOR = int(os.environ.get("FUZZ_FACTOR", "1"))
"""How many times more examples than usual are tried; ``make fuzz`` raises it."""

calm = settings(
    deadline=None,
    database=None,
    max_examples=200 * FACTOR,
    derandomize=FACTOR == 1,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


def examples(count: int) -> settings:
    """So many examples, always the same ones in `make test`, ever new ones in `make fuzz`."""
    if FACTOR == 1:
        return settings(calm, max_examples=count)
    return settings(
        calm, max_examples=count * FACTOR, database=DirectoryBasedExampleDatabase(".hypothesis")
    )


def scanner(max_fields: int = 128, max_line: int = 16384) -> RequestScanner:
    """A scanner with the default limits of the settings."""
    return RequestScanner(max_fields=max_fields, max_line=max_line)


def scan(block: bytes) -> Head:
    """Scan with a fresh scanner, so that nothing remembered helps."""
    return scanner().scan(block)


def kept(head: Head) -> list[bytes]:
    """The lines that go upstream, in order: what stands in their place, and nothing for dropped ones."""
    outward = head.section.outward
    return [line for line in (outward.get(line, line) for line in head.lines) if line]


def request(*lines: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes | None = HOST) -> bytes:
    """A head block without its empty line."""
    hosts = [] if host is None else [b"Host: " + host]
    return b"\r\n".join([line, *hosts, *lines])


def pieces(data: bytes) -> Iterator[list[bytes]]:
    """The same bytes whole, byte by byte, and in two halves at every fifth place."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for i in range(1, len(data), 5):
        yield [data[:i], data[i:]]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """The same bytes, cut at these places (modulo their length)."""
    at = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


class Seen(NamedTuple):
    """One request as a parser understood it."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    framing: str
    """``none``, ``chunked``, ``upgrade`` or the length in bytes."""

    def values(self, name: bytes) -> list[bytes]:
        """The values of that lower-case name."""
        return [value for key, value in self.headers if key == name]


def by_h11(head: bytes) -> Seen:
    """One request head through h11. Raises `h11.RemoteProtocolError`."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=200_000)
    connection.receive_data(head)
    event = connection.next_event()
    assert isinstance(event, h11.Request), event
    headers = list(event.headers)
    names = dict(headers)
    if b"transfer-encoding" in names:
        framing = "chunked"
    elif names.get(b"content-length", b"0") != b"0":
        framing = str(int(names[b"content-length"]))
    else:
        framing = "none"
    if b"upgrade" in names:
        framing = "upgrade"
    return Seen(event.method, event.target, headers, framing)


TRAILERS_AS_HEADERS = (
    "multiple Transfer-Encoding",
    "Only Transfer-Encoding",
    "conflicting Content-Length",
    "bad Content-Length",
)
"""What h11 says of trailers that nobody frames by: it reads them by the rules for headers."""

_LOOP = asyncio.SelectorEventLoop()


def by_aiohttp(head: bytes) -> list[Seen]:
    """Every request aiohttp's C parser finds. Raises its HttpProcessingError."""
    parser = HttpRequestParser(
        BaseProtocol(_LOOP),
        _LOOP,
        65536,
        max_line_size=70_000,
        max_field_size=70_000,
        max_headers=300,
        auto_decompress=False,
    )
    messages, upgraded, _ = parser.feed_data(head)
    seen = []
    for message, _ in messages:
        length = message.headers.get("Content-Length", "0")
        framing = "chunked" if message.chunked else "none" if int(length) == 0 else length
        headers = [(name.lower(), value) for name, value in message.raw_headers]
        path = message.path.encode("utf-8", "surrogateescape")
        seen.append(
            Seen(message.method.encode(), path, headers, "upgrade" if upgraded else framing)
        )
    return seen


class _Collector:
    def __init__(self) -> None:
        self.begun = self.complete = 0
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self.complete += 1


def by_httptools(head: bytes, body: bytes) -> tuple[int, int, Seen]:
    """Messages begun, messages complete, and the request httptools sees in head plus body."""
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    framing = "none"
    try:
        parser.feed_data(head + body)
    except httptools.HttpParserUpgrade:
        framing = "upgrade"
    values = dict(collector.headers)
    if framing != "upgrade" and b"transfer-encoding" in values:
        framing = "chunked"
    elif framing != "upgrade" and int(values.get(b"content-length", b"0")):
        framing = values[b"content-length"].decode()
    seen = Seen(parser.get_method(), collector.url, collector.headers, framing)
    return collector.begun, collector.complete, seen


def framing_of(head: Head) -> str:
    """How our own scan framed it, in the words of `Seen`."""
    if head.websocket:
        return "upgrade"
    if head.section.chunked:
        return "chunked"
    return str(head.section.length) if head.section.length else "none"


def body_for(head: Head) -> bytes:
    """A body of that framing."""
    return b"1\r\nx\r\n0\r\n\r\n" if head.section.chunked else b"x" * (head.section.length or 0)


# --- what heads are made of -----------------------------------------------------------------------

KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    KEY,
    b"Sec-WebSocket-Version: 13",
)
METHODS = (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")
TARGETS = (
    b"/",
    b"/a/b%20c?x=1&y=%2F",
    b"//double?",
    b"/?edge_token=abc",
    b"/p?a=1&edge_token=abc.def&b=2&__ns_preview_transport=header",
    b"/p?edge_token&=&&edge_token=",
    b'/{}|"<>\\^`[]',
    b"http://" + HOST + b"/abs?x",
    b"https://" + HOST,
)
BAD_TARGETS = (
    b"*",
    b"http://other.example/",
    b"/a#b",
    b"/caf\xc3\xa9",
    b"noslash",
)
LINES = (
    b"Accept: text/html, */*;q=0.1",
    b"Accept-Language:de",
    b"X-Empty:",
    b"X-Tab:\ta\tb\t",
    b"X-Latin: caf\xe9",
    b"X_Custom: 1",
    b"Connection: close",
    b"Connection: keep-alive, close",
    b"Connection: host, cookie, content-length, transfer-encoding, x-forwarded-for, via",
    b"Connection: x-nullspace-preview-proxy-token, x-request-id, sec-websocket-key",
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAAQAAP__",
    b"Cookie: a=1; ns_preview=x; b=2",
    b"Cookie: ns_preview=x",
    b'Cookie: q="a; ns_preview=y;"',
    b"Referer: https://" + HOST + b"/?edge_token=abc&a=1",
    b"Referer: /edge_token=abc",
    b"X-Forwarded-For: 10.0.0.1",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: evil.example",
    b"X_Forwarded_For: 10.6.6.6",
    b"Forwarded: for=10.0.0.1;proto=https",
    b"Via: 1.1 preview-edge, 1.1 other",
    b"X-Request-Id: abc.DEF-1",
    b"X-Request-Id: bad id",
    b"Expect: 100-continue",
    b"TE: trailers",
    b"Trailer: X-Sum",
    b"X-Nullspace-Preview-Proxy-Token: t",
    b"X_Nullspace_Traffic_Access_Token: t",
    *UPGRADE,
)
BODIES = (
    b"Content-Length: 0",
    b"Content-Length: 5",
    b"Content-Length: 0005",
    b"content-length:\t7 ",
    b"Transfer-Encoding: chunked",
    b"transfer-encoding:CHUNKED",
)
BAD_LINES = (
    b"Content-Length: 5, 5",
    b"Content-Length: +5",
    b"Content-Length: 5 5",
    b"Content-Length: 1" + b"0" * 20,
    b"Content_Length: 5",
    b"Transfer-Encoding: gzip, chunked",
    b"Transfer-Encoding: identity",
    b"Transfer-Encoding: chunked;q=1",
    b"Transfer-Encoding: \x0bchunked",
    b"Transfer_Encoding: chunked",
    b"Transfer-Encoding : chunked",
    b" folded: yes",
    b"X: a\nTransfer-Encoding: chunked",
    b"X: a\rb",
    b"X: a\x00b",
    b"Connection: a b",
    b"Host: second.example",
    b"no colon",
    b": no name",
    b"",
    *BODIES,
)


@st.composite
def blocks(draw: Callable[[Any], Any]) -> bytes:
    """Head blocks, good and bad: nasty lines in any order, sometimes with one byte put in or taken out."""
    odd = draw(st.integers(0, 3)) == 0
    method = draw(st.sampled_from(METHODS))
    target = draw(st.sampled_from(TARGETS + BAD_TARGETS * odd))
    version = draw(st.sampled_from((b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0")))
    lines = draw(st.lists(st.sampled_from(LINES + BAD_LINES * odd), max_size=6))
    if draw(st.integers(0, 4)) == 0:
        lines += UPGRADE
    elif method not in (b"GET", b"HEAD") or odd:
        lines += draw(st.lists(st.sampled_from(BODIES), max_size=1))
    lines.insert(draw(st.integers(0, len(lines))), b"Host: " + HOST)
    block = b"\r\n".join([b"%b %b %b" % (method, target, version), *lines])
    if odd and draw(st.booleans()):
        at = draw(st.integers(0, len(block)))
        put = draw(
            st.sampled_from((b"\r", b"\n", b"\0", b" ", b"\t", b",", b"\x7f", b"\xff", b":"))
        )
        block = block[:at] + put + block[at + draw(st.integers(0, 1)) :]
    # The listener cuts at the first empty line; scan never sees one.
    return block.partition(b"\r\n\r\n")[0]
