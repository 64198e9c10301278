"""Client streams, good and spoilt: reads decide nothing, and an upstream never sees more than the edge did."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.core.wires import blocks, cut, examples
from tests.properties.exchanges import (
    RECORDED_REQUESTS,
    Asked,
    bare,
    conversations,
    mutated,
    places,
)
from tests.properties.readers import (
    Read,
    Stream,
    Unjudged,
    requests_by_h11,
    through_the_edge,
)

RECORDED = tuple(map(bare, RECORDED_REQUESTS))


def judge(stream: Stream, sent: bytes) -> None:
    """h11 reads the same requests from what came and from what went: no more, no fewer, no others."""
    went = requests_by_h11(b"".join(stream.upstream))
    complete = [read.complete for read in went]
    assert len(went) == len(stream.heads)
    assert complete == [True] * stream.complete + [False] * (len(went) - stream.complete)
    for read, head in zip(went, stream.heads, strict=True):
        assert (read.method, read.target) == (head.method, head.target)
    try:
        came = requests_by_h11(sent, most=stream.complete, lines_before=True)
    except Unjudged:
        return
    assert [(read.method, read.payload) for read in came] == [
        (read.method, read.payload) for read in went[: stream.complete]
    ]


def same_however_it_comes(wire: bytes, where: list[int]) -> Stream:
    """Read whole, in pieces and byte by byte: the same heads, the same bodies, the same end."""
    whole = through_the_edge([wire])
    for parts in (cut(wire, where), [wire[i : i + 1] for i in range(len(wire))]):
        other = through_the_edge(parts)
        assert (other.heads, other.complete, other.ended) == (
            whole.heads,
            whole.complete,
            whole.ended,
        )
        seen = requests_by_h11(b"".join(other.upstream))
        expected = requests_by_h11(b"".join(whole.upstream))
        done = whole.complete
        assert seen[:done] == expected[:done]
        if whole.ended == "framing":
            # What came before the crooked chunk may be on its way already; nothing is complete.
            assert not any(read.complete for read in seen[done:])
        else:
            assert seen[done:] == expected[done:]
    return whole


@given(conversations(), places())
@examples(80)
def test_good_conversations_are_read_as_they_were_meant(
    asked: list[Asked], where: list[int]
) -> None:
    """Every spelling the RFC allows: each request whole, none of them mixed with its neighbour."""
    wire = bare(b"".join(one.wire for one in asked))
    stream = same_however_it_comes(wire, where)
    assert stream.complete == len(asked)
    assert stream.ended == "close"
    judge(stream, wire)
    for one, read in zip(asked, requests_by_h11(b"".join(stream.upstream)), strict=True):
        assert read == Read(one.method, read.target, one.payload, True)
        assert read.target.partition(b"?")[0] == one.path


@given(st.data(), conversations(3), places())
@examples(200)
def test_spoilt_conversations_leave_as_they_were_understood(
    data: st.DataObject, asked: list[Asked], where: list[int]
) -> None:
    """Bytes flipped, lost, added, doubled: refused, or every reader downstream agrees with the edge."""
    good = bare(b"".join(one.wire for one in asked))
    wire = data.draw(mutated(good, RECORDED))
    judge(same_however_it_comes(wire, where), wire)


@given(st.data(), st.lists(st.sampled_from(RECORDED), min_size=1, max_size=3), places())
@examples(200)
def test_spoilt_recordings_leave_as_they_were_understood(
    data: st.DataObject, recorded: list[bytes], where: list[int]
) -> None:
    """The same for what real clients send."""
    wire = data.draw(mutated(b"".join(recorded), RECORDED))
    judge(same_however_it_comes(wire, where), wire)


@given(blocks(), st.sampled_from([b"", b"12345", b"5\r\nhello\r\n0\r\n\r\n"]), places())
@examples(200)
def test_nasty_heads_with_a_tail_leave_as_they_were_understood(
    block: bytes, body: bytes, where: list[int]
) -> None:
    """Heads from the drawer of horrors, each followed by a body and by another request."""
    wire = block + b"\r\n\r\n" + body + RECORDED[0]
    judge(same_however_it_comes(wire, where), wire)


def test_recordings_are_good_requests() -> None:
    """What is mutated begins as something every reader accepts."""
    for wire in RECORDED:
        stream = through_the_edge([wire])
        assert stream.complete == 1
        judge(stream, wire)
