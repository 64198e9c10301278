"""Those who wait for an instance, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Waiter(Generic[T]):
    """One who waits. ``gone`` is asked before anything is given: are you still there?"""

    given: asyncio.Future[T | None]
    gone: Callable[[], bool]


class Line(Generic[T]):
    """A queue. What is given is either taken or handed back, whenever its waiter leaves."""

    def __init__(self) -> None:
        self._waiters: deque[Waiter[T]] = deque()

    def __len__(self) -> int:
        return len(self._waiters)

    def join(self, gone: Callable[[], bool]) -> Waiter[T]:
        """The last place in the line. Call `wait` with it, or it stays taken."""
        waiter: Waiter[T] = Waiter(asyncio.get_running_loop().create_future(), gone)
        self._waiters.append(waiter)
        return waiter

    async def wait(
        self, waiter: Waiter[T], seconds: float, hand_back: Callable[[T], None]
    ) -> T | None:
        """What it was given; None when the time is up, or nothing comes any more.

        ``hand_back`` gets what was given to a waiter that is cancelled in that very moment.
        """
        try:
            async with asyncio.timeout(seconds):
                return await waiter.given
        except TimeoutError:
            # It may have been given just when the time was up; then it was in time.
            return _given(waiter)
        except asyncio.CancelledError:
            if (late := _given(waiter)) is not None:
                hand_back(late)
            raise
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def serve(self, item: T) -> bool:
        """Give it to the first one that is still there; False when nobody is."""
        while self._waiters:
            waiter = self._waiters.popleft()
            # A cancelled waiter may not have had its turn to leave the line.
            if waiter.given.done():
                continue
            if waiter.gone():
                waiter.given.set_result(None)
                continue
            waiter.given.set_result(item)
            return True
        return False

    def dismiss(self) -> None:
        """Nothing comes any more, for none of them."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.given.done():
                waiter.given.set_result(None)


def _given(waiter: Waiter[T]) -> T | None:
    given = waiter.given
    return given.result() if given.done() and not given.cancelled() else None
