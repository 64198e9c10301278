"""Writing to a command that reads late, little, or not at all."""

from __future__ import annotations

import os

import pytest
from families import open_descriptors, until

from edge.appliance.runtime import InputClosed, InputFull
from edge.appliance.runtime.input import WAITING_BYTES, Input


async def test_what_is_written_arrives() -> None:
    """At once while there is room in the pipe, and the end of the input with its closing."""
    before = open_descriptors()
    stdin = Input()
    stdin.write(b"one ")
    stdin.write(b"\0\xff")
    assert os.read(stdin.reading, 100) == b"one \0\xff"
    stdin.close()
    stdin.close()
    assert os.read(stdin.reading, 100) == b""
    with pytest.raises(InputClosed):
        stdin.write(b"late")
    os.close(stdin.reading)
    assert open_descriptors() == before


async def test_what_is_not_read_waits_within_bounds() -> None:
    """More than the pipe holds waits in order; beyond that all of a write is refused, and nothing is lost."""
    stdin = Input()
    sent = b""
    for number in range(100):
        piece = bytes([number]) * 100_000
        try:
            stdin.write(piece)
        except InputFull:
            break
        sent += piece
    else:
        pytest.fail("it took everything")
    assert len(sent) > WAITING_BYTES - 100_000
    assert len(stdin._waiting) <= WAITING_BYTES
    os.set_blocking(stdin.reading, False)
    got = b""

    def read() -> bool:
        nonlocal got
        try:
            got += os.read(stdin.reading, 1 << 16)
        except BlockingIOError:
            pass
        return len(got) >= len(sent)

    await until(read)
    assert got == sent
    stdin.write(b"again")
    assert os.read(stdin.reading, 100) == b"again"
    stdin.close()
    os.close(stdin.reading)


@pytest.mark.parametrize("waiting", [0, 500_000])
async def test_a_command_that_closed_its_input(waiting: int) -> None:
    """It is noticed at the next write, or by itself while something waits; the descriptor goes at once."""
    stdin = Input()
    if waiting:
        stdin.write(b"x" * waiting)
    os.close(stdin.reading)
    if waiting:
        await until(lambda: not stdin.open)
    with pytest.raises(InputClosed):
        stdin.write(b"x")
    assert not stdin.open and not stdin._waiting
