"""Usage that edges have left in Redis while the control plane was away: read, counted, deleted.

Only what was taken is deleted, so a batch may be taken twice: by a process that dies in between, by two control planes
at once, or because it had arrived directly as well. Whoever takes it counts each number of an edge once. What
waited is older than what comes directly: numbers do not come in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edge.core.redis_settings import RedisSettings
from edge.state import wire
from edge.state.port import UsageBatch
from edge.state.redis.connect import Connection, RedisGone
from edge.state.redis.layout import Layout

LOOK = 1.0
"""Seconds between two looks at what waits."""
LAST_LOOK = 30.0
"""The same while Redis is gone or batches cannot be taken, at most."""
AT_ONCE = 10
"""Batches fetched at once."""

Log = Callable[..., None]


class LeftUsage:
    """The control plane's reader. `run` does the work.

    ``take`` counts a batch; whatever it raises, the batch stays and is tried again. A batch that cannot be read is
    deleted, and told of.
    """

    def __init__(
        self, settings: RedisSettings, take: Callable[[UsageBatch], object], *, log: Log
    ) -> None:
        self._connection = Connection(settings)
        self._stream = Layout(settings.prefix).batches
        self._take = take
        self._log = log

    async def run(self) -> None:
        """Take what waits, now and whenever something does, for ever."""
        delay, told = LOOK, False
        try:
            while True:
                try:
                    await self._take_all()
                    delay, told = LOOK, False
                except RedisGone:
                    delay = min(LAST_LOOK, delay * 2)  # the publisher tells of it
                except Exception as e:  # noqa: BLE001 - the control plane's own, such as a full disk
                    delay = min(LAST_LOOK, delay * 2)
                    if not told:
                        told = True
                        self._log("usage_not_taken", reason=type(e).__name__)
                await asyncio.sleep(delay)
        finally:
            await self._connection.close()

    async def _take_all(self) -> None:
        while entries := await self._connection.first(self._stream, AT_ONCE):
            for entry_id, fields in entries:
                try:
                    batch = wire.usage_from_json(fields.get(b"u", b""))
                except wire.WireError as e:
                    self._log("usage_unreadable", reason=str(e))
                else:
                    self._take(batch)
                await self._connection.remove(self._stream, entry_id)
