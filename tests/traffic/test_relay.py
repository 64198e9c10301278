"""Relays: the client gets the same bytes however the upstream's came, and never a completed half."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.answer import AnswerScanner, InvalidAnswer
from edge.core.fields import FieldReader
from edge.core.framing import FramingError
from edge.core.head import Head
from edge.traffic.relay import AnswerRelay, RequestRelay
from tests.core.wires import TAIL, UPGRADE, calm, cut, pieces, request, scan

COOKIE = b"ns_preview"
GET, HEAD, OLD = b"GET / HTTP/1.1", b"HEAD / HTTP/1.1", b"GET / HTTP/1.0"
OK = b"HTTP/1.1 200 OK\r\n"


def relay(
    line: bytes = GET,
    *lines: bytes,
    closing: Callable[[], bool] = lambda: False,
    cookie: bytes | None = None,
    max_head_bytes: int = 500,
) -> AnswerRelay:
    """A relay for the answer to this request."""
    return AnswerRelay(
        scan(request(*lines, line=line)),
        AnswerScanner(max_fields=8),
        own_cookie=COOKIE,
        max_head_bytes=max_head_bytes,
        closing=closing,
        cookie=cookie,
    )


class Outcome(NamedTuple):
    """What the client saw and what became of the relay, independent of how chunks were cut."""

    statuses: list[int]
    headers: list[tuple[bytes, bytes]]
    body: bytes
    trailers: list[tuple[bytes, bytes]]
    complete: bool
    surplus: bytes


def at_client(out: bytes, method: str = "GET", *, eof: bool = False) -> Outcome:
    """The client's bytes as h11 understands them. Raises for what is no answer."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(out)
    if eof:
        connection.receive_data(b"")
    statuses, headers, body = [], [], b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.InformationalResponse | h11.Response):
            statuses.append(event.status_code)
            headers = list(event.headers)
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            rest = connection.trailing_data[0]
            return Outcome(statuses, headers, body, list(event.headers), True, rest)
        else:
            return Outcome(statuses, headers, body, [], False, b"")


def run(answer: AnswerRelay, parts: list[bytes], *, eof: bool = False) -> bytes:
    """Feed all parts and, if the upstream says so, its end; everything for the client."""
    out = b"".join([answer.feed(part) for part in parts])
    if eof and not answer.done:
        last = answer.finish()
        assert last is not None
        out += last
    return out


SAMPLES = [
    # request line, upstream's bytes, by its close, client's framing fields, body
    (GET, OK + b"Content-Length: 5\r\n\r\nhello", False, [(b"content-length", b"5")], b"hello"),
    (GET, OK + b"Content-Length: 0\r\n\r\n", False, [(b"content-length", b"0")], b""),
    (
        GET,
        OK + b"Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        False,
        [(b"transfer-encoding", b"chunked")],
        b"hello",
    ),
    (GET, OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False, [(b"transfer-encoding", b"chunked")], b""),
    (GET, OK + b"\r\nhello", True, [(b"transfer-encoding", b"chunked")], b"hello"),
    (GET, b"HTTP/1.0 200 OK\r\n\r\n", True, [(b"transfer-encoding", b"chunked")], b""),
    (HEAD, OK + b"Content-Length: 5\r\n\r\n", False, [(b"content-length", b"5")], b""),
    (HEAD, OK + b"Transfer-Encoding: chunked\r\n\r\n", False, [], b""),
    (HEAD, OK + b"\r\n", False, [], b""),
    (GET, b"HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", False, [], b""),
    (GET, b"HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n", False, [(b"content-length", b"5")], b""),
    (OLD, OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: 1\r\n\r\n", False, [(b"connection", b"close")], b"hello"),
    (OLD, OK + b"\r\nhello", True, [(b"connection", b"close")], b"hello"),
    (OLD, OK + b"Content-Length: 5\r\n\r\nhello", False, [(b"content-length", b"5"), (b"connection", b"keep-alive")], b"hello"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "wire", "by_close", "framing", "body"), SAMPLES)
def test_answers_end_for_the_client_where_they_end(
    line: bytes, wire: bytes, by_close: bool, framing: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """Whole, byte by byte and cut anywhere: the same head, the same body, the same end."""
    method = line.split()[0].decode()
    for parts in pieces(wire):
        answer = relay(line)
        out = run(answer, parts, eof=by_close)
        assert answer.done and answer.delimited is (answer.final.length is not None or line == GET)
        assert answer.surplus == b""
        seen = at_client(out, method, eof=answer.close)
        assert (seen.headers, seen.body, seen.complete) == (framing, body, True)
        assert answer.payload == len(body)


@pytest.mark.parametrize(
    ("line", "wire"), [(line, wire) for line, wire, by_close, _, _ in SAMPLES if not by_close]
)
def test_what_follows_an_answer_is_never_part_of_it(line: bytes, wire: bytes) -> None:
    """A second answer nobody asked for stays here, in one read or in many."""
    second = OK + b"Content-Length: 4\r\n\r\nevil"
    alone = run(relay(line), [wire])
    for parts in ([wire + second], [wire, second], [wire[:-1], wire[-1:] + second[:5], second[5:]]):
        answer = relay(line)
        assert len(run(answer, parts)) == len(alone)
        assert answer.done and answer.surplus == second


@pytest.mark.parametrize(("line", "wire", "by_close"), [sample[:3] for sample in SAMPLES])
def test_a_truncated_answer_is_never_completed(line: bytes, wire: bytes, by_close: bool) -> None:
    """Cut after every byte: no last chunk, and where the framing does not show it the edge knows."""
    head_end = wire.index(b"\r\n\r\n") + 4
    for end in range(head_end if by_close else len(wire)):
        answer = relay(line)
        out = answer.feed(wire[:end])
        if answer.done:
            continue
        assert answer.finish() is None
        if not out:
            continue
        if not answer.delimited:
            assert line == OLD  # only a reset can tell; the listener is told so
        else:
            with pytest.raises(h11.RemoteProtocolError):
                at_client(out, line.split()[0].decode(), eof=True)


def test_trailers_reach_the_client_in_their_place() -> None:
    """Only where there is a place, and none that would frame, route or set our cookie."""
    wire = (
        OK + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n"
        b"0\r\nX-Sum: 9\r\nSet-Cookie: ns_preview=x\r\nContent-Length: 9\r\n\r\n"
    )
    for parts in pieces(wire):
        seen = at_client(run(relay(), parts))
        assert seen.trailers == [(b"x-sum", b"9")]
        assert (b"trailer", b"X-Sum") in seen.headers


@pytest.mark.parametrize(("line", "statuses"), [(GET, [100, 103, 200]), (OLD, [200])])
def test_interim_answers_go_on_to_clients_that_know_them(line: bytes, statuses: list[int]) -> None:
    """RFC 9110 section 15.2: as they came, and none to HTTP/1.0."""
    wire = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n"
        b"Set-Cookie: ns_preview=x\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n"
    )
    for parts in pieces(wire):
        answer = relay(line)
        out = run(answer, parts)
        assert at_client(out).statuses == statuses
        assert b"ns_preview" not in out and (b"Link: </a>" in out) is (line == GET)


def test_too_many_interim_answers_are_an_app_gone_wild() -> None:
    """Bounded, because each costs the client a write."""
    answer = relay()
    answer.feed(b"HTTP/1.1 102 Processing\r\n\r\n" * 32)
    with pytest.raises(InvalidAnswer):
        answer.feed(b"HTTP/1.1 102 Processing\r\n\r\n")


@pytest.mark.parametrize(
    "wire",
    [
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTQ",
        b"\r\n",
        b"<html>",
        b"\x16\x03\x01",
        b"HTTP/2.0 200 OK\r\n\r\n",
        OK + b"X: " + b"a" * 500,
        OK + b"X: " + b"a" * 500 + b"\r\n\r\n",
        OK + b"X : 1\r\n\r\n",
        OK + b"X: a\n\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Go\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Go\r\n\r\n",
        b"HTTP/1.1 103 x\r\n\r\nrubbish",
    ],
)
def test_answers_that_are_none_are_refused_at_once(wire: bytes) -> None:
    """However they arrive, and without waiting for an end that will not come."""
    for parts in pieces(wire):
        answer = relay()
        with pytest.raises(InvalidAnswer):
            run(answer, parts)
        assert answer.final is None


def test_the_head_limit_is_exact_however_it_arrives() -> None:
    """A head of the largest size is as good in many reads as in one."""
    wire = OK + b"Content-Length: 0\r\nX: 1\r\n\r\n"
    limit = len(wire) - 4
    for parts in pieces(wire):
        answer = relay(max_head_bytes=limit)
        run(answer, parts)
        assert answer.done
        with pytest.raises(InvalidAnswer):
            run(relay(max_head_bytes=limit - 1), parts)


def test_a_drip_of_a_head_costs_what_it_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 kB of a head, byte by byte: each byte is looked at twice, and the answer is right."""
    looked = 0

    def counted(data: bytes, searched: int) -> bool:
        nonlocal looked
        looked += len(data) - searched
        return False

    monkeypatch.setattr("edge.traffic.relay.has_half_end", counted)
    wire = b"HTTP/1.1 200 OK\r\n" + b"X: %b\r\n" % (b"y" * 60_000) + b"Content-Length: 0\r\n\r\n"
    answer = relay(max_head_bytes=65536)
    out = run(answer, [wire[at : at + 1] for at in range(len(wire))])
    assert answer.done and out.startswith(b"HTTP/1.1 200 OK\r\n")
    assert looked < 3 * len(wire)


@pytest.mark.parametrize(
    "bad", [b"A: b\nC", b"A: b\rC", b"A: b\r\r\nC", b"A: b\r\r", b"\n", b"\n\r"]
)
def test_half_an_end_of_line_is_noticed_in_whichever_piece_it_comes(bad: bytes) -> None:
    """In its own read, behind a read that ended with CR, or with neither; also after an interim answer."""
    for parts in pieces(b"HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n"):
        assert run(relay(), parts) == b""
    for before in (b"", b"HTTP/1.1 100 Continue\r\n\r\n"):
        for parts in pieces(before + b"HTTP/1.1 200 OK\r\n" + bad):
            with pytest.raises(InvalidAnswer):
                run(relay(), parts)


def test_crooked_chunks_end_the_answer_without_completing_it() -> None:
    """What went out before stays cut."""
    answer = relay()
    out = answer.feed(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n")
    with pytest.raises(FramingError):
        answer.feed(b"0x1\r\nl\r\n0\r\n\r\n")
    assert not answer.done and answer.finish() is None
    with pytest.raises(h11.RemoteProtocolError):
        at_client(out, eof=True)


def test_only_an_interim_answer_is_no_answer() -> None:
    """The upstream closed after its 100: nothing can be completed."""
    answer = relay()
    answer.feed(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answer.finish() is None and answer.final is None


@pytest.mark.parametrize("early", [b"", b"\x81\x02hi", OK])
def test_an_upgrade_hands_over_what_follows_untouched(early: bytes) -> None:
    """Bytes after the 101 belong to the tunnel."""
    wire = b"HTTP/1.1 101 Go\r\nUpgrade: WebSocket\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    for parts in pieces(wire + early):
        answer = relay(GET, *UPGRADE)
        assert run(answer, parts) == (
            b"HTTP/1.1 101 Go\r\nSec-WebSocket-Protocol: chat\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\n\r\n"
        )
        assert answer.done and answer.surplus == early
        assert answer.final is not None and answer.final.status == 101


def test_a_101_to_something_else_is_refused() -> None:
    """Also where an upgrade was asked for: the client would speak WebSocket to who knows what."""
    for head in (b"Upgrade: h2c", b"Upgrade: websocket, h2c", b"X: 1"):
        with pytest.raises(InvalidAnswer):
            relay(GET, *UPGRADE).feed(b"HTTP/1.1 101 Go\r\n" + head + b"\r\n\r\n")


def test_a_refused_upgrade_ends_the_connection() -> None:
    """Frames of a client that believes in its tunnel must not be read as its next request."""
    answer = relay(GET, *UPGRADE)
    out = answer.feed(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    assert answer.done and answer.close
    assert (b"connection", b"close") in at_client(out).headers


def test_closing_is_asked_when_the_final_head_goes_out() -> None:
    """Once, and not before: a drain may begin while the app thinks."""
    asked: list[int] = []
    answer = relay(closing=lambda: bool(asked.append(1)) or True)
    answer.feed(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert asked == []
    out = answer.feed(OK + b"Content-Length: 0\r\n\r\n")
    assert asked == [1] and answer.close
    assert b"Connection: close\r\n" in out


def test_the_edges_cookie_goes_with_the_final_head_only() -> None:
    """Not with a 103, and with what keeps shared caches away."""
    answer = relay(cookie=b"Set-Cookie: ns_preview=mine")
    out = answer.feed(b"HTTP/1.1 103 x\r\n\r\n" + OK + b"Set-Cookie: ns_preview=evil\r\n\r\n")
    assert out.count(b"ns_preview") == 1
    assert out.index(b"ns_preview=mine\r\nCache-Control: private\r\n") > out.index(b"200 OK")


# --- requests ---------------------------------------------------------------------------------------


def uploaded(line: bytes) -> tuple[Head, RequestRelay]:
    """A relay for the body of a POST framed so."""
    head = scan(request(line, line=b"POST / HTTP/1.1"))
    return head, RequestRelay(head, FieldReader.for_requests(), max_trailer_bytes=200)


@pytest.mark.parametrize(
    ("line", "wire"),
    [
        (b"Content-Length: 5", b"hello"),
        (b"Transfer-Encoding: chunked", b"1;x\r\nh\r\n04\r\nello\r\n0\r\nX-Evil: 1\r\n\r\n"),
    ],
)
def test_a_request_body_reaches_the_upstream_and_ends_there(line: bytes, wire: bytes) -> None:
    """The next request stays here; chunks are cut anew, extensions and trailers are dropped."""
    for parts in pieces(wire + TAIL):
        _, body = uploaded(line)
        out, rest = b"", b""
        for part in parts:
            if body.done:
                rest += part
            else:
                out += body.feed(part)
                rest += body.rest
        assert body.done and rest == TAIL and body.payload == 5
        server = h11.Connection(h11.SERVER)
        server.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\n" + line + b"\r\n\r\n" + out + TAIL)
        server.next_event()
        seen = b""
        while isinstance(event := server.next_event(), h11.Data):
            seen += bytes(event.data)
        assert isinstance(event, h11.EndOfMessage) and not event.headers
        assert seen == b"hello" and server.trailing_data[0] == TAIL


def test_an_incomplete_request_body_is_not_done() -> None:
    """And crooked chunks say so."""
    _, body = uploaded(b"Transfer-Encoding: chunked")
    assert body.feed(b"2\r\nh") == b"1\r\nh\r\n"
    assert not body.done
    with pytest.raises(FramingError):
        body.feed(b"ex\r\n")


# --- properties -------------------------------------------------------------------------------------


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, bool]:
    """An upstream's answer, and whether its end is the connection's."""
    out = draw(
        st.sampled_from([b"", b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.1 103 E\r\nLink: x\r\n\r\n"])
    )
    out += draw(
        st.sampled_from([OK, b"HTTP/1.1 404\r\n", b"HTTP/1.1 204 N\r\n", b"HTTP/1.1 304 N\r\n"])
    )
    out += draw(st.sampled_from([b"", b"X: 1\r\n", b"Connection: content-length, x\r\nX: 1\r\n"]))
    payload = draw(st.lists(st.binary(min_size=1, max_size=30), max_size=4))
    how = draw(st.sampled_from(["length", "chunked", "close"]))
    body = b"".join(payload)
    if how == "length":
        out += b"Content-Length: %d\r\n\r\n" % len(body) + body
    elif how == "chunked":
        out += b"Transfer-Encoding: chunked\r\n\r\n"
        out += b"".join(b"%x;e\r\n%b\r\n" % (len(data), data) for data in payload)
        out += b"0\r\n" + draw(st.sampled_from([b"", b"T: 1\r\n"])) + b"\r\n"
    else:
        out += b"\r\n" + body
    return out, how == "close"


@given(answers(), st.sampled_from([GET, HEAD, OLD]), st.lists(st.integers(0, 300), max_size=6))
@calm
def test_reads_decide_nothing(answer: tuple[bytes, bool], line: bytes, places: list[int]) -> None:
    """Any splitting of the upstream's bytes gives the same answer to the client."""
    wire, by_close = answer
    method = line.split()[0].decode()
    outcomes = []
    for parts in ([wire], cut(wire, places), [wire[i : i + 1] for i in range(len(wire))]):
        it = relay(line)
        out = run(it, parts, eof=by_close)
        assert it.done
        outcomes.append((at_client(out, method, eof=it.close), it.surplus, it.payload, it.close))
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert outcomes[0][0].complete


@given(answers(), st.sampled_from([GET, OLD]), st.integers(0, 300))
@calm
def test_no_cut_completes_an_answer(answer: tuple[bytes, bool], line: bytes, place: int) -> None:
    """Unless the close is its end, or the client cannot tell and is to be reset."""
    wire, by_close = answer
    it = relay(line)
    out = it.feed(wire[: place % len(wire)])
    if it.done or (by_close and it.final is not None):
        return
    assert it.finish() is None
    if out and it.final is not None and it.delimited:
        with pytest.raises(h11.RemoteProtocolError):
            at_client(out, eof=True)


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=4), st.booleans())
@calm
def test_rubbish_is_refused_and_nothing_worse(noise: bytes, places: list[int], begun: bool) -> None:
    """An app may say anything: only our two errors leave the relay."""
    wire = OK + noise if begun else noise
    answer = relay()
    try:
        run(answer, cut(wire, places))
    except (InvalidAnswer, FramingError):
        assert not answer.done
