"""The line: in order, and what is given is taken or handed back, whenever somebody leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from virtual import VirtualLoop, run
from warehouse import here

from edge.appliance.pools.line import Line


class Queue:
    """A line, and what was handed back."""

    def __init__(self) -> None:
        self.line: Line[str] = Line()
        self.back: list[str] = []

    async def wait(self, seconds: float = 10.0, gone: Callable[[], bool] = here) -> str | None:
        """Join and wait."""
        return await self.line.wait(self.line.join(gone), seconds, self.back.append)

    async def waiting(self, count: int) -> list[asyncio.Task[str | None]]:
        """So many who wait."""
        tasks = [asyncio.create_task(self.wait()) for _ in range(count)]
        await asyncio.sleep(0)
        return tasks


def _play(script: Callable[[Queue], Coroutine[Any, Any, None]]) -> None:
    async def main(_: VirtualLoop) -> None:
        await script(Queue())

    run(main)


def test_first_come_first_served() -> None:
    """In the order of joining; the others are told when nothing comes any more."""

    async def script(queue: Queue) -> None:
        tasks = await queue.waiting(4)
        assert queue.line.serve("a") and queue.line.serve("b")
        queue.line.dismiss()
        assert await asyncio.gather(*tasks) == ["a", "b", None, None]
        assert not queue.line and not queue.line.serve("c")

    _play(script)


def test_time_is_up() -> None:
    """Whoever waited long enough leaves, and those behind are served."""

    async def script(queue: Queue) -> None:
        short = asyncio.create_task(queue.wait(1.0))
        long = asyncio.create_task(queue.wait(2.0))
        assert await short is None and len(queue.line) == 1
        assert queue.line.serve("a")
        assert await long == "a"

    _play(script)


def test_who_leaves_takes_nothing() -> None:
    """A cancelled one is passed over, also before it had its turn to leave."""

    async def script(queue: Queue) -> None:
        first, second = await queue.waiting(2)
        first.cancel()
        assert queue.line.serve("a")
        assert await second == "a"
        with pytest.raises(asyncio.CancelledError):
            await first
        assert queue.back == []

    _play(script)


def test_what_was_given_to_a_leaver_is_handed_back() -> None:
    """It was given, and then cancelled before it could take it."""

    async def script(queue: Queue) -> None:
        (task,) = await queue.waiting(1)
        assert queue.line.serve("a")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert queue.back == ["a"]

    _play(script)


def test_what_was_given_when_the_time_was_up_is_taken() -> None:
    """The timer rings in the very turn in which it was served: it was in time."""

    async def script(queue: Queue) -> None:
        task = asyncio.create_task(queue.wait(1.0))
        await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        # Before the waiter's own timer, and in the same turn of the loop.
        loop.call_at(loop.time() + 1.0 - 5e-7, queue.line.serve, "a")
        assert await task == "a" and queue.back == []

    _play(script)


def test_who_is_gone_is_passed_over() -> None:
    """A client that has left without anybody being told."""

    async def script(queue: Queue) -> None:
        left = asyncio.create_task(queue.wait(gone=lambda: True))
        (stays,) = await queue.waiting(1)
        assert queue.line.serve("a")
        assert (await left, await stays) == (None, "a")
        again = asyncio.create_task(queue.wait(gone=lambda: True))
        await asyncio.sleep(0)
        assert not queue.line.serve("b") and await again is None

    _play(script)
