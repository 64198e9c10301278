"""Scanning: what a request head means, what is refused, and that h11 never sees another message in it."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core import errors
from edge.core.errors import EdgeError
from edge.core.head import Head, glimpse, strip_query_credentials
from tests.core.wires import (
    HOST,
    KEY,
    UPGRADE,
    blocks,
    by_h11,
    calm,
    framing_of,
    kept,
    request,
    scan,
    scanner,
)

POST = b"POST / HTTP/1.1"
PROXY_TOKEN = b"x-nullspace-preview-proxy-token: "


def refused(block: bytes) -> EdgeError:
    """The error of a head that must not pass."""
    with pytest.raises(EdgeError) as caught:
        scan(block)
    return caught.value


def test_a_browsers_request_is_understood_and_kept() -> None:
    """Lines stay as sent and in order; nothing is invented."""
    lines = [b"accept:  text/html", b"X-Odd:\t1 ", b"Cookie: a=1", b"Accept: again"]
    head = scan(request(*lines, line=b"GET /p/%20?x=%2F& HTTP/1.1"))
    assert kept(head) == [b"Host: " + HOST, *lines]
    assert (head.method, head.target, head.path) == (b"GET", b"/p/%20?x=%2F&", b"/p/%20")
    assert (head.host, head.section.minor) == (HOST, 1)
    assert (head.section.length, head.section.chunked, head.has_body) == (None, False, False)
    assert head.section.keep_alive and not head.websocket and not head.proxy_mode
    assert head.value(b"accept") == b"text/html"
    assert head.values(b"accept") == [b"text/html", b"again"]
    assert head.value(b"nothing") is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET",
        b"GET /",
        b"GET / ",
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET\t/\tHTTP/1.1",
        b"GET / HTTP/2.0",
        b"GET / HTTP/1.2",
        b"GET / HTTP/1.10",
        b"GET / HTTP/11",
        b"GET / http/1.1",
        b"GET / HTTP/1,1",
        b"PRI * HTTP/2.0",
        b"G(T / HTTP/1.1",
        b"G\xc9T / HTTP/1.1",
        b"A" * 33 + b" / HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /a\rb HTTP/1.1",
        b"GET /a\nb HTTP/1.1",
        b"GET /\nX: y HTTP/1.1",
        b"GET /caf\xc3\xa9 HTTP/1.1",
        b"GET /#fragment HTTP/1.1",
        b"GET /?q#f HTTP/1.1",
        b"GET * HTTP/1.1",
        b"OPTIONS *x HTTP/1.1",
        b"GET x HTTP/1.1",
        b"GET 3000-sb-aaaaaaaa.preview.example:80 HTTP/1.1",
        b"GET ftp://" + HOST + b"/ HTTP/1.1",
        b"GET http:/// HTTP/1.1",
        b"GET http://" + HOST + b"/#f HTTP/1.1",
        b"GET http://" + HOST + b"#f HTTP/1.1",
    ],
)
def test_malformed_request_lines_are_refused(line: bytes) -> None:
    """400, and the connection ends: nobody knows where the next message would start."""
    error = refused(request(line=line))
    assert (error.problem, error.close) == (errors.BAD_REQUEST, True)


@pytest.mark.parametrize("method", [b"TRACE", b"CONNECT"])
def test_methods_that_are_not_for_the_edge(method: bytes) -> None:
    """405 with Allow (contract: errors)."""
    error = refused(request(line=method + b" / HTTP/1.1"))
    assert (error.problem, error.close) == (errors.METHOD_NOT_ALLOWED, True)
    assert error.allow is not None and method.decode() not in error.allow


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 5", b"Content-Length: 5"),
        (b"Content-Length: 5", b"Content-Length: 6"),
        (b"Content-Length: 5, 5",),
        (b"Content-Length:",),
        (b"Content-Length: -1",),
        (b"Content-Length: +1",),
        (b"Content-Length: 0x1",),
        (b"Content-Length: 1 1",),
        (b"Content-Length: 1" + b"0" * 18,),
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked", b"Content-Length: 0"),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: chunked, chunked",),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: chunked, gzip",),
        (b"Transfer-Encoding: chunked,",),
        (b"Transfer-Encoding: chunked;q=1",),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding: xchunked",),
        (b'Transfer-Encoding: "chunked"',),
        (b"Transfer-Encoding:",),
        (b"Transfer-Encoding: \x0bchunked",),
        (b"Transfer-Encoding : chunked",),
        (b"Transfer_Encoding: chunked",),
        (b"Content_Length: 5",),
        (b"Transfer-Encoding:\r\n chunked",),
        (b"X: a\nTransfer-Encoding: chunked",),
        (b"X: a\rTransfer-Encoding: chunked",),
        (b"X: \x00",),
        (b" Content-Length: 5",),
        (b"Connection: a b",),
    ],
)
def test_ambiguous_or_malformed_fields_are_refused(lines: tuple[bytes, ...]) -> None:
    """RFC 9112 sections 5 and 6.3, and what request smuggling (section 11.2) is made of."""
    error = refused(request(*lines, line=POST))
    assert (error.problem, error.close) == (errors.BAD_REQUEST, True)


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1", b"HEAD / HTTP/1.1", b"POST / HTTP/1.0"])
def test_chunked_where_parsers_differ_is_refused(line: bytes) -> None:
    """On GET, on HEAD and with HTTP/1.0 not everybody reads the body as chunked."""
    assert refused(request(b"Transfer-Encoding: chunked", line=line)).problem is errors.BAD_REQUEST


@pytest.mark.parametrize(
    ("lines", "length", "chunked"),
    [
        ((b"Content-Length: 0",), 0, False),
        ((b"content-length:\t0007 ",), 7, False),
        ((b"Content-Length: " + b"9" * 18,), 10**18 - 1, False),
        ((b"Transfer-Encoding: ChunkeD",), None, True),
        # Framing is not hop-by-hop for us: we write it anew, whatever Connection names.
        ((b"Connection: content-length", b"Content-Length: 7"), 7, False),
        ((b"Connection: transfer-encoding", b"Transfer-Encoding: chunked"), None, True),
    ],
)
def test_good_framing(lines: tuple[bytes, ...], length: int | None, chunked: bool) -> None:
    """One length in digits, or chunked, once. Neither line is kept."""
    head = scan(request(*lines, line=POST))
    assert (head.section.length, head.section.chunked) == (length, chunked)
    assert kept(head) == [b"Host: " + HOST]
    assert head.has_body is (chunked or bool(length))


@pytest.mark.parametrize(
    "block",
    [
        request(host=None),
        request(host=None, line=b"GET / HTTP/1.0"),
        request(host=b""),
        request(b"Host: " + HOST),
        request(b"host: other.example"),
        request(host=None, line=b"GET http://" + HOST + b"/ HTTP/1.1"),
        request(line=b"GET http://other.example/ HTTP/1.1"),
        request(line=b"GET http://" + HOST + b":80/ HTTP/1.1"),
        request(line=b"GET http://user@" + HOST + b"/ HTTP/1.1"),
        request(line=b"GET http://" + HOST + b"@other.example/ HTTP/1.1"),
        request(line=b"GET http://other.example\\@" + HOST + b"/ HTTP/1.1"),
    ],
)
def test_exactly_one_host_that_nothing_contradicts(block: bytes) -> None:
    """RFC 9112 section 3.2; an absolute-form target may repeat the Host, not differ from it."""
    assert refused(block).problem is errors.BAD_REQUEST


@pytest.mark.parametrize(
    ("target", "origin_form"),
    [
        (b"http://" + HOST + b"/a?b", b"/a?b"),
        (b"HTTPS://" + HOST.upper() + b"/", b"/"),
        (b"http://" + HOST, b"/"),
        (b"http://" + HOST + b"?x=http://y/", b"/?x=http://y/"),
        (b"//evil.example/", b"//evil.example/"),
    ],
)
def test_targets_leave_in_origin_form(target: bytes, origin_form: bytes) -> None:
    """RFC 9112 section 3.2.1; what looks like an authority in a path is a path."""
    head = scan(request(line=b"GET " + target + b" HTTP/1.1"))
    assert (head.target, head.host) == (origin_form, HOST)


@pytest.mark.parametrize(
    ("target", "sent"),
    [
        (b"*", b"*"),
        (b"http://" + HOST, b"*"),
        (b"http://" + HOST + b"?edge_token=t", b"*"),
        (b"http://" + HOST + b"?edge_token=t&a", b"/?a"),
        (b"http://" + HOST + b"/?edge_token=t", b"/"),
        (b"http://" + HOST + b"/", b"/"),
        (b"/", b"/"),
    ],
)
def test_options_asterisk(target: bytes, sent: bytes) -> None:
    """RFC 9112 section 3.2.4: a URI without path and query asks about the whole server."""
    head = scan(request(line=b"OPTIONS " + target + b" HTTP/1.1"))
    assert (head.target, head.path) == (sent, sent.partition(b"?")[0])


# --- credentials ----------------------------------------------------------------------------------

QUERIES = [
    (b"/?edge_token=t", b"/", (b"t",), False),
    (b"/p?edge_token=t", b"/p", (b"t",), False),
    (b"/?a=1&edge_token=t&b=2", b"/?a=1&b=2", (b"t",), False),
    (b"/?edge_token=t&a=%26edge_token%3Dx", b"/?a=%26edge_token%3Dx", (b"t",), False),
    (b"/?edge_token=t&edge_token=t", b"/", (b"t",), False),
    (b"/?edge_token=t&edge_token=u", b"/", (b"t", b"u"), False),
    (b"/?edge_token=&edge_token=u", b"/", (b"", b"u"), False),
    (b"/?edge_token=t&&a", b"/?&a", (b"t",), False),
    (b"/?&edge_token=t", b"/", (b"t",), False),
    (b"/?edge_token=a%2Eb%2ec", b"/", (b"a.b.c",), False),
    (b"/?edge_token=a.b&edge_token=a%2eb", b"/", (b"a.b",), False),
    (b"/?edge_token=a=b", b"/", (b"a=b",), False),
    (b"/?edge_token=%zz%", b"/", (b"%zz%",), False),
    (b"/?edge_token", b"/?edge_token", (), False),
    (b"/?edge_token&x", b"/?edge_token&x", (), False),
    (b"/?Edge_Token=t", b"/?Edge_Token=t", (), False),
    (b"/?edge%5Ftoken=t", b"/?edge%5Ftoken=t", (), False),
    (b"/?xedge_token=t", b"/?xedge_token=t", (), False),
    (b"/?a;edge_token=t", b"/?a;edge_token=t", (), False),
    (b"/?a=?edge_token=t", b"/?a=?edge_token=t", (), False),
    (b"/edge_token=t", b"/edge_token=t", (), False),
    (b"/?", b"/?", (), False),
    (b"/?__ns_preview_transport=header", b"/", (), True),
    (b"/?a=1&__ns_preview_transport=header", b"/?a=1", (), True),
    (b"/?__ns_preview_transport=Header", b"/", (), False),
    (b"/?__ns_preview_transport=header%20", b"/", (), False),
    (b"/?__ns_preview_transport=", b"/", (), False),
    (b"/?__ns_preview_transport", b"/?__ns_preview_transport", (), False),
    (b"/?__ns_preview_transport=x&__ns_preview_transport=header", b"/", (), True),
    (b"/?edge_token=t&__ns_preview_transport=header&z", b"/?z", (b"t",), True),
    (b"http://" + HOST + b"/?edge_token=t", b"/", (b"t",), False),
]


@pytest.mark.parametrize(("target", "left", "tokens", "marker"), QUERIES)
def test_the_edges_own_query_pairs(
    target: bytes, left: bytes, tokens: tuple[bytes, ...], marker: bool
) -> None:
    """Taken out wherever they stand; all else keeps order and encoding (contract: forwarded)."""
    head = scan(request(line=b"GET " + target + b" HTTP/1.1"))
    assert (head.target, head.edge_tokens, head.proxy_marker) == (left, tokens, marker)
    assert b"?" not in head.path


@given(
    st.lists(
        st.tuples(st.booleans(), st.from_regex(rb"[!-%'-~]{0,12}", fullmatch=True)), max_size=8
    )
)
@calm
def test_taking_credentials_keeps_all_else(pairs: list[tuple[bool, bytes]]) -> None:
    """Whatever stands between the credentials arrives byte for byte, here and in a Referer."""
    foreign = [pair.replace(b"#", b"%23") for own, pair in pairs if not own]
    query = b"&".join(b"edge_token=t" if own else pair.replace(b"#", b"%23") for own, pair in pairs)
    rest = b"&".join(foreign)
    any_own = any(own for own, _ in pairs)
    wanted = b"/p?" + query if not any_own else b"/p?" + rest if rest else b"/p"
    head = scan(request(line=b"GET /p?" + query + b" HTTP/1.1"))
    assert head.target == wanted
    assert head.edge_tokens == ((b"t",) if any_own else ())
    assert strip_query_credentials(b"https://h/p?" + query) == b"https://h" + wanted


@pytest.mark.parametrize(
    ("url", "stripped"),
    [
        (b"https://h/?edge_token=t", b"https://h/"),
        (b"https://h/?a&edge_token=t#f", b"https://h/?a"),
        (b"https://h/?__ns_preview_transport=header&a", b"https://h/?a"),
        (b"https://h/edge_token=t", b"https://h/edge_token=t"),
        (b"https://h/?x=edge_token=t", b"https://h/?x=edge_token=t"),
        (b"https://h/?", b"https://h/?"),
        (b"", b""),
    ],
)
def test_a_referer_loses_only_credentials(url: bytes, stripped: bytes) -> None:
    """What is no credential of ours is somebody else's URL."""
    assert strip_query_credentials(url) == stripped


def test_header_credentials_are_gathered_and_not_kept() -> None:
    """Every one of them, so that two can be told from one; no x-nullspace field is kept."""
    head = scan(
        request(
            PROXY_TOKEN + b"p1",
            b"X-NULLSPACE-Preview-Proxy-Token: p2",
            b"X-Nullspace-Traffic-Access-Token: t",
            b"X-Nullspace-Other: o",
            b"X_Nullspace_Traffic_Access_Token: u",
        )
    )
    assert (head.section.proxy_tokens, head.section.traffic_tokens) == ((b"p1", b"p2"), (b"t",))
    assert head.proxy_mode
    assert kept(head) == [b"Host: " + HOST]
    assert scan(request(PROXY_TOKEN)).proxy_mode


# --- Connection, Upgrade, Expect ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("minor", "lines", "keep_alive"),
    [
        (1, (), True),
        (1, (b"Connection: close",), False),
        (1, (b"Connection: keep-alive, close",), False),
        (1, (b"Connection: keep-alive", b"Connection: Close"), False),
        (1, (b"Proxy-Connection: close",), True),
        (0, (), False),
        (0, (b"Connection: Keep-Alive",), True),
        (0, (b"Connection: keep-alive, close",), False),
    ],
)
def test_persistence(minor: int, lines: tuple[bytes, ...], keep_alive: bool) -> None:
    """RFC 9112 section 9.3: close always wins."""
    assert scan(request(*lines, line=b"GET / HTTP/1.%d" % minor)).section.keep_alive is keep_alive


def test_fields_that_connection_names_go_but_never_what_the_edge_relies_on() -> None:
    """RFC 9110 section 7.6.1, without letting a stranger strip Host, credentials or who they are."""
    head = scan(
        request(
            b"X-Hop: 1",
            b"Cookie: a=1",
            b"x-hop: 2",
            b"Referer: /",
            b"X-Forwarded-For: 10.0.0.1",
            PROXY_TOKEN + b"p",
            b"X-Request-Id: id-1",
            b"Expect: 100-continue",
            b"X-Stays: 1",
            b"Connection: host, x-hop, cookie, referer, X-Forwarded-For, expect",
            b"Connection: x-request-id, " + PROXY_TOKEN[:-2],
        )
    )
    assert [line for line in kept(head) if line] == [b"Host: " + HOST, b"X-Stays: 1"]
    assert (head.section.cookies, head.section.referers) == ((), ())
    assert [entry.value for entry in head.section.forwarded] == [b"10.0.0.1"]
    assert head.section.proxy_tokens == (b"p",)
    assert head.request_id == b"id-1"


def test_hop_by_hop_fields_go_unnamed() -> None:
    """The fixed list of RFC 9110 section 7.6.1 and RFC 7540's leftovers."""
    head = scan(
        request(
            b"Keep-Alive: timeout=5",
            b"Proxy-Connection: keep-alive",
            b"Proxy-Authorization: Basic x",
            b"TE: trailers",
            b"Trailer: X-Sum",
            b"Upgrade: h2c",
            b"HTTP2-Settings: AAMAAABkAAQAAP__",
            b"Connection: Upgrade, HTTP2-Settings",
        )
    )
    assert kept(head) == [b"Host: " + HOST]
    assert not head.websocket


@pytest.mark.parametrize(
    ("block", "websocket"),
    [
        (request(*UPGRADE), True),
        (request(*UPGRADE, b"Content-Length: 0"), True),
        (request(b"Connection: close", *UPGRADE), True),
        (request(b"Connection: upgrade", b"Upgrade: h2c, WebSocket", *UPGRADE[2:]), True),
        (request(*UPGRADE[1:]), False),
        (request(b"Connection: upgrade", *UPGRADE[2:]), False),
        (request(b"Connection: upgrade", b"Upgrade: websocket/13", *UPGRADE[2:]), False),
        (request(*UPGRADE, line=b"GET / HTTP/1.0"), False),
    ],
)
def test_what_is_an_upgrade(block: bytes, websocket: bool) -> None:
    """RFC 6455 section 4.1 and RFC 9110 section 7.8: HTTP/1.1, Connection and Upgrade together."""
    head = scan(block)
    assert head.websocket is websocket
    assert not any(line.lower().startswith(b"upgrade") for line in kept(head))


@pytest.mark.parametrize(
    "block",
    [
        request(*UPGRADE, line=POST),
        request(*UPGRADE, b"Content-Length: 1"),
        request(*UPGRADE[:3]),
        request(*UPGRADE[:3], b"Sec-WebSocket-Version: 8"),
        request(*UPGRADE, b"Sec-WebSocket-Version: 8"),
        request(*UPGRADE, b"Sec-WebSocket-Version: 13"),
        request(*UPGRADE[:2], UPGRADE[3]),
        request(*UPGRADE, KEY),
        request(*UPGRADE[:2], UPGRADE[3], b"Sec-WebSocket-Key:"),
        request(*UPGRADE[:2], UPGRADE[3], b"Sec-WebSocket-Key: c2hvcnQ="),
        request(*UPGRADE[:2], UPGRADE[3], b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ"),
        request(*UPGRADE[:2], UPGRADE[3], b"Sec-WebSocket-Key: \xff" + b"A" * 23),
        request(*UPGRADE, b"Connection: sec-websocket-key"),
    ],
)
def test_a_crooked_handshake_is_refused(block: bytes) -> None:
    """Before anybody could disagree about whether this connection becomes a tunnel."""
    assert refused(block).problem is errors.BAD_REQUEST


def test_expect_is_for_http_1_1() -> None:
    """RFC 9110 section 10.1.1: in an HTTP/1.0 request it is ignored, so it is not passed on."""
    expect = b"Expect: 100-continue"
    head = scan(request(expect, b"Content-Length: 1", line=POST))
    assert expect in kept(head)
    head = scan(request(expect, b"Content-Length: 1", line=b"POST / HTTP/1.0"))
    assert expect not in kept(head)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([b"a"], b"a"),
        ([b"A.b_c-9" * 18], b"A.b_c-9" * 18),
        ([b"a" * 128], b"a" * 128),
        ([b"a" * 129], None),
        ([b""], None),
        ([b"a b"], None),
        ([b"a/b"], None),
        ([b"<script>"], None),
        ([b"caf\xe9"], None),
        ([b"a", b"a"], None),
        ([], None),
    ],
)
def test_request_ids(ids: list[bytes], expected: bytes | None) -> None:
    """Kept if well-formed and alone (contract: forwarded), else another is made."""
    head = scan(request(*(b"X-Request-Id: " + one for one in ids)))
    assert head.request_id == expected
    assert kept(head) == [b"Host: " + HOST]


@pytest.mark.parametrize(
    ("lines", "count"),
    [
        ((), 0),
        ((b"Via: 1.1 other",), 0),
        ((b"Via: 1.1 preview-edge",), 1),
        ((b"Via: 1.1 preview-edge, 1.1 a, 1.1 preview-edge", b"via: 1.1 preview-edge"), 3),
        ((b"Via: 1.1 preview-edge", b"Connection: via"), 1),
    ],
)
def test_passes_through_edges_are_counted(lines: tuple[bytes, ...], count: int) -> None:
    """Even where Connection would have the trace removed."""
    assert scan(request(*lines)).section.via == count


# --- limits -----------------------------------------------------------------------------------------


def test_limits_are_exact() -> None:
    """431 one past the limit, not before."""
    scan_ = scanner(max_fields=8, max_line=40).scan
    fits = [b"X: 1"] * 7
    assert scan_(request(*fits)).host == HOST
    line = b"GET /" + b"a" * (40 - len("GET / HTTP/1.1")) + b" HTTP/1.1"
    assert len(line) == 40
    assert scan_(request(line=line)).host == HOST
    for block in (request(*fits, b"X: 1"), request(line=line.replace(b"/", b"/a"))):
        with pytest.raises(EdgeError) as caught:
            scan_(block)
        assert caught.value.problem is errors.REQUEST_HEADER_TOO_LARGE
        assert caught.value.close


@pytest.mark.parametrize(
    ("data", "method"),
    [
        (b"HEAD / HTTP/1.1\r\nBad line", b"HEAD"),
        (b"HEAD /half-a-li", b"HEAD"),
        (b"HEAD  /two-blanks HTTP/1.1", b"HEAD"),
        (b"HEAD", None),
        (b"HEAD/ HTTP/1.1", None),
        (b" HEAD / HTTP/1.1", None),
        (b"\x16\x03\x01 ", None),
        (b"M" * 33 + b" / HTTP/1.1", None),
        (b"", None),
    ],
)
def test_a_glimpse_of_the_method(data: bytes, method: bytes | None) -> None:
    """A head that is bad or not complete still says whether it is a HEAD, if its method is complete."""
    seen = glimpse(data)
    assert (seen and seen.method) == method


@pytest.mark.parametrize(
    ("fields", "target", "websocket", "proxied"),
    [
        (b"", b"/", False, False),
        (b"Upgrade: websocket\r\n", b"/", True, False),
        (b"X-Nullspace-Preview-Proxy-Token: x\r\n", b"/", False, True),
        (b"", b"/?__ns_preview_transport=header", False, True),
    ],
)
def test_a_glimpse_of_who_asks(
    fields: bytes, target: bytes, websocket: bool, proxied: bool
) -> None:
    """What `wants_page` goes by can be told, whatever else is wrong."""
    lines = b"\rBad\r\nSec-Fetch-Mode: navigate\r\n" + fields
    seen = glimpse(b"GET " + target + b" HTTP/1.1\r\n" + lines)
    assert seen is not None and seen.value(b"sec-fetch-mode") == b"navigate"
    assert (seen.websocket, seen.proxy_mode, seen.section.keep_alive) == (websocket, proxied, False)


def test_a_remembered_line_means_the_same_the_second_time() -> None:
    """What one request leaves in the memory of lines cannot change the next one."""
    shared = scanner()
    for block in (request(*UPGRADE), request(b"Content-Length: 5", line=POST), request(*UPGRADE)):
        assert shared.scan(block) == scan(block)


# --- properties -------------------------------------------------------------------------------------


def accepted(block: bytes) -> Head | None:
    """The head, or None for one that was refused properly."""
    try:
        return scan(block)
    except EdgeError as refusal:
        error = refusal
    assert error.problem in (
        errors.BAD_REQUEST,
        errors.METHOD_NOT_ALLOWED,
        errors.REQUEST_HEADER_TOO_LARGE,
    )
    assert error.close
    return None


@given(blocks())
@calm
def test_what_passes_also_passes_h11_and_ends_at_the_same_byte(block: bytes) -> None:
    """h11 as oracle: where we differ, we are the stricter one."""
    head = accepted(block)
    if head is None:
        return
    seen = by_h11(block + b"\r\n\r\n")
    if "upgrade" not in (
        seen.framing,
        framing_of(head),
    ):  # no length to compare; outbound's tests do
        assert seen.framing == framing_of(head)
    assert seen.method == head.method
    assert seen.values(b"host") == [head.host]


@given(st.binary(max_size=200))
@calm
def test_noise_is_refused_and_nothing_worse(noise: bytes) -> None:
    """Only `EdgeError` leaves the scanner, whatever the bytes are."""
    accepted(noise)
    accepted(b"GET / HTTP/1.1\r\nHost: " + HOST + b"\r\n" + noise)
    accepted(b"GET /?edge_token=" + noise + b" HTTP/1.1\r\nHost: " + HOST)


def test_h11_is_an_oracle_that_can_say_no() -> None:
    """The properties above mean something: h11 does refuse a crooked head."""
    with pytest.raises(h11.RemoteProtocolError):
        by_h11(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
