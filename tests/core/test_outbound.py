"""Outbound heads: exactly one message, framed as understood, with no credential and only true words about the client."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.answer import Answer, AnswerScanner
from edge.core.credentials import Family
from edge.core.decision import Forward
from edge.core.errors import EdgeError
from edge.core.head import Head
from edge.core.outbound import (
    Peer,
    answer_head,
    client_scheme,
    forwarded_for,
    interim_head,
    outward,
    request_head,
    upgrade_head,
)
from edge.core.records import Transport
from tests.core.previews import way
from tests.core.wires import (
    HOST,
    UPGRADE,
    blocks,
    body_for,
    by_aiohttp,
    by_h11,
    by_httptools,
    calm,
    framing_of,
    request,
    scan,
)

STRANGER = Peer(b"203.0.113.9", False, b"https")
PROXY = Peer(b"10.0.0.2", True, b"https")
PROXY_6 = Peer(b"2001:db8::2", True, b"https")
COOKIE = b"ns_preview"
TRUTH = [
    b"X-Forwarded-For: 203.0.113.9",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: " + HOST,
]
LAST = [b"X-Request-Id: id-1", b"Via: 1.1 preview-edge", b"", b""]


def built(head: Head, to: Forward, peer: Peer = STRANGER) -> bytes:
    """The head that goes upstream."""
    return request_head(head, outward(head.section, to, peer, COOKIE), b"id-1")


def sent(
    block: bytes, peer: Peer = STRANGER, family: Family = Family.EDGE, **record: object
) -> list[bytes]:
    """The lines of the head that goes upstream."""
    return built(scan(block), way(family, **record), peer).split(b"\r\n")


def without(lines: list[bytes], *names: bytes) -> list[bytes]:
    """The lines that are not fields of these lower-case names."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]


def named(lines: list[bytes], *names: bytes) -> list[bytes]:
    """The lines that are fields of these lower-case names."""
    return [line for line in lines if line.partition(b":")[0].lower() in names]


def test_a_request_goes_out_as_it_came_plus_what_the_edge_says() -> None:
    """The whole head, byte for byte (contract: forwarded)."""
    lines = [b"accept:  x", b"Cookie: a=1;  b=2", b"X-Odd:\t1 "]
    block = request(*lines, b"Connection: close", line=b"GET /p?a&edge_token=t&b HTTP/1.0")
    assert sent(block) == [b"GET /p?a&b HTTP/1.1", b"Host: " + HOST, *lines, *TRUTH, *LAST]


@pytest.mark.parametrize(
    ("line", "framing"),
    [
        (b"Content-Length: 007", b"Content-Length: 7"),
        (b"Content-Length: 0", b"Content-Length: 0"),
        (b"transfer-encoding: CHUNKED", b"Transfer-Encoding: chunked"),
    ],
)
def test_framing_is_written_anew(line: bytes, framing: bytes) -> None:
    """Once, in the plainest spelling, so that no app can read it in another way."""
    out = sent(request(line, line=b"POST / HTTP/1.1"))
    assert named(out, b"content-length", b"transfer-encoding") == [framing]


def test_an_upgrade_is_written_anew() -> None:
    """Only websocket, whatever else was offered."""
    block = request(
        b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c, websocket", *UPGRADE[2:]
    )
    assert named(sent(block), b"connection", b"upgrade", b"http2-settings") == [
        b"Connection: Upgrade",
        b"Upgrade: websocket",
    ]


# --- Host -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "host"),
    [
        (None, HOST),
        ("localhost:${PORT}", b"localhost:3000"),
        ("localhost", b"localhost"),
        ("${PORT}.${PORT}.internal", b"3000.3000.internal"),
        ("[::1]:${PORT}", b"[::1]:3000"),
        # What cannot be a Host is passed over.
        ("", HOST),
        ("a b", HOST),
        ("evil\r\nX-Injected: 1", HOST),
        ("evil\r\n\r\nGET /second HTTP/1.1\r\nHost: x", HOST),
        ("evil\n", HOST),
        ("evil\r", HOST),
        ("evil\x00", HOST),
        ("evil/path", HOST),
        ("user@evil", HOST),
        ("caf\xe9", HOST),
        ("\u0661", HOST),
        ("\ud800", HOST),
    ],
)
def test_a_masked_host_changes_only_host_and_splits_nothing(mask: str | None, host: bytes) -> None:
    """The mask is a sandbox owner's text, so it is judged like any other byte from outside."""
    out = sent(request(b"X: 1"), mask_request_host=mask)
    assert out == [b"GET / HTTP/1.1", b"Host: " + host, b"X: 1", *TRUTH, *LAST]


def test_a_request_sent_again_is_built_anew() -> None:
    """A retry may meet another record; nothing of the first attempt sticks to the head."""
    head = scan(request(b"Cookie: ns_preview=t; a=1", b"Referer: /?edge_token=t", b"X: 1"))
    masked = built(head, way(mask_request_host="masked"))
    again = built(head, way())
    assert built(head, way(mask_request_host="masked")) == masked
    assert masked == again.replace(b"Host: " + HOST, b"Host: masked", 1)


# --- credentials ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cookie", "left"),
    [
        (b"a=1", b"a=1"),
        (b"ns_preview=t", None),
        (b"ns_preview=t;", None),
        (b"ns_preview=t; ns_preview=u", None),
        (b"ns_preview=t; a=1", b"a=1"),
        (b"a=1; ns_preview=t", b"a=1"),
        (b"a=1; ns_preview=t; b=2", b"a=1; b=2"),
        (b"a=1;ns_preview=t;b=2", b"a=1;b=2"),
        (b"a=1;  ns_preview=t ;\tb=2", b"a=1;\tb=2"),
        (b'ns_preview="t"; a="x y"', b'a="x y"'),
        (b"ns_preview", None),
        (b"ns_preview=", None),
        (b"ns_preview=a=b; c=d=e", b"c=d=e"),
        (b"ns_preview2=t; xns_preview=u", b"ns_preview2=t; xns_preview=u"),
        (b"a=ns_preview=t", b"a=ns_preview=t"),
        (b"__Host-ns_preview=t", b"__Host-ns_preview=t"),
        (b"NS_PREVIEW=t", b"NS_PREVIEW=t"),
        (b"a=1;;; b", b"a=1;;; b"),
        (b"", b""),
    ],
)
def test_the_continuation_cookie_stays_here(cookie: bytes, left: bytes | None) -> None:
    """Other cookies go on byte for byte; an emptied line goes (contract: forwarded)."""
    out = sent(request(b"X: 1", b"Cookie: " + cookie, b"Y: 2"))
    expected = [] if left is None else [b"Cookie: " + left]
    assert out[2:-7] == [b"X: 1", *expected, b"Y: 2"]


def test_every_cookie_line_is_looked_through() -> None:
    """RFC 6265 says one; clients are free."""
    out = sent(request(b"Cookie: ns_preview=t", b"cookie:a=1", b"COOKIE: b=2; ns_preview=u"))
    assert named(out, b"cookie") == [b"cookie:a=1", b"Cookie: b=2"]


@pytest.mark.parametrize(
    ("referer", "left"),
    [
        (b"https://h/p?a=%20&edge_token=t&b", b"https://h/p?a=%20&b"),
        (b"https://h/?edge_token=t", b"https://h/"),
        (b"https://h/?__ns_preview_transport=header", b"https://h/"),
        (b"https://h/?a", b"https://h/?a"),
        (b"https://h/edge_token=x", b"https://h/edge_token=x"),
    ],
)
def test_a_referer_goes_on_without_the_token(referer: bytes, left: bytes) -> None:
    """Any Referer, every line."""
    out = sent(request(b"Referer: " + referer, b"referer: " + referer))
    assert [line.partition(b":")[2].strip() for line in named(out, b"referer")] == [left, left]


@pytest.mark.parametrize(
    "line", [b"referer:  /?an_edge_token=x ", b"REFERER:/edge_token=x?a", b"referer:\t/?edge_token"]
)
def test_a_referer_without_a_token_goes_on_as_it_was_sent(line: bytes) -> None:
    """Byte for byte, though it looks as if there were one."""
    assert named(sent(request(line)), b"referer") == [line]


def test_no_credential_of_the_edge_goes_upstream() -> None:
    """None of the families, wherever they were put."""
    out = sent(
        request(
            b"Cookie: ns_preview=SECRET",
            b"Referer: https://h/?edge_token=SECRET",
            b"x-nullspace-preview-proxy-token: SECRET",
            b"X-NULLSPACE-TRAFFIC-ACCESS-TOKEN: SECRET",
            b"X_Nullspace_Traffic_Access_Token: SECRET",
            b"x-nullspace-anything: SECRET",
            b"Proxy-Authorization: SECRET",
            line=b"GET /?edge_token=SECRET&__ns_preview_transport=header HTTP/1.1",
        )
    )
    assert not [line for line in out if b"SECRET" in line]


# --- who the client is ----------------------------------------------------------------------------

SPOOFED = (
    b"X-Forwarded-For: 1.1.1.1",
    b"x-forwarded-proto: http",
    b"X-Forwarded-Host: evil.example",
    b"X-Forwarded-Port: 1",
    b"X_Forwarded_For: 6.6.6.6",
    b"Forwarded: for=1.1.1.1",
)


def test_a_strangers_word_about_himself_is_replaced() -> None:
    """Direct mode, peer not trusted: only the truth."""
    out = sent(request(*SPOOFED, b"Connection: x-forwarded-for"))
    assert out == [b"GET / HTTP/1.1", b"Host: " + HOST, *TRUTH, *LAST]


def test_a_trusted_proxys_word_is_kept_and_appended_to() -> None:
    """Except twins with underscores, which it did not write and would have cleaned."""
    out = sent(request(*SPOOFED), PROXY)
    assert out[2:-4] == [
        b"X-Forwarded-For: 1.1.1.1, 10.0.0.2",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: evil.example",
        b"X-Forwarded-Port: 1",
        b"Forwarded: for=1.1.1.1, for=10.0.0.2",
    ]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((), b"X-Forwarded-For: 10.0.0.2"),
        ((b"X-Forwarded-For: 1.1.1.1, 2.2.2.2",), b"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.2"),
        # HAProxy adds a line of its own behind the client's: the order is what apps count by.
        (
            (b"X-Forwarded-For: 6.6.6.6", b"X-Forwarded-For: 1.1.1.1"),
            b"X-Forwarded-For: 6.6.6.6, 1.1.1.1, 10.0.0.2",
        ),
        ((b"X-Forwarded-For:",), b"X-Forwarded-For: 10.0.0.2"),
        ((b"X-Forwarded-Host: a", b"X-Forwarded-Host: b"), b"X-Forwarded-Host: " + HOST),
        ((b"X-Forwarded-Host: a",), b"X-Forwarded-Host: a"),
        ((b"Forwarded: for=a", b"Forwarded: for=b"), b"Forwarded: for=a, for=b, for=10.0.0.2"),
    ],
)
def test_chains_keep_their_order(lines: tuple[bytes, ...], expected: bytes) -> None:
    """Several lines are one list (RFC 9110 section 5.3); contradictions about the host are no host."""
    out = sent(request(*lines), PROXY)
    name = expected.partition(b":")[0].lower()
    assert named(out, name) == [expected]


def test_an_ipv6_peer_is_quoted_in_forwarded() -> None:
    """In brackets and quotes (RFC 7239 section 6), and plain in X-Forwarded-For."""
    out = sent(request(b"Forwarded: for=1.1.1.1"), PROXY_6)
    assert b'Forwarded: for=1.1.1.1, for="[2001:db8::2]"' in out
    assert b"X-Forwarded-For: 2001:db8::2" in out


@pytest.mark.parametrize("peer", [STRANGER, PROXY])
def test_proxy_mode_sends_exactly_what_was_sent(peer: Peer) -> None:
    """None added, nothing appended (contract: forwarded); a customer's proxy knows best."""
    out = sent(request(*SPOOFED), peer, Family.PROXY)
    assert out[2:-4] == [line for line in SPOOFED if not line.startswith(b"X_")]
    assert sent(request(), peer, Family.PROXY) == [b"GET / HTTP/1.1", b"Host: " + HOST, *LAST]


@pytest.mark.parametrize(
    ("trusted", "values", "scheme"),
    [
        (True, [b"http"], b"http"),
        (True, [b"HTTPS"], b"https"),
        (True, [], b"https"),
        (True, [b"http", b"http"], b"https"),
        (True, [b"http, https"], b"https"),
        (True, [b"ftp"], b"https"),
        (True, [b""], b"https"),
        (False, [b"http"], b"https"),
    ],
)
def test_the_scheme_a_client_used(trusted: bool, values: list[bytes], scheme: bytes) -> None:
    """A trusted proxy's word, exactly and once; anybody else's never (contract: addresses)."""
    head = scan(request(*(b"X-Forwarded-Proto: " + value for value in values)))
    assert client_scheme(head, trusted, b"https") == scheme


# --- properties -------------------------------------------------------------------------------------

PEERS = st.sampled_from([STRANGER, PROXY, PROXY_6])
MASKS = st.none() | st.sampled_from(["localhost:${PORT}"]) | st.text(max_size=20)


@given(blocks(), PEERS, st.sampled_from([Family.EDGE, Family.PROXY]), MASKS)
@calm
def test_every_accepted_head_leaves_as_exactly_one_message(
    block: bytes, peer: Peer, family: Family, mask: str | None
) -> None:
    """For h11, aiohttp's C parser and llhttp alike, with the framing that we understood."""
    try:
        head = scan(block)
    except EdgeError:
        return
    kind = Transport.WEBSOCKET if head.websocket else Transport.HTTP
    decision = way(family, kind, mask_request_host=mask)
    out = built(head, decision, peer)
    assert out.count(b"\r\n\r\n") == 1 and out.endswith(b"\r\n\r\n")
    assert b"edge_token=t" not in out

    framing = framing_of(head)
    seen = by_h11(out)
    (from_aiohttp,) = by_aiohttp(out)
    begun, complete, from_httptools = by_httptools(out, body_for(head))
    assert (begun, complete) == (1, 1)
    for parsed in (seen, from_aiohttp, from_httptools):
        assert parsed.framing == framing
        assert (parsed.method, parsed.target) == (head.method, head.target)
        assert len(parsed.values(b"host")) == 1
        assert parsed.values(b"x-request-id") == [b"id-1"]
        assert parsed.values(b"via")[-1] == b"1.1 preview-edge"
    names = [name for name, _ in seen.headers]
    assert not [name for name in names if name.startswith(b"x-nullspace-") or b"_for" in name]
    if family is Family.EDGE and not peer.trusted:
        assert seen.values(b"x-forwarded-for") == [STRANGER.address]


# --- to the client ----------------------------------------------------------------------------------


def answer(*lines: bytes, status: bytes = b"200 Fine") -> Answer:
    """An answer as scanned."""
    block = b"\r\n".join([b"HTTP/1.1 " + status, *lines])
    return AnswerScanner(max_fields=99).scan(block, to_head=False, own_cookie=COOKIE)


@pytest.mark.parametrize(
    ("chunked", "close", "minor", "cookie", "added"),
    [
        (False, False, 1, None, []),
        (True, False, 1, None, [b"Transfer-Encoding: chunked"]),
        (False, True, 1, None, [b"Connection: close"]),
        (False, False, 0, None, [b"Connection: keep-alive"]),
        (False, True, 0, None, [b"Connection: close"]),
        (False, False, 1, b"Set-Cookie: c", [b"Set-Cookie: c", b"Cache-Control: private"]),
    ],
)
def test_an_answer_goes_out_as_it_came_plus_what_the_edge_says(
    chunked: bool, close: bool, minor: int, cookie: bytes | None, added: list[bytes]
) -> None:
    """Nothing is added but framing, persistence, and the cookie with what goes with it."""
    lines = [b"x-a:  1 ", b"Cache-Control: max-age=9", b"X-A: 2"]
    out = answer_head(answer(*lines), chunked=chunked, close=close, minor=minor, cookie=cookie)
    assert out == b"\r\n".join([b"HTTP/1.1 200 Fine", *lines, *added, b"", b""])


def test_interim_and_upgrade_heads() -> None:
    """A 1xx goes on as it is; a 101 gets its Connection and Upgrade back."""
    early = answer(b"Link: </a>", b"Connection: close", status=b"103 Early Hints")
    assert interim_head(early) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    assert interim_head(answer(status=b"100")) == b"HTTP/1.1 100 \r\n\r\n"
    hands = answer(b"Upgrade: WebSocket", b"Sec-WebSocket-Accept: x", status=b"101 Go")
    assert upgrade_head(hands) == (
        b"HTTP/1.1 101 Go\r\nSec-WebSocket-Accept: x\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\n\r\n"
    )


def test_the_oracles_can_say_no() -> None:
    """The property above means something: two messages are seen as two, a crooked one not at all."""
    good = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert by_httptools(good, good)[:2] == (2, 2)
    with pytest.raises(h11.RemoteProtocolError):
        by_h11(b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n")
    assert isinstance(scan(request()), Head)


@pytest.mark.parametrize(
    ("lines", "visitor"),
    [
        ((b"X-Forwarded-For: 203.0.113.7",), "203.0.113.7"),
        ((b"X-Forwarded-For: 192.0.2.1, 203.0.113.7",), "203.0.113.7"),
        (
            (b"X-Forwarded-For: 192.0.2.1", b"x-forwarded-for: 203.0.113.7 , 10.0.0.2"),
            "203.0.113.7",
        ),
        ((b"X-Forwarded-For: 2001:db8::7",), "2001:db8::7"),
        ((b"X-Forwarded-For: 192.0.2.1, unknown",), None),
        ((b"X-Forwarded-For: 192.0.2.1,",), None),
        ((b"X-Forwarded-For: 10.0.0.2",), None),
        ((b"Forwarded: for=192.0.2.1", b"X-Forwarded-Proto: https"), None),
        ((b"X-Forwarded-For: 192.0.2.1" + b", 10.0.0.2" * 16,), None),
    ],
)
def test_the_visitor_of_a_trusted_proxy(lines: tuple[bytes, ...], visitor: str | None) -> None:
    """The last address of the chain that is no proxy's; nothing before it was said by one of ours."""
    assert forwarded_for(scan(request(*lines)), lambda address: address == "10.0.0.2") == visitor
