"""Whom an edge follows: Redis while it can be followed, and else the control plane itself.

====================  =====================================================================================
followed              until
====================  =====================================================================================
the changes in Redis  it is gone, or there was no heartbeat of every shard for a while (publisher stopped)
the control plane     Redis has a heartbeat of every shard again, which is looked for in the background
====================  =====================================================================================

So with Redis gone a revocation still takes effect at once, and a pause for inactivity still finds every edge.
Each change of sides is a doubt (`Resync`). When neither can be followed it is `Unavailable`, as for any port.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import cast

from edge.state.port import Heartbeat, Resync, StatePort, Unavailable, WatchEvent
from edge.state.redis.beside import beside
from edge.state.redis.changes import Changes

JOIN_AGAIN = 1.0
"""Seconds between two times of joining the members."""
FIRST_LOOK, LAST_LOOK = 0.5, 5.0
"""Seconds before Redis is looked at again; doubled each time, with jitter."""
CALM = 30.0
"""Seconds it has to be followed before its next loss is looked at as soon as the first one: each costs a doubt."""
KEPT = 100
"""Events that are read ahead."""

News = asyncio.Queue[WatchEvent | Unavailable | None]


class Following:
    """The watch of one edge. ``join`` makes it a member, or raises `Unavailable`; ``note`` is told of changes of sides."""

    def __init__(
        self,
        changes: Changes,
        control: StatePort,
        *,
        join: Callable[[], Awaitable[None]],
        clock: Callable[[], float],
        note: Callable[..., None],
    ) -> None:
        self._changes = changes
        self._control = control
        self._join = join
        self._clock = clock
        self._note = note
        self._told = False
        self._delay = FIRST_LOOK
        self._followed_at: float | None = None
        self.over_redis = False
        """Whether the changes that are told are those in Redis. What is read there is no older than they are only then."""

    async def follow(self, *, again: bool) -> AsyncGenerator[WatchEvent, None]:
        """Events without end; ``again``: this is not the first time. Raises `Unavailable`."""
        while True:
            try:
                async with aclosing(self._over_redis(again=again)) as events:
                    async for event in events:
                        yield event
            except Unavailable as gone:
                if not self._told:
                    self._told = True
                    self._note("redis_left", reason=str(gone))
            again = True
            async with aclosing(self._directly()) as events:
                async for event in events:
                    yield event

    async def _over_redis(self, *, again: bool) -> AsyncGenerator[WatchEvent, None]:
        await self._join()
        joined = self._clock()
        self.over_redis = True
        try:
            async with aclosing(self._changes.follow(again=again)) as events:
                async for event in events:
                    if isinstance(event, Heartbeat):
                        self._heard()
                    if self._clock() - joined > JOIN_AGAIN:
                        await self._join()
                        joined = self._clock()
                    yield event
        finally:
            self.over_redis = False

    def _heard(self) -> None:
        """Redis is being followed, and nothing is missing."""
        if self._told:
            self._told = False
            self._note("redis_followed")
        if self._followed_at is None:
            self._followed_at = self._clock()
        elif self._clock() - self._followed_at > CALM:
            self._delay = FIRST_LOOK

    async def _directly(self) -> AsyncGenerator[WatchEvent, None]:
        """The control plane's own events, until Redis can be followed again."""
        self._followed_at = None
        news: News = asyncio.Queue(KEPT)
        greeted = False
        async with beside(self._listen(news), self._look(news)):
            while (event := await news.get()) is not None:
                if isinstance(event, Unavailable):
                    raise event
                if not greeted and not isinstance(event, Resync):
                    yield Resync(event.cursor)
                greeted = True
                yield event

    async def _listen(self, news: News) -> None:
        try:
            # None and not a cursor: those of Redis mean nothing to it, nor does an old one of its own to us.
            watch = cast(AsyncGenerator[WatchEvent, None], self._control.watch(None))
            async with aclosing(watch) as events:
                async for event in events:
                    await news.put(event)
        except Unavailable as gone:
            await news.put(gone)

    async def _look(self, news: News) -> None:
        while True:
            await asyncio.sleep(self._delay * random.uniform(0.5, 1.0))
            self._delay = min(LAST_LOOK, self._delay * 2)
            if await self._redis_is_back():
                await news.put(None)
                return

    async def _redis_is_back(self) -> bool:
        """Whether it can be followed, and the publisher counts us among the members.

        Until then we stay with the control plane, which else would not ask us before a pause for inactivity.
        """
        beats = 0
        try:
            async with aclosing(self._changes.follow(again=True)) as events:
                async for event in events:
                    if not isinstance(event, Heartbeat):
                        continue
                    if beats == 0:
                        await self._join()
                    # Before each heartbeat the publisher asks for the members. The first one after our joining may
                    # have been asked for before it, the second one not.
                    if beats == 2:
                        return True
                    beats += 1
        except Unavailable:
            pass
        return False
