"""Requests and answers to try the data path with: generated good ones, recorded ones, and both spoilt.

A generated message says beside its bytes what every correct reader must find in them. ``@T`` in a
request stands for an edge token, so that mutations are spent on HTTP and not on the signature.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hypothesis import strategies as st

from tests.core.wires import HOST, UPGRADE

TOKEN_HERE = b"@T"


def bare(data: bytes) -> bytes:
    """The bytes as they are for tests that need no valid token."""
    return data.replace(TOKEN_HERE, b"token")


# --- requests -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """A well-formed request: its bytes, and what they mean. ``path`` has no query."""

    wire: bytes
    method: bytes
    path: bytes
    payload: bytes
    minor: int
    closes: bool


FIELDS = (
    b"Accept: text/html, */*;q=0.1",
    b"accept-language:de",
    b"X-Empty:",
    b"X-Tab:\ta\tb\t ",
    b"X-Latin: caf\xe9",
    b"X-Long: " + b"x" * 300,
    b"X_Custom: 1",
    b"Connection: keep-alive",
    b"Connection: x-empty, ,te",
    b"Connection: content-length, transfer-encoding, host",
    b"Connection: Upgrade, HTTP2-Settings",
    b"Upgrade: h2c",
    b"Keep-Alive: timeout=5",
    b"Cookie: a=1; b=2; =; q",
    b"Referer: https://" + HOST + b"/?edge_token=abc&a=1",
    b"X-Forwarded-For: 10.0.0.1",
    b"Forwarded: for=10.0.0.1;proto=https",
    b"X-Request-Id: abc.DEF-1",
    b"X-Request-Id: bad id",
    b"Expect: 100-continue",
    b"TE: trailers",
    b"Trailer: X-Sum",
    b"Range: bytes=0-1",
)
TRAILERS = (
    b"X-Sum: 1",
    b"x-empty:",
    b"Content-Length: 7",
    b"Transfer-Encoding: chunked",
    b"N: \xe9",
)
_SUFFIXES = (b"", b"/", b"//x", b"/%2e%2e/%00", b"/;a=b", b'/{}|"<>\\^`[]', b"/" + b"y" * 200)
_QUERIES = (b"?edge_token=@T", b"?a=%20&edge_token=@T&b", b"?edge_token=@T&&a=?/&edge_token=@T")
_BODIES = st.lists(
    st.binary(min_size=1, max_size=40) | st.just(b"HTTP/1.1 200 OK\r\n\r\n"), max_size=4
)


@st.composite
def chunked(draw: st.DrawFn, parts: list[bytes]) -> bytes:
    """The parts in the chunked coding, in any of the spellings the RFC allows."""
    out = b""
    for part in parts:
        size = draw(
            st.sampled_from([b"%x", b"%x", b"%X", b"000%x", b"%x;a=b", b'%x;q="\t;"', b"%x;"])
        )
        out += size % len(part) + b"\r\n" + part + b"\r\n"
    out += draw(st.sampled_from([b"0", b"0", b"0000", b"0;last"])) + b"\r\n"
    for line in draw(st.lists(st.sampled_from(TRAILERS), max_size=2, unique=True)):
        out += line + b"\r\n"
    return out + b"\r\n"


@st.composite
def asked(draw: st.DrawFn, number: int, *, last: bool = False) -> Asked:
    """The request of that number, its number in its path; ``last``: it ends its connection."""
    minor = draw(st.sampled_from([1, 1, 1, 0]))
    framing = draw(st.sampled_from(["none", "none", "length", "chunked" if minor else "length"]))
    bodied = [b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"]
    methods = bodied if framing == "chunked" else [b"GET", b"GET", b"HEAD", *bodied]
    method = draw(st.sampled_from(methods))
    path = b"/n/%d" % number + draw(st.sampled_from(_SUFFIXES))
    origin = draw(st.sampled_from([b"", b"", b"http://" + HOST.upper()]))
    target = origin + path + draw(st.sampled_from(_QUERIES))
    lines = draw(st.lists(st.sampled_from(FIELDS), max_size=4))
    parts = draw(_BODIES) if framing != "none" else []
    payload = b"".join(parts)
    if framing == "length":
        name = draw(
            st.sampled_from([b"Content-Length: ", b"content-length:\t", b"CONTENT-LENGTH:00"])
        )
        lines.append(name + b"%d" % len(payload) + draw(st.sampled_from([b"", b" \t"])))
        body = payload
    elif framing == "chunked":
        lines.append(
            draw(st.sampled_from([b"Transfer-Encoding: chunked", b"transfer-encoding:CHUNKED"]))
        )
        body = draw(chunked(parts))
    else:
        body = b""
    lines.append(draw(st.sampled_from([b"Host: ", b"host:"])) + HOST)
    if last:
        lines.append(b"Connection: close")
    lines = draw(st.permutations(lines))
    kept = b"Connection: keep-alive" in lines
    early = draw(st.sampled_from([b"", b"", b"", b"\r\n"]))
    head = b"%b %b HTTP/1.%d\r\n" % (method, target, minor)
    wire = early + head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body
    return Asked(wire, method, path, payload, minor, closes=last or (minor == 0 and not kept))


@st.composite
def conversations(draw: st.DrawFn, most: int = 4) -> list[Asked]:
    """Pipelined requests of one connection; the last one ends it, whatever the others do."""
    count = draw(st.integers(1, most))
    out = []
    for number in range(count):
        one = draw(asked(number, last=number == count - 1))
        out.append(one)
        if one.closes:
            break
    return out


_H = b"Host: " + HOST + b"\r\n"
RECORDED_REQUESTS = (
    b"GET /?edge_token=@T HTTP/1.1\r\n" + _H + b"User-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n",
    b"GET /app.js?edge_token=@T&v=1 HTTP/1.1\r\n" + _H
    + b"Connection: keep-alive\r\nsec-ch-ua-mobile: ?0\r\nAccept: */*\r\nSec-Fetch-Mode: no-cors\r\n"
    + b"Referer: http://" + HOST + b"/\r\nAccept-Encoding: gzip, br\r\nCookie: a=1; theme=dark\r\n\r\n",
    b"POST /form?edge_token=@T HTTP/1.1\r\n" + _H
    + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 11\r\n\r\na=1&b=hello",
    b"POST /up?edge_token=@T HTTP/1.1\r\n" + _H
    + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nX-Sum: 1\r\n\r\n",
    b"PUT /file?edge_token=@T HTTP/1.1\r\n" + _H
    + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\ndata",
    b"GET /old?edge_token=@T HTTP/1.0\r\n" + _H + b"Connection: keep-alive\r\n\r\n",
    b"POST /n?edge_token=@T HTTP/1.1\r\n" + _H + b"Content-Length: 0\r\n\r\n",
    b"DELETE /x?edge_token=@T HTTP/1.1\r\n" + _H + b"Connection: close\r\n\r\n",
    b"GET http://" + HOST + b"/abs?edge_token=@T HTTP/1.1\r\n" + _H + b"Via: 1.1 proxy\r\n\r\n",
    b"GET /ws?edge_token=@T HTTP/1.1\r\n" + _H + b"\r\n".join(UPGRADE) + b"\r\n\r\n",
    b"OPTIONS /api?edge_token=@T HTTP/1.1\r\n" + _H
    + b"Origin: http://a.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
)  # fmt: skip


# --- answers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answered:
    """A well-formed answer: its bytes, and what they mean to who asked with GET (or the like).

    ``keeps``: another may follow on the connection; without it the end of the bytes is its end.
    """

    wire: bytes
    status: int
    payload: bytes
    interims: tuple[int, ...]
    keeps: bool


_ANSWER_FIELDS = (
    b"Date: Tue, 01 Jan 2030 00:00:00 GMT",
    b"Content-Type: text/plain; charset=utf-8",
    b"content-type:text/event-stream",
    b"Set-Cookie: a=1; Path=/",
    b"Set-Cookie: ns_preview=stolen; Path=/",
    b"Connection: keep-alive",
    b"Connection: content-length, x-empty",
    b"Keep-Alive: timeout=5",
    b"Upgrade: h2c",
    b"X-Empty:",
    b"X-Latin: caf\xe9",
    b"TE: trailers",
    b"Cache-Control: max-age=3",
)
_INTERIMS = (
    (100, b"HTTP/1.1 100 Continue\r\n\r\n"),
    (103, b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"),
    (102, b"HTTP/1.1 102 Processing\r\nContent-Length: 5\r\n\r\n"),
)
_STATUSES = (
    b"200 OK",
    b"201 Created",
    b"206 Partial Content",
    b"404",
    b"404 ",
    b"299 caf\xe9",
    b"599 x",
)


@st.composite
def answered(
    draw: st.DrawFn, mark: bytes = b"", *, head: bool = False, bodiless: bool = True
) -> Answered:
    """An answer that says ``mark`` in a field and in its body. ``head``: it answers a HEAD."""
    interims = draw(st.lists(st.sampled_from(_INTERIMS), max_size=2))
    minor = draw(st.sampled_from([1, 1, 1, 0]))
    silent = [b"204 No Content", b"304 Not Modified"] if bodiless else []
    status = draw(st.sampled_from([*_STATUSES, *_STATUSES[:3], *silent]))
    framing = draw(st.sampled_from(["length", "length", "chunked" if minor else "length", "close"]))
    lines = draw(st.lists(st.sampled_from(_ANSWER_FIELDS), max_size=4))
    parts = [mark] * bool(mark) + draw(st.lists(st.binary(min_size=1, max_size=40), max_size=3))
    payload = b"".join(parts)
    body = payload
    if framing == "length":
        lines.append(
            draw(st.sampled_from([b"Content-Length: ", b"content-length:"])) + b"%d" % len(payload)
        )
    elif framing == "chunked":
        lines.append(
            draw(st.sampled_from([b"Transfer-Encoding: chunked", b"TRANSFER-ENCODING:Chunked"]))
        )
        body = draw(chunked(parts))
    if mark:
        lines.append(b"X-Mark: " + mark)
    if draw(st.integers(0, 5)) == 0:
        lines.append(b"Connection: close")
    empty = head or status[:3] in (b"204", b"304")
    persists = b"Connection: keep-alive" in lines if minor == 0 else True
    keeps = persists and b"Connection: close" not in lines and (empty or framing != "close")
    start = b"HTTP/1.%d " % minor + status + b"\r\n"
    wire = b"".join(wire for _, wire in interims) + start
    wire += b"".join(line + b"\r\n" for line in draw(st.permutations(lines))) + b"\r\n"
    return Answered(
        wire + (b"" if empty else body),
        int(status[:3]),
        b"" if empty else payload,
        tuple(code for code, _ in interims),
        keeps,
    )


RECORDED_ANSWERS = (
    (b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Tue, 01 Jan 2030 00:00:00 GMT\r\nContent-Type: text/html\r\n"
    b'Content-Length: 14\r\nConnection: keep-alive\r\nETag: "x"\r\n\r\n<p>hello</p>\r\n'),
    (b"HTTP/1.1 200 OK\r\nX-Powered-By: Express\r\nTransfer-Encoding: chunked\r\nKeep-Alive: timeout=5\r\n\r\n"
    b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
    b"HTTP/1.0 200 OK\r\nServer: SimpleHTTP/0.6 Python/3.11\r\nContent-type: text/html\r\n\r\n<p>old</p>",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n",
    (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
    b"Trailer: X-Sum\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"),
    b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 14\r\n\r\n',
    b"HTTP/1.1 204 No Content\r\nSet-Cookie: a=1\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: https://a.example/?edge_token=x\r\nContent-Length: 2\r\n\r\nno",
    b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: h2c\r\nConnection: Upgrade, close\r\nContent-Length: 0\r\n\r\n",
    (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x05hello"),
)  # fmt: skip


# --- mutation -------------------------------------------------------------------------------------

_NASTY = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\x00", b" ", b"\t", b":", b",", b";", b"0", b"f", b"-1", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"\xff", b"\x0b"]
) | st.binary(min_size=1, max_size=3)  # fmt: skip


_JOINTS = re.compile(rb"[\r\n:; ]|(?<![0-9A-Za-z])[0-9A-Fa-f]")


def _positions(data: bytes) -> st.SearchStrategy[int]:
    """Anywhere, and as often where messages have their joints: ends of lines, separators, numbers."""
    joints = [match.start() for match in _JOINTS.finditer(data)]
    anywhere = st.integers(0, len(data))
    return anywhere | st.sampled_from(joints) if joints else anywhere


@st.composite
def mutated(draw: st.DrawFn, whole: bytes, others: tuple[bytes, ...] = ()) -> bytes:
    """The bytes with one to three things done to them that a bad cable or a bad mind would do."""
    data = whole
    for _ in range(draw(st.integers(1, 3))):
        at = draw(_positions(data))
        to = min(len(data), at + draw(st.integers(1, 40)))
        match draw(
            st.sampled_from(["flip", "insert", "delete", "replace", "repeat", "splice", "cut"])
        ):
            case "flip" if at < len(data):
                flipped = data[at] ^ (1 << draw(st.integers(0, 7)))
                data = data[:at] + bytes([flipped]) + data[at + 1 :]
            case "insert":
                data = data[:at] + draw(_NASTY) + data[at:]
            case "delete":
                data = data[:at] + data[to:]
            case "replace":
                data = data[:at] + draw(_NASTY) + data[to:]
            case "repeat":
                data = data[:to] + data[at:]
            case "splice" if others:
                other = draw(st.sampled_from(others))
                data = data[:at] + other[draw(st.integers(0, len(other))) :]
            case "cut":
                data = data[:at]
    return data


def places(most: int = 5) -> st.SearchStrategy[list[int]]:
    """Where to cut what is sent, for `tests.core.wires.cut`."""
    return st.lists(st.integers(0, 1500), max_size=most)
