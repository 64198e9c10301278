"""The control plane's side: every record into Redis, every change to the edges, and everything again after a loss.

A heartbeat follows the changes that were published before it, in every shard. Edges believe what they read
from Redis only while these come; so whatever is wrong here (Redis gone, this process stopped, a queue that
does not get empty) makes edges ask the control plane, and nothing worse.

Redis may lose what it has taken: flushed, restarted without a disk, or failed over to a replica that had not
heard the latest. Nobody can be trusted to tell (redis-py looks for the new primary by itself), so every script
compares: the stream has to be the one this publisher knows, as long as it was at least, and for a heartbeat on the
server on which it was begun. Where it is not, the stream is begun anew, which makes every edge doubt what it knows,
and all its records are published again, *before* the next heartbeat.

Several publishers of one control plane may work side by side, given that each one's ``everything`` has what the
others have published up to the moment it is called. For it is called after an epoch has begun, and what is held of an
earlier one counts no more, whatever its version: else a version that nobody of us has said would stay for ever.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from contextlib import suppress

from edge.core.records import GrantRecord, Record, State
from edge.core.redis_settings import RedisSettings
from edge.state.redis import scripts
from edge.state.redis.connect import Connection, RedisGone
from edge.state.redis.ids import EntryId, entry_id
from edge.state.redis.kinds import kind_of
from edge.state.redis.layout import KEPT_CHANGES, MAX_MEMBER, MAX_MEMBERS, SHARDS, Layout, shard_of

BEAT = 0.3
"""Seconds between heartbeats."""
AT_ONCE = 200
"""Records published in one go."""
TOMBSTONE = 24 * 3600.0
"""Seconds a destroyed sandbox's record stays."""
AFTERLIFE = 3600.0
"""Seconds a grant's record stays after its expiry."""
LONGEST = 1e9
"""Seconds a record that ends stays at most. Redis knows no times beyond all measure, and grants may have such ends."""
REMEMBERED = 6.0
"""Seconds an edge is a member after it was last seen among those in Redis. That may have lost their names, or be
gone altogether; and edges need a moment to find the control plane instead."""
FIRST_DELAY, LAST_DELAY = 0.1, 2.0
"""Seconds before Redis is tried again; doubled each time, with jitter."""

Log = Callable[..., None]


class _Shard:
    """What this publisher knows of one stream: its newest entry."""

    def __init__(self) -> None:
        self.newest = EntryId(0, 0)

    def begins(self, newest: EntryId) -> bool:
        """Take where the stream stands; whether it is another one than before."""
        before, self.newest = self.newest, newest
        return self.newest.epoch != before.epoch

    def moves(self, found: object) -> None:
        """Take the id of an entry of ours. They may come in any order. Raises `RedisGone` for an impossible one."""
        at = entry_id(found)
        if at.epoch != self.newest.epoch:
            raise RedisGone("an id of another epoch")
        self.newest = max(self.newest, at)


class Publisher:
    """Publishes records. `run` does the work; the other methods neither wait nor fail.

    ``everything`` gives all records there are, ``wall`` Unix time in seconds.
    """

    def __init__(
        self,
        settings: RedisSettings,
        everything: Callable[[], Iterable[Record]],
        *,
        wall: Callable[[], float],
        log: Log,
    ) -> None:
        self._connection = Connection(settings)
        self._layout = Layout(settings.prefix)
        self._everything = everything
        self._wall = wall
        self._log = log
        self._pending: dict[tuple[str, str], Record] = {}
        self._news = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._due = 0.0
        self._shards = [_Shard() for _ in range(SHARDS)]
        self._seen: dict[str, float] = {}

    @property
    def members(self) -> frozenset[str]:
        """The edges that are members, or were a moment ago."""
        since = self._clock() - REMEMBERED
        return frozenset(name for name, seen in self._seen.items() if seen >= since)

    def publish(self, record: Record) -> None:
        """Publish a record soon. Of several versions of one that wait, only the newest goes out."""
        key = kind_of(record).name, record.id
        waiting = self._pending.get(key)
        if waiting is None or waiting.version < record.version:
            self._pending[key] = record
        self._news.set()

    async def run(self) -> None:
        """Publish for ever; reconnects for ever, too."""
        try:
            await self._publish()
        finally:
            await self._connection.close()

    async def _publish(self) -> None:
        delay, told = FIRST_DELAY, False
        while True:
            try:
                await self._begin()
                while True:
                    await self._flush()
                    if self._clock() >= self._due:
                        await self._beat()
                        if told:
                            self._log("redis_back")
                        delay, told = FIRST_DELAY, False
                    await self._wait()
            except RedisGone as gone:
                if not told:
                    told = True
                    self._log("redis_gone", reason=str(gone))
            except _Lost:
                self._log("redis_lost_changes")
            self._due = 0.0
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))
            delay = min(LAST_DELAY, delay * 2)

    async def _begin(self) -> None:
        """Find out where the streams stand, and publish everything again that is not known to be there."""
        calls = [
            ([self._layout.changes(at), self._layout.server(at)], [*shard.newest])
            for at, shard in enumerate(self._shards)
        ]
        ids = await self._connection.run_all(scripts.BEGIN, calls)
        stands = [entry_id(found) for found in ids]
        others = {
            at
            for at, (shard, newest) in enumerate(zip(self._shards, stands, strict=True))
            if shard.begins(newest)
        }
        for record in self._everything() if others else ():
            if shard_of(record.id) in others:
                self.publish(record)

    async def _flush(self) -> None:
        while self._pending:
            # Taken out only once it is there, for it may not get there; and a newer one stays in.
            keys = list(self._pending)[:AT_ONCE]
            records = [self._pending[key] for key in keys]
            ids = await self._connection.run_all(
                scripts.PUBLISH, [self._call(record) for record in records]
            )
            if scripts.LOST in ids:
                raise _Lost
            for key, record, found in zip(keys, records, ids, strict=True):
                if found is not None:
                    self._shards[shard_of(record.id)].moves(found)
                if self._pending.get(key) is record:
                    del self._pending[key]

    def _call(self, record: Record) -> tuple[list[str], list[str | bytes | int]]:
        kind, at = kind_of(record), shard_of(record.id)
        keys = [self._layout.record(kind.name, record.id), self._layout.changes(at)]
        text, lifetime = kind.to_json(record), self._lifetime(record)
        newest = self._shards[at].newest
        return keys, [kind.name, record.version, text, lifetime, KEPT_CHANGES, *newest]

    def _lifetime(self, record: Record) -> int:
        """Milliseconds a record stays in Redis; 0 = until it is replaced."""
        if isinstance(record, GrantRecord):
            left = min(record.expires_at - self._wall() + AFTERLIFE, LONGEST)
            return max(1, round(1000 * left))
        return round(1000 * TOMBSTONE) if record.state is State.DESTROYED else 0

    async def _beat(self) -> None:
        # Members are asked for first: an edge that is fresh has heard a heartbeat after it joined.
        names = await self._connection.look(
            scripts.MEMBERS, [self._layout.members], MAX_MEMBERS, MAX_MEMBER
        )
        self._remember(names)
        calls = [
            (
                [self._layout.changes(at), self._layout.server(at)],
                [KEPT_CHANGES, *shard.newest],
            )
            for at, shard in enumerate(self._shards)
        ]
        ids = await self._connection.run_all(scripts.BEAT, calls)
        if scripts.LOST in ids:
            raise _Lost
        for shard, found in zip(self._shards, ids, strict=True):
            shard.moves(found)
        self._due = self._clock() + BEAT

    def _remember(self, names: object) -> None:
        if not isinstance(names, list) or not all(isinstance(name, bytes) for name in names):
            raise RedisGone("members of an impossible shape")
        for gone in self._seen.keys() - self.members:
            del self._seen[gone]
        for name in names:
            self._seen[name.decode("utf-8", "replace")] = self._clock()

    async def _wait(self) -> None:
        if self._pending:
            return
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._due - self._clock())):
                await self._news.wait()


class _Lost(Exception):
    """Redis no longer has what it had."""
