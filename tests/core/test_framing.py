"""Framing: where bodies end, whatever the reads looked like, and never somewhere h11 does not see it."""

from __future__ import annotations

import sys
import time
from typing import Self

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.core.fields import FieldReader
from edge.core.framing import (
    LAST_CHUNK,
    ChunkedDecoder,
    CloseDecoder,
    Decoder,
    FramingError,
    LengthDecoder,
    chunk,
    last_chunk,
)
from tests.core.wires import TAIL, TRAILERS_AS_HEADERS, calm, cut, pieces


def chunked(max_trailer_bytes: int = 200) -> ChunkedDecoder:
    """A fresh decoder as requests have it."""
    return ChunkedDecoder(FieldReader.for_requests(), max_trailer_bytes=max_trailer_bytes)


def feed(decoder: Decoder, parts: list[bytes]) -> tuple[bytes, bytes]:
    """Payload and what follows the body, the way the traffic room reads: after the end no more is fed."""
    payload, rest = b"", b""
    for part in parts:
        if decoder.done:
            rest += part
        else:
            payload += decoder.feed(part)
            rest += decoder.rest
    return payload, rest


GOOD = [
    (b"0\r\n\r\n", b"", []),
    (b"000\r\n\r\n", b"", []),
    (b"3\r\nabc\r\n0\r\n\r\n", b"abc", []),
    (b"3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\n", b"abc0123456789", []),
    (b"a\r\n0123456789\r\n0;last\r\n\r\n", b"0123456789", []),
    (b'3;a=b;c="d e"\r\nabc\r\n0\r\n\r\n', b"abc", []),
    (b"3;\r\nabc\r\n0\r\n\r\n", b"abc", []),
    (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n", []),
    (b"000000000000003\r\nabc\r\n0\r\n\r\n", b"abc", []),
    (b"1\r\na\r\n0\r\nX-Sum: 1\r\nY:2\r\n\r\n", b"a", [b"X-Sum: 1", b"Y:2"]),
    # Trailers that would frame, route or authorise if they were fields are taken out.
    (
        (
            b"0\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: x\r\nCookie: a=1\r\n"
            b"X-Forwarded-For: 1\r\nx-nullspace-preview-proxy-token: t\r\nConnection: x\r\n"
            b"Content_Length: 5\r\nX: 1\r\n\r\n"
        ),
        b"",
        [b"X: 1"],
    ),
]


@pytest.mark.parametrize(("wire", "payload", "trailers"), GOOD)
def test_chunked_bodies(wire: bytes, payload: bytes, trailers: list[bytes]) -> None:
    """Whole, byte by byte and cut anywhere, with the next message behind it: the same to the byte."""
    for tail in (b"", TAIL, b"\r\n"):
        for parts in pieces(wire + tail):
            decoder = chunked()
            assert feed(decoder, parts) == (payload, tail)
            assert decoder.done and decoder.finish()
            assert decoder.trailers == trailers


BAD = [
    b"\r\n",
    b"x\r\n",
    b"g\r\n",
    b"-1\r\n",
    b"+1\r\n",
    b"0x1\r\na\r\n",
    b"1_0\r\n",
    b" 1\r\na\r\n",
    b"1 \r\na\r\n",
    b"1\t;x\r\na\r\n",
    b"1,1\r\n",
    b"\xd9\xa1\r\n",
    b"1" * 16 + b"\r\n",
    b"0" * 16 + b"\r\n\r\n",
    b"1\na\r\n",
    b"1\n",
    b"1\r\ra\r\n",
    b"1\r\nab\r\n",
    b"1\r\na\n0\r\n\r\n",
    b"1\r\na\rx",
    b"1\r\na0\r\n\r\n",
    b"3\r\nabc0\r\n\r\n",
    b"1;a\nb\r\na\r\n",
    b"1;\x00\r\na\r\n",
    b"1;a\rb\r\na\r\n",
    b"1" + b";" + b"x" * 1100 + b"\r\na\r\n",
    b"0\r\n\n",
    b"0\r\nX: 1\n\r\n",
    b"0\r\nno colon\r\n\r\n",
    b"0\r\n folded: 1\r\n\r\n",
    b"0\r\nX : 1\r\n\r\n",
    b"0\r\nX: \x00\r\n\r\n",
    b"0\r\nX: " + b"a" * 200 + b"\r\n\r\n",
    b"0\r\n" + b"X: 1\r\n" * 60 + b"\r\n",
]


@pytest.mark.parametrize("wire", BAD)
def test_crooked_chunks_are_refused(wire: bytes) -> None:
    """However the bytes arrive; "1 " and "0x1" are what smuggling lives on (RFC 9112 section 7.1)."""
    for parts in pieces(wire):
        decoder = chunked()
        with pytest.raises(FramingError):
            feed(decoder, [*parts, b"\r\n" * 2])
        assert not decoder.done


@pytest.mark.parametrize("wire", [wire for wire, _, _ in GOOD])
def test_every_prefix_is_incomplete(wire: bytes) -> None:
    """The end of the connection is never taken for the end of a chunked body."""
    for end in range(len(wire)):
        decoder = chunked()
        decoder.feed(wire[:end])
        assert not decoder.done and not decoder.finish()


def test_the_limits_of_lines_are_exact_however_they_arrive() -> None:
    """A line of the longest kind whose CR and LF come in two reads is as good as in one."""
    wire = b"0\r\nX: " + b"a" * 197 + b"\r\n\r\n"
    for parts in pieces(wire):
        decoder = chunked(max_trailer_bytes=200)
        feed(decoder, parts)
        assert decoder.done
    wire = b"1;" + b"x" * 1022 + b"\r\na\r\n0\r\n\r\n"
    for parts in pieces(wire):
        decoder = chunked()
        assert feed(decoder, parts) == (b"a", b"")


@pytest.mark.parametrize("start", [b"1;x", b"0\r\nX: y", b"1\r\na\r\n1;x"])
@pytest.mark.parametrize("half", [b"\n", b"\rz", b"\r\r", b"\rz\r"])
def test_half_an_end_is_refused_before_the_line_ends(start: bytes, half: bytes) -> None:
    """In whichever piece it comes: what will never be a good line is not waited for."""
    for parts in pieces(start + half):
        with pytest.raises(FramingError):
            feed(chunked(), parts)
    for parts in pieces(start + b"\r"):
        feed(chunked(), parts)  # its LF may come with the next


@pytest.mark.parametrize("step", [1, 7])
def test_a_drip_of_a_line_costs_what_it_brings(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """60 kB of trailers in small pieces: each byte is copied and looked at a few times, not once a piece."""
    copied = looked = 0

    class Counting(bytearray):
        def __init__(self, data: bytes) -> None:
            nonlocal copied
            copied += len(data)
            super().__init__(data)

        def __iadd__(self, data: bytes) -> Self:  # type: ignore[override]
            nonlocal copied
            copied += len(data)
            return super().__iadd__(data)

        def find(self, sub: bytes, start: int = 0, end: int = sys.maxsize) -> int:  # type: ignore[override]
            nonlocal looked
            looked += max(0, min(end, len(self)) - start)
            return super().find(sub, start, end)

    def looking(data: bytes, searched: int) -> bool:
        nonlocal looked
        looked += len(data) - searched
        return False

    monkeypatch.setattr("edge.core.framing.bytearray", Counting, raising=False)
    monkeypatch.setattr("edge.core.framing.has_half_end", looking)
    line = b"X: " + b"y" * 30_000
    wire = b"1\r\na\r\n0\r\n" + (line + b"\r\n") * 2 + b"\r\n"
    decoder = chunked(max_trailer_bytes=65536)
    feed(decoder, [wire[at : at + step] for at in range(0, len(wire), step)])
    assert decoder.done and decoder.trailers == [line, line]
    assert copied < 2 * len(wire) and looked < 5 * len(wire)


def test_an_endless_line_is_refused_before_it_ends() -> None:
    """Memory is bounded by the limit, not by the sender's patience."""
    decoder = chunked()
    with pytest.raises(FramingError):
        feed(decoder, [b"1", *[b";"] * 1100])
    assert len(decoder._buffer) < 1100


def test_extensions_are_bounded_in_proportion_to_the_payload() -> None:
    """1 kB of extension for each byte would be work for nothing."""
    extension = b";" + b"x" * 1000 + b"\r\n"
    with pytest.raises(FramingError):
        feed(chunked(), [b"1" + extension + b"a\r\n"] * 20)
    payload, _ = feed(chunked(), [b"7d0" + extension + b"a" * 2000 + b"\r\n"] * 100)
    assert len(payload) == 200_000


def test_many_small_chunks_cost_linear_time() -> None:
    """A quarter of a megabyte of one-byte chunks once held the loop for a second (quadratic copying)."""

    def seconds(count: int) -> float:
        decoder = chunked()
        wire = b"1\r\nx\r\n" * count
        began = time.process_time()
        assert len(decoder.feed(wire)) == count
        return time.process_time() - began

    small = min(seconds(5_000) for _ in range(3))
    assert seconds(100_000) < 20 * 4 * max(small, 0.001)


@st.composite
def wires(draw: st.DrawFn) -> bytes:
    """Chunked bodies, most of them good, some of them with a byte put in or taken out."""
    out = b""
    for data in draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4)):
        size = draw(
            st.sampled_from([b"%x", b"%X", b"0%x", b"%x;a=b", b"%x;", b" %x", b"%x ", b"0x%x"])
        )
        end = draw(st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b""]))
        out += size % len(data) + b"\r\n" + data + end
    out += draw(st.sampled_from([b"0", b"0", b"00", b"0;x"])) + b"\r\n"
    trailer = st.sampled_from([b"X: 1", b"Y:", b"Content-Length: 3", b" z: 1", b"bad", b"N: \xe9"])
    out += b"".join(line + b"\r\n" for line in draw(st.lists(trailer, max_size=2))) + b"\r\n"
    if draw(st.booleans()):
        at = draw(st.integers(0, len(out)))
        put = draw(st.sampled_from([b"", b"\r", b"\n", b"0", b"\0", b";", b" "]))
        out = out[:at] + put + out[at + draw(st.integers(0, 1)) :]
    return out + draw(st.sampled_from([b"", TAIL]))


def h11_body(wire: bytes) -> tuple[bytes, bytes | None]:
    """Payload and what follows, as h11 reads a chunked request body; None = it has not ended."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + wire
    )
    assert isinstance(connection.next_event(), h11.Request)
    payload = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            payload += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return payload, connection.trailing_data[0]
        else:
            return payload, None


@given(wires(), st.lists(st.integers(0, 200), max_size=4))
@calm
def test_whatever_passes_also_passes_h11_and_ends_at_the_same_byte(
    wire: bytes, places: list[int]
) -> None:
    """h11 as oracle: it accepts what we accept, with the same payload and the same end."""
    decoder = chunked()
    try:
        payload, rest = feed(decoder, cut(wire, places))
    except FramingError:
        return
    try:
        expected = h11_body(wire)
    except h11.RemoteProtocolError as error:
        if str(error).startswith(TRAILERS_AS_HEADERS):
            return
        raise
    assert expected == (payload, rest if decoder.done else None)


@given(wires(), st.lists(st.integers(0, 200), max_size=6))
@calm
def test_reads_decide_nothing(wire: bytes, places: list[int]) -> None:
    """The same bytes in other reads give the same body, or the same refusal."""

    def outcome(parts: list[bytes]) -> object:
        decoder = chunked()
        try:
            return (*feed(decoder, parts), decoder.done, list(decoder.trailers))
        except FramingError:
            return FramingError

    expected = outcome([wire])
    assert outcome(cut(wire, places)) == expected
    assert outcome(cut(wire, list(range(len(wire) + 1)))) == expected


@given(st.lists(st.binary(max_size=50), max_size=5), st.booleans())
@calm
def test_what_we_write_reads_back(payloads: list[bytes], trailers: bool) -> None:
    """Chunks of ours, for our decoder and for h11; an empty payload does not end the body."""
    lines = [b"X-Sum: 1"] if trailers else []
    wire = b"".join(map(chunk, payloads)) + last_chunk(lines)
    decoder = chunked()
    assert feed(decoder, [wire + TAIL]) == (b"".join(payloads), TAIL)
    assert decoder.trailers == lines
    assert h11_body(wire + TAIL) == (b"".join(payloads), TAIL)
    assert chunk(b"") == b"" and last_chunk([]) == LAST_CHUNK


@pytest.mark.parametrize("length", [0, 1, 5, 14])
def test_a_body_of_known_length(length: int) -> None:
    """So many bytes and not one more, however they come."""
    body = b"0123456789abcd"[:length]
    for tail in (b"", TAIL):
        for parts in pieces(body + tail):
            decoder = LengthDecoder(length)
            assert feed(decoder, parts) == (body, tail)
            assert decoder.done and decoder.finish() and not decoder.trailers


def test_a_short_body_is_not_complete() -> None:
    """The end of the connection does not make up for missing bytes."""
    decoder = LengthDecoder(5)
    assert feed(decoder, [b"ab", b"cd"]) == (b"abcd", b"")
    assert not decoder.done and not decoder.finish()


def test_a_body_until_close_ends_with_the_connection_only() -> None:
    """RFC 9112 section 6.3, rule 8."""
    decoder = CloseDecoder()
    assert feed(decoder, [b"a", b"0\r\n\r\n"]) == (b"a0\r\n\r\n", b"")
    assert not decoder.done
    assert decoder.finish() and decoder.done
