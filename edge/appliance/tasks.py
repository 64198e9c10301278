"""The one place of the embedded control plane that starts tasks.

What a caller sets in motion (a resume, a pause) has to come to its end although the caller leaves, and
has to end with the control plane. So every task belongs to a `Scope`, never to a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Scope:
    """Tasks that end with their owner. ``on_crash(name, exception)`` hears of those that fail."""

    def __init__(self, on_crash: Callable[[str, BaseException], None]) -> None:
        self._on_crash = on_crash
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start ``work``. Raises RuntimeError once the scope is closed."""
        if self._closed:
            work.close()
            raise RuntimeError(f"{name}: the control plane is shutting down")
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    async def shared(self, work: Coroutine[Any, Any, T], *, name: str) -> T:
        """The result of ``work``, which goes on when the caller is cancelled."""
        return await asyncio.shield(self.spawn(work, name=name))

    async def close(self) -> None:
        """Cancel everything and wait for its end. Harmless when repeated."""
        self._closed = True
        while self._running:
            for task in self._running:
                task.cancel()
            await asyncio.wait(tuple(self._running))

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_crash(task.get_name(), error)
