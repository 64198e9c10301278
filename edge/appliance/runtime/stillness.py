"""Who works in a sandbox, and who needs it to stand still meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Stillness:
    """Any number may work at once; for `still` all of it has to end, and what comes then waits.

    For one who needs it at a time.
    """

    def __init__(self) -> None:
        self._busy = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._open = asyncio.Event()
        self._open.set()

    async def passed(self) -> None:
        """Wait until nobody needs it still. What is begun before the next await counts as before."""
        while not self._open.is_set():
            await self._open.wait()

    @asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """Within, it is not still."""
        await self.passed()
        self._busy += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._quiet.set()

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """Within, nobody works."""
        assert self._open.is_set(), "one at a time"
        self._open.clear()
        try:
            while self._busy:
                await self._quiet.wait()
            yield
        finally:
            self._open.set()
