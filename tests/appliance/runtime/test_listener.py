"""What a reader has still to take: in order, whole, in pieces of bounded size."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.appliance.runtime.listener import FULL_BYTES, PIECE_BYTES, Listener, Piece
from tests.core.wires import examples


def listener(both: bytes = b"", order: bytes = b"") -> tuple[Listener, list[None]]:
    """One, and a list that grows whenever it says that it has room again."""
    eased: list[None] = []
    return Listener(both, order, lambda: eased.append(None)), eased


async def everything(one: Listener) -> list[Piece]:
    """All pieces of a listener that is finished."""
    pieces = []
    while (piece := await one.take()) is not None:
        pieces.append(piece)
    return pieces


async def test_neighbours_of_one_stream_come_as_one() -> None:
    """Fewer pieces than writes, and the streams in the order they were written."""
    one, _ = listener()
    for stream, data in ((0, b"a"), (0, b"b"), (1, b"c"), (0, b"d"), (0, b"e")):
        one.feed(stream, data)
    one.finish()
    assert await everything(one) == [(0, b"ab"), (1, b"c"), (0, b"de")]
    assert await one.take() is None, "asking again after the end is harmless"


async def test_what_was_written_before_comes_first() -> None:
    """What was kept, cut where the stream changes and where a piece is full; then what comes."""
    long = b"x" * (PIECE_BYTES + 1)
    one, _ = listener(b"abc" + long, b"\0\1\1" + b"\0" * len(long))
    one.feed(0, b"new")
    one.finish()
    pieces = await everything(one)
    assert pieces == [(0, b"a"), (1, b"bc"), (0, long[:-1]), (0, b"x"), (0, b"new")]


async def test_take_waits_for_more_and_for_the_end() -> None:
    """It sleeps until something comes, whichever of the two it is."""
    one, _ = listener()
    taking = asyncio.create_task(one.take())
    await asyncio.sleep(0)
    assert not taking.done()
    one.feed(1, b"x")
    assert await taking == (1, b"x")
    taking = asyncio.create_task(one.take())
    await asyncio.sleep(0)
    one.finish()
    assert await taking is None


@pytest.mark.parametrize("size", [1, 1000, PIECE_BYTES], ids=str)
async def test_it_is_full_in_bounded_memory_and_says_when_it_has_room(size: int) -> None:
    """Tiny writes that alternate fill it as surely as large ones, and it eases once, not at each piece."""
    one, eased = listener()
    fed = 0
    while not one.full:
        one.feed(fed % 2, b"x" * size)
        fed += 1
    assert fed * size <= FULL_BYTES
    assert fed <= FULL_BYTES // 128, "each write costs more than its bytes"
    one.finish()
    while one.full:
        assert eased == []
        await one.take()
    await everything(one)
    assert len(eased) == 1


@examples(100)
@given(st.lists(st.tuples(st.integers(0, 1), st.binary(max_size=300))), st.integers(0, 2000))
def test_nothing_is_lost_or_moved(writes: list[Piece], before: int) -> None:
    """However it was written, and wherever the reader came in: both streams whole, and in order."""
    both = b"".join(data for _, data in writes)
    order = b"".join(bytes([stream]) * len(data) for stream, data in writes)

    async def read() -> list[Piece]:
        one, _ = listener(both[:before], order[:before])
        at = 0
        for stream, data in writes:
            one.feed(stream, data[max(0, before - at) :])
            at += len(data)
        one.finish()
        return await everything(one)

    pieces = asyncio.run(read())
    assert all(0 < len(data) <= PIECE_BYTES for _, data in pieces)
    assert b"".join(data for _, data in pieces) == both
    assert b"".join(bytes([stream]) * len(data) for stream, data in pieces) == order
