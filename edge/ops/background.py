"""Loops that run beside the traffic for as long as an edge does, whatever happens in one of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from edge.wake.scope import Scope

RESTART = 1.0
"""Seconds before a loop that crashed is begun again."""


class Background:
    """Keeps loops going. ``crashed(name, exception)`` hears of each crash; it must not raise."""

    def __init__(self, crashed: Callable[[str, BaseException], None]) -> None:
        self._crashed = crashed
        self._scope = Scope(crashed)

    def keep(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Run ``loop`` until it returns by itself, or until `close`."""
        self._scope.spawn(self._for_ever(name, loop), name=name)

    async def close(self) -> None:
        """Cancel every loop and wait until all of them are over."""
        await self._scope.close()

    async def _for_ever(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        """Our own mistakes in one loop must not end the others, nor this one for good."""
        while True:
            try:
                await loop()
                return
            except Exception as e:  # noqa: BLE001  (told to the operator; see above)
                self._crashed(name, e)
            await asyncio.sleep(RESTART)
