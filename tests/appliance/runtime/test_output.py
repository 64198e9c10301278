"""Reading pipes: bounded, complete at the end of a command, and never waited for."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from families import until

from edge.appliance.runtime.listener import FULL_BYTES
from edge.appliance.runtime.output import Head, Output, Pipe, Tail


@pytest.mark.parametrize(
    ("parts", "kept", "truncated"),
    [
        ([], b"", False),
        ([b"abc"], b"abc", False),
        ([b"ab", b"cd"], b"abcd", False),
        ([b"abc", b"de"], b"abcd", True),
        ([b"abcdefgh"], b"abcd", True),
        ([b"abcd", b"", b"e"], b"abcd", True),
    ],
)
def test_head_keeps_the_beginning(parts: list[bytes], kept: bytes, truncated: bool) -> None:
    """Up to its limit, and says whether there was more."""
    head = Head(4)
    for part in parts:
        head.feed(part)
    assert (head.value(), head.truncated) == (kept, truncated)


def test_tail_keeps_the_end() -> None:
    """The newest bytes, whatever the pieces, in bounded memory."""
    for size in (1, 3, 4, 5, 9, 100):
        tail = Tail(4)
        whole = b""
        for number in range(50):
            piece = bytes([65 + number % 26]) * size
            tail.feed(piece)
            whole += piece
            assert tail.value() == whole[-4:]
            assert len(tail._data) <= 5
    assert Tail(4).value() == b""


async def test_a_pipe_is_read_as_it_fills_and_closed_at_its_end() -> None:
    """What is written arrives; when the last writer is gone, so is the descriptor."""
    got: list[bytes] = []
    pipe = Pipe(got.append)
    os.write(pipe.writing, b"one")
    await until(lambda: got == [b"one"])
    os.close(pipe.writing)
    await until(lambda: not pipe.open)
    pipe.close()


async def test_draining_takes_what_is_there_and_not_what_comes() -> None:
    """A writer who never stops cannot keep `drain` from returning."""
    got: list[bytes] = []
    pipe: Pipe

    def feed(data: bytes) -> None:
        got.append(data)
        os.write(pipe.writing, b"more")

    pipe = Pipe(feed)
    os.write(pipe.writing, b"x" * 60_000)
    pipe.drain()
    assert b"".join(got) == b"x" * 60_000
    pipe.close()
    pipe.drain()
    os.close(pipe.writing)


async def test_a_closed_pipe_breaks_for_the_writer() -> None:
    """Closing gives the descriptor back at once, and tells the writer."""
    pipe = Pipe(lambda _: None)
    pipe.close()
    with pytest.raises(BrokenPipeError):
        os.write(pipe.writing, b"x")
    os.close(pipe.writing)


async def test_output_keeps_streams_apart_and_together() -> None:
    """Each stream alone, both in the order they were read, and the heads only when asked for."""
    for wanted in (False, True):
        output = Output(head=wanted)
        stdout, stderr = output.writing
        for descriptor, data in ((stdout, b"1"), (stderr, b"2"), (stdout, b"3")):
            os.write(descriptor, data)
            output.drain()
        assert output.logs() == (b"13", b"2", b"123")
        heads = None if output.heads is None else tuple(head.value() for head in output.heads)
        assert heads == ((b"13", b"2") if wanted else None)
        assert output.reading
        os.close(stdout)
        os.close(stderr)
        await until(lambda output=output: not output.reading)


async def test_out_of_descriptors_leaves_none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the second pipe cannot be made, the first is closed on both ends."""
    real = os.pipe
    made: list[tuple[int, int]] = []

    def once() -> tuple[int, int]:
        if made:
            raise OSError(24, "Too many open files")
        made.append(real())
        return made[0]

    monkeypatch.setattr(os, "pipe", once)
    with pytest.raises(OSError, match="Too many"):
        Output(head=False)
    for descriptor in made[0]:
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(descriptor)
    assert not Path(f"/proc/self/fd/{made[0][0]}").exists()


async def test_listeners_hear_what_comes_and_what_was_kept() -> None:
    """Each listener gets everything, whenever it came; after the end others' writing is not told."""
    output = Output(head=False)
    stdout, stderr = output.writing
    early = output.listen()
    os.write(stdout, b"1")
    output.drain()
    os.write(stderr, b"2")
    output.drain()
    late = output.listen()
    for one in (early, late):
        assert [await one.take(), await one.take()] == [(0, b"1"), (1, b"2")]
    gone = output.listen()
    output.leave(gone)
    output.leave(gone)
    os.write(stdout, b"3")
    output.drain()
    output.finish()
    os.write(stdout, b"4")
    output.drain()
    for one in (early, late):
        assert [await one.take(), await one.take()] == [(0, b"3"), None]
    assert output.logs()[2] == b"1234", "the log goes on"
    after = output.listen()
    pieces = [await after.take() for _ in range(4)]
    assert pieces == [(0, b"1"), (1, b"2"), (0, b"34"), None]
    output.close()
    os.close(stdout)
    os.close(stderr)


async def test_a_full_listener_stops_the_reading_of_both_streams() -> None:
    """The writer finds its pipe full, whichever it is, until the slowest has taken some or left."""
    output = Output(head=False)
    for descriptor in output.writing:
        os.set_blocking(descriptor, False)
    slow, quick = output.listen(), output.listen()

    async def stuffed(descriptor: int) -> bool:
        """Whether the pipe stays full though the loop had turns to read it."""
        for _ in range(200):
            try:
                os.write(descriptor, b"x" * 65_536)
            except BlockingIOError:
                for _ in range(5):
                    await asyncio.sleep(0)
                try:
                    os.write(descriptor, b"x")
                except BlockingIOError:
                    return True
            await asyncio.sleep(0)
            while quick._pieces:
                await quick.take()
        return False

    for descriptor in output.writing:
        assert await stuffed(descriptor), "nobody reads it"
    held = slow._weight
    assert FULL_BYTES <= held < FULL_BYTES + 3 * 65_536
    while slow.full:
        await slow.take()
    await until(lambda: slow.full)  # It was read on, until it was full again.
    output.leave(slow)
    for descriptor in output.writing:
        assert not await stuffed(descriptor), "without it nobody waits"
    output.close()
    for descriptor in output.writing:
        os.close(descriptor)


async def test_the_last_words_come_though_a_listener_is_full() -> None:
    """What a command leaves in its pipes when it ends is read, and is bounded by what pipes hold."""
    output = Output(head=False)
    stdout, stderr = output.writing
    os.set_blocking(stdout, False)
    one = output.listen()
    written = 0
    while True:
        try:
            written += os.write(stdout, b"x" * 4096)
        except BlockingIOError:
            if one.full:
                break
            await asyncio.sleep(0)
    os.write(stderr, b"last")
    output.drain()
    output.finish()
    got = {0: b"", 1: b""}
    while (piece := await one.take()) is not None:
        got[piece[0]] += piece[1]
    assert (len(got[0]), got[1]) == (written, b"last")
    output.close()
    os.close(stdout)
    os.close(stderr)
