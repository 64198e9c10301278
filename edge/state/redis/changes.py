"""Following the changes of all shards, and knowing when nothing is missing.

Within an epoch the ids of a shard's stream grow by one, heartbeats included. So:

==============================  =========================================================================
entry                           what it means
==============================  =========================================================================
the next number                 the next change, or a heartbeat: all before it has been read
a later number                  what was between them has been trimmed: everything known is in doubt
another epoch                   the stream began anew (flushed, or another server's): the same
no change and no heartbeat      an epoch begins, or somebody else writes here: the same
==============================  =========================================================================

A heartbeat proves that we are caught up with the moment *we asked*, not with the moment we read the answer:
a process that was stopped finds old answers in its sockets. And it takes a heartbeat of every shard.

Positions do not outlive a connection that is seen to break. After a failover another server answers, whose stream
may have the same numbers with other content; so a new beginning is at the streams' ends, and all is in doubt. Where
the client library changes over without a word (it does in a Cluster), the publisher's next heartbeat is in another
epoch, for it does not add one to a stream that was begun on another server (`scripts.BEAT`).

A doubt lasts until there has been a heartbeat of every shard after it, and is told with that proof. Until then
nothing is believed anyway; and by then Redis can answer the questions that the doubt will raise, all of which would
else go to the control plane at once, from every edge.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager

from edge.core.records import Record
from edge.state import wire
from edge.state.port import Change, Heartbeat, Resync, Unavailable, WatchEvent
from edge.state.redis.beside import beside
from edge.state.redis.connect import Connection, Entry, RedisGone
from edge.state.redis.ids import entry_id
from edge.state.redis.kinds import KINDS
from edge.state.redis.layout import SHARDS, Layout

BLOCK = 0.5
"""Seconds a read waits for news."""
BATCH = 500
"""Entries of one shard that are read at once."""
PROMPT = 1.0
"""Seconds since the question after which a heartbeat in its answer is too old to prove anything."""
SILENCE = 3.0
"""Seconds without a heartbeat of every shard after which the streams are looked at anew."""

News = asyncio.Queue[list[WatchEvent] | RedisGone]


class Shard:
    """Where we stand in one shard's stream. Raises `RedisGone` for ids of an impossible shape."""

    def __init__(self, position: bytes) -> None:
        self.position = position
        self._at = entry_id(position)
        self.beaten_at: float | None = None

    def step(self, to: bytes) -> bool:
        """Go on to an entry; False when something was between here and there."""
        before, self._at, self.position = self._at, entry_id(to), to
        return self._at.follows(before)

    def within(self, newest: bytes) -> bool:
        """Whether this entry is of our epoch, and not before our position."""
        at = entry_id(newest)
        return at.epoch == self._at.epoch and at.number >= self._at.number


class Changes:
    """The watch of one edge over Redis. ``clock`` gives monotonic seconds."""

    def __init__(
        self, connection: Connection, layout: Layout, *, clock: Callable[[], float]
    ) -> None:
        self._connection = connection
        self._layout = layout
        self._clock = clock
        self._cursor = 0
        self._doubted = False
        self._shards: dict[str, Shard] = {}
        self.beaten_at: float | None = None
        """When the last proof of being caught up was asked for; None while something is in doubt."""

    def reached(self, stream: str, newest: bytes) -> bool:
        """Whether a server whose newest entry is this one has all that was followed so far. Raises `RedisGone`."""
        shard = self._shards.get(stream)
        return shard is not None and shard.within(newest)

    async def follow(self, *, again: bool) -> AsyncGenerator[WatchEvent, None]:
        """Events without end; ``again``: this is not the first time. Raises `Unavailable`."""
        self._shards = shards = {}
        self._doubted = again
        try:
            for number in range(SHARDS):
                name = self._layout.changes(number)
                shards[name] = Shard(await self._connection.last(name))
            async with (
                self._reading(shards) as news,
                aclosing(self._merged(shards, news)) as events,
            ):
                async for event in events:
                    yield event
        except RedisGone as gone:
            raise Unavailable(f"redis: {gone}") from None
        finally:
            self.beaten_at = None

    @asynccontextmanager
    async def _reading(self, shards: Mapping[str, Shard]) -> AsyncIterator[News]:
        """Readers at work, one per group of streams. They end by telling of a `RedisGone`."""
        news: News = asyncio.Queue(maxsize=SHARDS)

        async def read(part: Mapping[str, Shard]) -> None:
            try:
                await self._read_on(part, news)
            except RedisGone as gone:
                await news.put(gone)

        parts = [
            {name: shards[name] for name in names} for names in self._connection.groups(shards)
        ]
        async with beside(*(read(part) for part in parts)):
            yield news

    async def _merged(
        self, shards: Mapping[str, Shard], news: News
    ) -> AsyncGenerator[WatchEvent, None]:
        """What the readers find, and a heartbeat when there has been a prompt one of every shard."""
        proved = self._clock()
        while self._clock() - proved < SILENCE:
            try:
                async with asyncio.timeout(SILENCE):
                    found = await news.get()
            except TimeoutError:
                break
            if isinstance(found, RedisGone):
                raise found
            for event in found:
                yield event
            beats = [shard.beaten_at for shard in shards.values() if shard.beaten_at is not None]
            if len(beats) < len(shards):
                continue
            for shard in shards.values():
                shard.beaten_at = None
            if self._clock() - min(beats) < PROMPT:
                self.beaten_at, proved = min(beats), self._clock()
                if self._doubted:
                    self._doubted = False
                    yield Resync(self._step())
                yield Heartbeat(self._cursor)
        raise RedisGone("no heartbeat of every shard")

    async def _read_on(self, shards: Mapping[str, Shard], news: News) -> None:
        while True:
            asked = self._clock()
            positions = {name: shard.position for name, shard in shards.items()}
            answer = await self._connection.read(positions, block=BLOCK, count=BATCH)
            events: list[WatchEvent] = []
            for name, entries in answer:
                shard = shards.get(name)
                if shard is None:
                    raise RedisGone("an answer about another stream")
                for entry in entries:
                    events += self._event(shard, entry)
                # Behind a full batch there may be more.
                if entries and b"b" in entries[-1][1] and len(entries) < BATCH:
                    shard.beaten_at = asked
            if answer:
                await news.put(events)

    def _event(self, shard: Shard, entry: Entry) -> list[WatchEvent]:
        at, fields = entry
        shard.beaten_at = None
        gap = not shard.step(at)
        record = None if b"b" in fields else _record(fields)
        if gap or (record is None and b"b" not in fields):
            self._doubt()
        return [] if record is None else [Change(self._step(), record)]

    def _doubt(self) -> None:
        self._doubted = True
        self.beaten_at = None
        for shard in self._shards.values():
            shard.beaten_at = None

    def _step(self) -> int:
        self._cursor += 1
        return self._cursor


def _record(fields: Mapping[bytes, bytes]) -> Record | None:
    kind = KINDS.get(fields.get(b"k", b"").decode("ascii", "replace"))
    if kind is None:
        return None
    try:
        record: Record = kind.from_json(fields.get(b"r", b""))
    except wire.WireError:
        return None
    return record
