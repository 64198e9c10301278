"""Frames: where one ends, whatever it holds and however its bytes come; and frames that say goodbye."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from edge.core.frames import GOING_AWAY, FrameTracker, close_frame
from tests.core.wires import calm, cut


def frame(opcode: Opcode, size: int, *, mask: bool, fin: bool = True) -> bytes:
    """A frame as a real library writes it."""
    return Frame(opcode, b"x" * size, fin).serialize(mask=mask)


frames = st.builds(
    frame,
    st.sampled_from((Opcode.TEXT, Opcode.BINARY, Opcode.CONT, Opcode.PING, Opcode.PONG)),
    st.sampled_from((0, 1, 5, 125)),
    mask=st.booleans(),
) | st.builds(
    frame,
    st.sampled_from((Opcode.TEXT, Opcode.BINARY, Opcode.CONT)),
    st.sampled_from((126, 127, 300, 65535, 65536, 70_000)),
    mask=st.booleans(),
    fin=st.booleans(),
)


@calm
@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 1 << 20), max_size=8))
def test_boundaries_are_where_frames_end(sent: list[bytes], places: list[int]) -> None:
    """After every piece, however the stream is cut: between frames exactly at the ends of frames."""
    ends, end = {0}, 0
    for one in sent:
        end += len(one)
        ends.add(end)
    tracker, at = FrameTracker(), 0
    for piece in cut(b"".join(sent), places):
        tracker.feed(piece)
        at += len(piece)
        assert tracker.between_frames is (at in ends)


@pytest.mark.parametrize("mask", [True, False])
def test_every_byte_alone(mask: bool) -> None:
    """Heads of all three lengths, byte by byte."""
    for size in (0, 125, 126, 65536):
        tracker = FrameTracker()
        wire = frame(Opcode.BINARY, size, mask=mask)
        for byte in wire[:-1]:
            tracker.feed(bytes((byte,)))
            assert not tracker.between_frames
        tracker.feed(wire[-1:])
        assert tracker.between_frames


def test_after_a_close_frame_there_is_no_place() -> None:
    """RFC 6455 section 5.5.1: nothing may follow one."""
    tracker = FrameTracker()
    tracker.feed(frame(Opcode.TEXT, 3, mask=True) + close_frame(1000, b"mask"))
    assert tracker.closed and not tracker.between_frames


def test_what_is_no_frame_never_ends() -> None:
    """A length of 2^64 - 1 does no harm."""
    tracker = FrameTracker()
    tracker.feed(b"\x82\x7f" + b"\xff" * 8 + b"x" * 1000)
    assert not tracker.between_frames


@pytest.mark.parametrize("mask", [b"", b"mask"])
def test_close_frames_are_ones(mask: bytes) -> None:
    """A real library reads status code 1001."""
    reader = StreamReader()
    reader.feed_data(close_frame(GOING_AWAY, mask))
    parsing = Frame.parse(reader.read_exact, mask=bool(mask))
    with pytest.raises(StopIteration) as done:
        next(parsing)
    assert (done.value.value.opcode, done.value.value.data) == (Opcode.CLOSE, b"\x03\xe9")
