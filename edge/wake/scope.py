"""The one place of the edge that starts tasks.

A task started elsewhere belongs to nobody: it may be collected while it runs, its exception is told
to nobody, and it outlives its owner. The linter bans ``asyncio.create_task`` outside this file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class ScopeClosed(RuntimeError):
    """The scope takes no more tasks: its owner is shutting down."""


class Scope:
    """Tasks that live as long as their owner, not as long as the caller that caused them.

    ``on_crash(name, exception)`` hears of every task that ends with an exception; being cancelled is
    not a crash. It must not raise.
    """

    def __init__(self, on_crash: Callable[[str, BaseException], None]) -> None:
        self._on_crash = on_crash
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether `close` was called; from then on `spawn` raises `ScopeClosed`."""
        return self._closed

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coro: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Run ``coro`` as a task of this scope. Raises `ScopeClosed` (and closes ``coro``) too late."""
        if self._closed:
            coro.close()
            raise ScopeClosed(name)
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(task.get_name(), error)

    async def close(self) -> None:
        """Cancel every task and wait until all of them are over. Calling it again is harmless."""
        self._closed = True
        # A task may catch its cancellation once to clean up; the loop waits for that clean-up too.
        while self._tasks:
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(tuple(self._tasks))
