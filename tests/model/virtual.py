"""An asyncio loop in virtual time: nobody ever sleeps, and one seed gives one history.

When nothing is ready to run, time jumps to the next timer. When there is no timer either, everybody
waits for something that cannot happen any more: that is a deadlock, and it raises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(AssertionError):
    """Everybody waits, and no timer is left that could wake anybody."""


class _Jump:
    """In the place of a selector: waiting for ``timeout`` seconds is adding them to the time."""

    def __init__(self) -> None:
        self.now = 1000.0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise Deadlock("everybody waits, and nothing is scheduled")
        self.now += timeout
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """A loop with timers and tasks, without sockets, threads and real time."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Jump()
        self._clock_resolution = 1e-6
        self.unhandled: list[str] = []
        self.set_exception_handler(
            lambda _, context: self.unhandled.append(
                f"{context['message']}: {context.get('exception')!r}"
            )
        )

    def time(self) -> float:
        return self._selector.now

    def _process_events(self, event_list: list[Any]) -> None:
        assert not event_list

    def _write_to_self(self) -> None:
        """Nobody calls from another thread."""


def run(main: Callable[[VirtualLoop], Coroutine[Any, Any, T]]) -> T:
    """Run ``main(loop)`` in virtual time; it must leave neither tasks nor unhandled exceptions."""
    loop = VirtualLoop()
    try:
        result = loop.run_until_complete(main(loop))
        left = [task.get_name() for task in asyncio.all_tasks(loop)]
        assert not left, f"tasks left behind: {left}"
        loop.run_until_complete(loop.shutdown_asyncgens())
        assert not loop.unhandled, loop.unhandled
        return result
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(_turns(5))
        loop.close()


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
