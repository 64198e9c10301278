"""Answer heads: apps are read as strictly as clients, and cannot confuse the client's connection."""

from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.answer import Answer, AnswerScanner, InvalidAnswer
from edge.core.outbound import answer_head, interim_head, plain_head, upgrade_head
from tests.core.wires import calm

COOKIE = b"__Host-ns_preview"


def scan(
    *lines: bytes, status: bytes = b"200 OK", version: bytes = b"1.1", head: bool = False
) -> Answer:
    """Scan one head with a fresh scanner."""
    block = b"\r\n".join([b"HTTP/" + version + b" " + status, *lines])
    return AnswerScanner(max_fields=8).scan(block, to_head=head, own_cookie=COOKIE)


def test_an_answer_is_kept_as_sent() -> None:
    """Order, repeats, spelling and reason (contract: to the client)."""
    lines = [
        b"set-cookie: a=1",
        b"X-B:  2 ",
        b"Content-Length: 3",
        b"Set-Cookie: b=2",
        b"via: 1.1 x",
    ]
    answer = scan(*lines, status=b"299 Very  Fine\xff")
    assert answer.lines == lines
    assert answer.status_line == b"HTTP/1.1 299 Very  Fine\xff"
    assert (answer.status, answer.length, answer.chunked) == (299, 3, False)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 020 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/2.0 200 OK",
        b"HTTP/1.2 200 OK",
        b"HTTP/0.9 200 OK",
        b"http/1.1 200 OK",
        b" HTTP/1.1 200 OK",
        b"HTTP/1.1 200 O\x00K",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 200 O\nX: y",
        b"SSH-2.0-OpenSSH_9.2",
        b"ICY 200 OK",
    ],
)
def test_malformed_status_lines(first: bytes) -> None:
    """What is not HTTP/1.x never reaches the client."""
    with pytest.raises(InvalidAnswer):
        AnswerScanner(max_fields=8).scan(first, to_head=False, own_cookie=COOKIE)


def test_a_missing_reason_is_fine() -> None:
    """RFC 9112 section 4: the reason may be absent; the blank before it goes out all the same."""
    assert scan(status=b"200").status_line == b"HTTP/1.1 200 "
    assert scan(status=b"200 ").status_line == b"HTTP/1.1 200 "


@pytest.mark.parametrize(
    ("status", "lines", "head", "length", "chunked"),
    [
        (b"200", (b"Content-Length: 0",), False, 0, False),
        (b"200", (b"content-length: 007",), False, 7, False),
        (b"200", (b"Transfer-Encoding: Chunked",), False, None, True),
        (b"200", (), False, None, False),
        (b"404", (), False, None, False),
        (b"200", (b"Content-Length: 7",), True, 0, False),
        (b"200", (b"Transfer-Encoding: chunked",), True, 0, False),
        (b"200", (), True, 0, False),
        (b"304", (b"Content-Length: 7",), False, 0, False),
        (b"304", (), False, 0, False),
        (b"204", (), False, 0, False),
        (b"204", (b"Content-Length: 7",), False, 0, False),
        (b"204", (b"Transfer-Encoding: chunked",), False, 0, False),
        (b"103", (b"Content-Length: 7",), False, 0, False),
    ],
)
def test_body_length(
    status: bytes, lines: tuple[bytes, ...], head: bool, length: int | None, chunked: bool
) -> None:
    """RFC 9112 section 6.3: by status and method first, then chunked, then the length, then the close."""
    answer = scan(*lines, status=status + b" x", head=head)
    assert (answer.length, answer.chunked) == (length, chunked)


@pytest.mark.parametrize("status", [b"100", b"103", b"204"])
def test_no_length_where_there_is_no_body(status: bytes) -> None:
    """RFC 9110 section 8.6; but HEAD and 304 keep the length they talk about."""
    assert scan(b"CONTENT-length: 7", b"X: 1", status=status).lines == [b"X: 1"]
    assert scan(b"Content-Length: 7", head=True).lines == [b"Content-Length: 7"]
    assert scan(b"Content-Length: 7", status=b"304").lines == [b"Content-Length: 7"]


@pytest.mark.parametrize(
    "lines",
    [
        (b"Content-Length: 5", b"Content-Length: 5"),
        (b"Content-Length: 5", b"Content-Length: 6"),
        (b"Content-Length: 5, 5",),
        (b"Content-Length: -5",),
        (b"Content-Length: five",),
        (b"Content-Length:",),
        (b"Content-Length: " + b"9" * 30,),
        (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        (b"Transfer-Encoding: gzip, chunked",),
        (b"Transfer-Encoding: identity",),
        (b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"),
        (b"Content_Length: 5",),
        (b"Transfer_Encoding: chunked",),
        (b" folded: 1",),
        (b"X : 1",),
        (b"X: a\rb",),
        (b"X: a\nb",),
        (b"X: \x00",),
        (b"no colon",),
        (b"Connection: a b",),
        (b"X: 1",) * 9,
    ],
)
def test_ambiguous_or_malformed_answers(lines: tuple[bytes, ...]) -> None:
    """Refused whole, with HEAD and without a body, too: the connection's next message is at stake."""
    for status, head in (
        (b"200 OK", False),
        (b"200 OK", True),
        (b"204 x", False),
        (b"304 x", False),
    ):
        with pytest.raises(InvalidAnswer):
            scan(*lines, status=status, head=head)


def test_chunked_in_http_1_0_is_refused() -> None:
    """RFC 9112 section 6.1: not everybody would read it as chunked."""
    with pytest.raises(InvalidAnswer):
        scan(b"Transfer-Encoding: chunked", version=b"1.0")


@pytest.mark.parametrize(
    ("version", "lines", "keep_alive"),
    [
        (b"1.1", (), True),
        (b"1.1", (b"Connection: close",), False),
        (b"1.1", (b"Connection: keep-alive", b"Connection: Close"), False),
        (b"1.0", (), False),
        (b"1.0", (b"Connection: keep-alive",), True),
        (b"1.0", (b"Connection: keep-alive, close",), False),
    ],
)
def test_persistence(version: bytes, lines: tuple[bytes, ...], keep_alive: bool) -> None:
    """The upstream's wish is for the upstream's connection; it does not reach the client."""
    answer = scan(*lines, b"Keep-Alive: timeout=5", b"Proxy-Connection: x", version=version)
    assert answer.keep_alive is keep_alive
    assert answer.lines == []


def test_fields_that_connection_names_go_except_the_length() -> None:
    """Without its length on a kept-alive connection, an answer's end would be the next one's start."""
    answer = scan(
        b"X-Hop: 1",
        b"Content-Length: 3",
        b"x-hop: 2",
        b"X-Stays: 1",
        b"Connection: x-hop, content-length, transfer-encoding",
    )
    assert answer.lines == [b"Content-Length: 3", b"X-Stays: 1"]
    assert answer.length == 3


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"__Host-ns_preview=x", False),
        (b"__Host-ns_preview=", False),
        (b"__Host-ns_preview", False),
        (b"__Host-ns_preview =x; Path=/", False),
        (b"\t__Host-ns_preview=x", False),
        (b"=__Host-ns_preview=x", False),
        (b" = __Host-ns_preview=x", False),
        (b"ns_preview=x", True),
        (b"__Host-ns_preview2=x", True),
        (b"a=__Host-ns_preview=x", True),
        (b"a=1; __Host-ns_preview=x", True),
        (b"a=1", True),
        (b"", True),
    ],
)
def test_the_edges_cookie_is_the_edges(value: bytes, kept: bool) -> None:
    """An app cannot set it, not even nameless, as browsers send ``=a=b`` back as ``a=b``."""
    line = b"Set-Cookie: " + value
    assert scan(line).lines == ([line] if kept else [])
    assert scan(line, status=b"103 Early Hints").lines == ([line] if kept else [])


@pytest.mark.parametrize(
    ("status", "lines", "websocket"),
    [
        (b"101", (b"Upgrade: WebSocket", b"Connection: upgrade"), True),
        (b"101", (b"Connection: upgrade",), False),
        (b"101", (b"Upgrade: h2c",), False),
        (b"101", (b"Upgrade: websocket, h2c",), False),
        (b"101", (b"Upgrade: websocket", b"Upgrade: websocket"), False),
        (b"200", (b"Upgrade: websocket",), False),
    ],
)
def test_what_is_a_handshake_answer(
    status: bytes, lines: tuple[bytes, ...], websocket: bool
) -> None:
    """A 101 to exactly websocket; the edge writes Connection and Upgrade itself."""
    answer = scan(*lines, b"Sec-WebSocket-Protocol: chat", status=status + b" x")
    assert answer.websocket is websocket
    assert answer.lines == [b"Sec-WebSocket-Protocol: chat"]


def test_426_tells_the_client_what_to_upgrade_to() -> None:
    """Its Upgrade goes on to the client, with Connection (RFC 9110 section 15.5.22)."""
    answer = scan(b"Upgrade: TLS/1.3", b"Content-Length: 0", status=b"426 Upgrade Required")
    assert answer.lines == [b"Content-Length: 0", b"Connection: Upgrade", b"Upgrade: TLS/1.3"]


LINES = (
    b"Content-Length: 0", b"Content-Length: 12", b"content-length:3 ", b"Content-Length: 3, 3",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Connection: close",
    b"Connection: content-length", b"Set-Cookie: a=1", b"X: caf\xe9", b"Keep-Alive: x",
    b"Upgrade: h2c", b"Content_Length: 3", b"X:", b" fold", b"X: a\nb",
)  # fmt: skip


@given(
    st.sampled_from([b"200 OK", b"204 No Content", b"304 x", b"500", b"299 caf\xe9"]),
    st.lists(st.sampled_from(LINES), max_size=3),
    st.booleans(),
)
@calm
def test_what_passes_also_passes_h11_with_the_same_framing(
    status: bytes, lines: list[bytes], head: bool
) -> None:
    """h11 as oracle, on the app's own bytes."""
    try:
        answer = scan(*lines, status=status, head=head)
    except InvalidAnswer:
        return
    connection = h11.Connection(h11.CLIENT)
    method = "HEAD" if head else "GET"
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.receive_data(b"HTTP/1.1 " + status + b"\r\n" + b"".join(x + b"\r\n" for x in lines))
    connection.receive_data(b"\r\n")
    assert isinstance(connection.next_event(), h11.Response)
    if answer.chunked:
        wire = b"3\r\nabc\r\n0\r\n\r\n"
    elif answer.length is None:
        wire = b"abc"
    else:
        wire = b"x" * answer.length
    connection.receive_data(wire)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += bytes(event.data)
    expected = b"abc" if answer.length is None else wire
    assert body == expected
    ended = answer.chunked or answer.length is not None
    assert isinstance(event, h11.EndOfMessage) is ended


def test_an_empty_block_is_not_the_answer_before() -> None:
    """An app that sends a stray empty line must not repeat the cookie of somebody else's answer."""
    scanner = AnswerScanner(max_fields=8)
    before = scanner.scan(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: session=alice", to_head=False, own_cookie=COOKIE
    )
    with pytest.raises(InvalidAnswer):
        scanner.scan(b"", to_head=False, own_cookie=COOKIE, before=before)


KEPT = (b"ETag: 1", b"ETag: 2", b"X-Hop: 1", b"Date: now", b"Authorization: x")


@st.composite
def alike(draw: st.DrawFn) -> list[tuple[bytes, bool]]:
    """Heads of answers on one connection, most of them like others, and whether HEAD was asked."""
    some = []
    for _ in range(draw(st.integers(1, 3))):
        status = draw(
            st.sampled_from([b"200 OK", b"204 x", b"304 x", b"426 x", b"101 x", b"103 x"])
        )
        first = draw(st.sampled_from([b"HTTP/1.1 ", b"HTTP/1.1 ", b"HTTP/1.0 "])) + status
        special = draw(
            st.lists(
                st.sampled_from((*LINES[:12], b"Connection: x-hop", b"Set-Cookie: ns_preview=x")),
                max_size=2,
            )
        )
        for _ in range(draw(st.integers(1, 3))):
            lines = special + draw(st.lists(st.sampled_from(KEPT + LINES[-4:] * 2), max_size=3))
            length = draw(st.sampled_from([b"12", b"12", b"7", b"0", b"x", b"3, 3", b"", b"12\t"]))
            lines = [line.replace(b"12", length) for line in lines]
            some.append(b"\r\n".join([first, *draw(st.permutations(lines))]))
    heads = st.tuples(st.sampled_from(some), st.sampled_from([False, False, True]))
    return draw(st.lists(heads, min_size=2, max_size=8))


def outcome(one: AnswerScanner, block: bytes, before: Answer | None, *, head: bool) -> object:
    """What an answer came to, and what the client would get."""
    try:
        answer = one.scan(block, to_head=head, own_cookie=b"ns_preview", before=before)
    except InvalidAnswer as error:
        return str(error)
    heads = [
        answer_head(answer, chunked=chunked, close=close, minor=minor, cookie=cookie)
        for chunked, close, minor, cookie in (
            (False, True, 1, None),
            (True, False, 1, b"Set-Cookie: a=b"),
            (False, False, 0, None),
        )
    ]
    heads += [plain_head(answer), interim_head(answer), upgrade_head(answer)]
    framing = (answer.length, answer.chunked, answer.keep_alive, answer.websocket)
    return answer, (answer.status, answer.minor, framing, heads)


@given(alike())
@calm
def test_what_is_remembered_of_answers_changes_nothing(heads: list[tuple[bytes, bool]]) -> None:
    """A connection's answers, each with the one before in mind, mean what each means alone."""
    remembering = AnswerScanner(max_fields=8)
    before: Answer | None = None
    for block, head in heads:
        expected = outcome(AnswerScanner(max_fields=8), block, None, head=head)
        got = outcome(remembering, block, before, head=head)
        if isinstance(got, tuple) and isinstance(expected, tuple):
            before = got[0]
            assert got[1] == expected[1]
        else:
            assert got == expected


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ((b"ETag: 1",), (b"ETag: 2", b"Date: x"), True),
        ((b"Content-Length: 1", b"ETag: 1"), (b"ETag: 1", b"Content-Length: 1"), True),
        ((b"Content-Length: 1",), (b"ETag: 2", b"content-length: 2"), True),
        ((b"Content-Length: 1", b"Upgrade: a"), (b"Upgrade: a", b"Content-Length: 1"), False),
        ((b"Content-Length: 1", b"Keep-Alive: a"), (b"Content-Length: 2", b"Keep-Alive: b"), False),
        ((b"Keep-Alive: a", b"Content-Length: 1"), (b"Keep-Alive: b", b"Content-Length: 2"), False),
        ((b"Keep-Alive: a", b"Content-Length: 1"), (b"Keep-Alive: a",), False),
        ((b"Content-Length: 1",), (b"Keep-Alive: 5",), False),
        ((b"Keep-Alive: a",), (b"Keep-Alive: b",), False),
        ((b"Connection: close",), (), False),
        ((b"Connection: etag", b"ETag: 1"), (b"Connection: etag", b"X: 1"), False),
        ((b"Set-Cookie: a=1", b"ETag: 1"), (b"Set-Cookie: a=1", b"ETag: 2"), False),
    ],
)
def test_answers_that_mean_the_same_are_one(
    first: tuple[bytes, ...], second: tuple[bytes, ...], shared: bool
) -> None:
    """As long as no line with a meaning changes, but for a length; never where others were judged, too."""
    one = AnswerScanner(max_fields=8)
    blocks = [b"\r\n".join([b"HTTP/1.1 200 OK", *lines]) for lines in (first, second)]
    before = one.scan(blocks[0], to_head=False, own_cookie=COOKIE)
    status = one.scan(
        blocks[0].replace(b"200", b"404"), to_head=False, own_cookie=COOKIE, before=before
    )
    assert status is not before and status.status == 404
    assert (
        one.scan(blocks[1], to_head=False, own_cookie=COOKIE, before=before) is before
    ) is shared


def test_an_answer_of_another_length_has_that_length() -> None:
    """The one thing that nearly all answers differ in; a length that is none is as bad as it was at first."""
    one = AnswerScanner(max_fields=8)
    block = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: %b"
    before = one.scan(block % b"3", to_head=False, own_cookie=COOKIE)
    for length in (4, 0, 4):
        after = one.scan(block % (b"%d" % length), to_head=False, own_cookie=COOKIE, before=before)
        assert after is before and after.length == length
        assert after.lines == [b"Content-Length: %d" % length]
    for bad in (b"4, 4", b"-1", b"", b"4\r\nContent-Length: 4"):
        with pytest.raises(InvalidAnswer):
            one.scan(block % bad, to_head=False, own_cookie=COOKIE, before=before)
    asked = one.scan(block % b"5", to_head=True, own_cookie=COOKIE, before=before)
    assert (before.length, asked.length) == (4, 0)
