"""Child processes: what they say, how they end, and that they do end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from edge.commands.children import LONGEST_LINE, Child, ChildEnded


class Nursery:
    """Starts children that run a few lines of Python; ``complaints`` are their standard error."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.children: list[Child] = []

    async def start(self, script: str, **environment: str) -> Child:
        """A child running ``script``."""
        child = await Child.start(
            "child",
            [sys.executable, "-uc", f"import os, sys, time, signal, json\n{script}"],
            environment=environment,
            on_error_line=self.complaints.append,
        )
        self.children.append(child)
        return child


@pytest.fixture
async def nursery() -> AsyncIterator[Nursery]:
    """Children that are gone after the test."""
    made = Nursery()
    yield made
    for child in made.children:
        child.signal(signal.SIGKILL)
        await asyncio.wait_for(child.ended.wait(), 20)


SAY = "print(json.dumps({'event': 'up', 'pid': os.getpid(), 'sid': os.getsid(0)}))\n"


async def heard(child: Child, event: str) -> dict[str, Any]:
    """What it said, in time."""
    return await asyncio.wait_for(child.heard(event), 20)


async def test_it_is_heard_through_noise(nursery: Nursery) -> None:
    """Lines that are no JSON, no object or no event are passed over; earlier events too."""
    child = await nursery.start(
        "print('hello'); print('[1]'); print('{}'); print('{\"event\":\"other\"}')\n"
        'print(\'{"event":"up","port":1}\'); time.sleep(60)'
    )
    assert await heard(child, "up") == {"event": "up", "port": 1}
    assert child.status is None


async def test_it_has_a_session_and_an_environment_of_its_own(nursery: Nursery) -> None:
    """Ctrl-C in the terminal does not reach it, nor do our variables."""
    child = await nursery.start(
        "print(json.dumps({'event': 'up', 'sid': os.getsid(0), 'env': sorted(os.environ)}))",
        ONLY="this",
    )
    said = await heard(child, "up")
    assert said["sid"] != os.getsid(0)
    assert set(said["env"]) <= {"ONLY", "LC_CTYPE"}


async def test_it_is_told_lines(nursery: Nursery) -> None:
    """What we say arrives as one JSON line; a child that is gone is not spoken to."""
    child = await nursery.start("print(sys.stdin.readline(), end='')")
    child.tell({"event": "order", "text": "a\nb"})
    assert await heard(child, "order") == {"event": "order", "text": "a\nb"}
    await asyncio.wait_for(child.ended.wait(), 20)
    child.tell({"event": "too late"})


async def test_its_end_before_the_event_is_told(nursery: Nursery) -> None:
    """With the child, its status, and all of its complaints heard."""
    child = await nursery.start("print('oh no', file=sys.stderr); sys.exit(3)")
    with pytest.raises(ChildEnded) as caught:
        await heard(child, "up")
    assert caught.value.child is child and child.status == 3
    assert nursery.complaints == ["oh no"]


async def test_output_that_ends_counts_although_it_lives(nursery: Nursery) -> None:
    """It will say nothing any more: as bad as dead, and nobody waits for ever."""
    if type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        pytest.skip("uvloop's children hold second copies of their pipes, so only their end shows")
    child = await nursery.start("os.close(1); time.sleep(60)")
    with pytest.raises(ChildEnded):
        await heard(child, "up")
    assert child.status is None


async def test_a_grandchild_that_holds_the_pipes_does_not_hold_us(nursery: Nursery) -> None:
    """The child's end is the end, whoever else has its standard error."""
    child = await nursery.start(
        "pid = os.fork()\nif not pid: time.sleep(60)\n"
        "print(json.dumps({'event': 'up', 'pid': pid})); os._exit(0)"
    )
    said = await heard(child, "up")
    try:
        await asyncio.wait_for(child.ended.wait(), 20)
        assert child.status == 0
    finally:
        os.kill(said["pid"], signal.SIGKILL)


async def test_stopping_asks_first(nursery: Nursery) -> None:
    """A child that hears SIGTERM ends in its own way."""
    child = await nursery.start(
        f"signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n{SAY}time.sleep(60)"
    )
    await heard(child, "up")
    await child.stop(patience=20)
    assert child.status == 5


async def test_stopping_does_not_ask_for_ever(nursery: Nursery) -> None:
    """A child that does not want to end is killed, and a frozen one too."""
    stubborn = await nursery.start(
        f"signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SAY}time.sleep(60)"
    )
    frozen = await nursery.start(f"{SAY}time.sleep(60)")
    await heard(stubborn, "up")
    os.kill((await heard(frozen, "up"))["pid"], signal.SIGSTOP)
    async with asyncio.timeout(20):
        await asyncio.gather(stubborn.stop(patience=0.1), frozen.stop(patience=0.1))
    assert stubborn.status == -signal.SIGKILL
    assert frozen.status is not None and frozen.status < 0


async def test_stopping_what_has_ended_is_harmless(nursery: Nursery) -> None:
    """Signals go to nobody: its process id may be somebody else's by now."""
    child = await nursery.start("")
    await asyncio.wait_for(child.ended.wait(), 20)
    child.signal(signal.SIGKILL)
    await child.stop(patience=0)
    assert child.status == 0


async def test_long_lines_arrive_whole(nursery: Nursery) -> None:
    """A line just below the limit; complaints are no JSON and may be anything."""
    child = await nursery.start(
        f"print(json.dumps({{'event': 'up', 'text': 'x' * ({LONGEST_LINE} - 100)}}))\n"
        "sys.stderr.buffer.write(b'\\xff\\n')"
    )
    assert len(str((await heard(child, "up"))["text"])) == LONGEST_LINE - 100
    await asyncio.wait_for(child.ended.wait(), 20)
    assert nursery.complaints == ["\ufffd"]
