"""One timer per running sandbox, for whichever of its timeouts comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Timers:
    """Calls ``due(sandbox_id)`` at the time asked for. Times are of the running loop's clock."""

    def __init__(self, due: Callable[[str], None]) -> None:
        self._due = due
        self._handles: dict[str, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._handles)

    def arm(self, sandbox_id: str, when: float) -> None:
        """Set the sandbox's timer; there is only one, so an earlier setting is forgotten."""
        self.disarm(sandbox_id)
        loop = asyncio.get_running_loop()
        self._handles[sandbox_id] = loop.call_at(when, self._ring, sandbox_id)

    def disarm(self, sandbox_id: str) -> None:
        """Take the sandbox's timer away, if there is one."""
        handle = self._handles.pop(sandbox_id, None)
        if handle is not None:
            handle.cancel()

    def close(self) -> None:
        """Take all timers away."""
        for sandbox_id in list(self._handles):
            self.disarm(sandbox_id)

    def _ring(self, sandbox_id: str) -> None:
        self._handles.pop(sandbox_id, None)
        self._due(sandbox_id)
