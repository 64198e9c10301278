"""Usage that edges have left in Redis while the control plane was away: read, counted, deleted.

Only what was taken is deleted, so a batch may be taken twice: by a process that dies in between, by two control planes
at once, or because it had arrived directly as well. Whoever takes it counts each number of an edge once. What
waited is older than what comes directly: numbers do not come in order.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from edge.core.redis_settings import RedisSettings
from edge.state import wire
from edge.state.port import UsageBatch
from edge.state.redis import scripts
from edge.state.redis.connect import IMPOSSIBLE, Connection, RedisGone
from edge.state.redis.layout import MAX_BATCH, Layout

LOOK = 1.0
"""Seconds between two looks at what waits."""
LAST_LOOK = 30.0
"""The same while Redis is gone or batches cannot be taken, at most."""
AT_ONCE = 10
"""Batches fetched at once."""

Log = Callable[..., None]


class LeftUsage:
    """The control plane's reader. `run` does the work.

    ``take`` counts a batch; whatever it raises, the batch stays and is tried again. What cannot be read as one is
    deleted, and told of.
    """

    def __init__(
        self, settings: RedisSettings, take: Callable[[UsageBatch], object], *, log: Log
    ) -> None:
        self._connection = Connection(settings)
        self._stream = Layout(settings.prefix).batches
        self._take = take
        self._log = log
        self._told = False

    async def run(self) -> None:
        """Take what waits, now and whenever something does, for ever."""
        delay = LOOK
        try:
            while True:
                try:
                    while await self._take_some():
                        pass
                    delay, self._told = LOOK, False
                except RedisGone as gone:
                    # The publisher tells of a Redis that is gone. One that is there and refuses just this, nobody else.
                    if delay >= LAST_LOOK:
                        self._tell("usage_not_taken", str(gone))
                    delay = min(LAST_LOOK, delay * 2)
                except _ForeignKey as foreign:
                    self._tell("usage_unreadable", str(foreign))
                    delay = min(LAST_LOOK, delay * 2)
                except Exception as e:  # noqa: BLE001 - the control plane's own, such as a full disk
                    self._tell("usage_not_taken", type(e).__name__)
                    delay = min(LAST_LOOK, delay * 2)
                await asyncio.sleep(delay)
        finally:
            await self._connection.close()

    def _tell(self, event: str, reason: str) -> None:
        """Once, until all is well again."""
        if not self._told:
            self._told = True
            self._log(event, reason=reason)

    async def _take_some(self) -> bool:
        """Take the oldest batches; whether there were any."""
        found = await self._connection.look(scripts.LEFT, [self._stream], AT_ONCE, MAX_BATCH)
        entries, told = self._entries(found), False
        for entry_id, text in entries:
            try:
                batch = wire.usage_from_json(text)
            except wire.WireError as e:
                # One line a look: whoever writes nonsense by the thousand shall not fill the log as well.
                if not told:
                    self._log("usage_unreadable", reason=str(e))
                told = True
            else:
                self._take(batch)
            await self._connection.remove(self._stream, entry_id)
        return bool(entries)

    def _entries(self, found: Any) -> list[tuple[bytes, bytes]]:
        if isinstance(found, bytes):
            kind = found.decode("ascii", "replace")
            raise _ForeignKey(f"{self._stream} is a {kind} and should be a stream: delete it")
        try:
            return [(entry_id, text or b"") for entry_id, text in found]
        except (TypeError, ValueError):
            raise RedisGone(IMPOSSIBLE) from None


class _ForeignKey(Exception):
    """Where usage should wait is something else."""
