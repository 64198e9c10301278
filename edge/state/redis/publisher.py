"""The control plane's side: every record into Redis, every change to the edges, and everything again after a loss.

A heartbeat follows the changes that were published before it, in every shard. Edges believe what they read
from Redis only while these come; so whatever is wrong here (Redis gone, this process stopped, a queue that
does not get empty) makes edges ask the control plane, and nothing worse.

Redis may lose what it has taken: flushed, restarted without a disk, or failed over to a replica that had not
heard the latest. The ids of changes show it (`_Shard.loses`), and so does a broken connection. Then the
streams are begun anew, which makes every edge doubt what it knows, and all records are published again,
*before* the next heartbeat.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Iterable
from contextlib import suppress

from edge.core.records import GrantRecord, SandboxRecord, State
from edge.core.settings import RedisSettings
from edge.state import wire
from edge.state.port import Unavailable, UsageBatch
from edge.state.redis import scripts
from edge.state.redis.connect import Connection, RedisGone
from edge.state.redis.layout import KEPT_CHANGES, SHARDS, Layout, shard_of

BEAT = 0.3
"""Seconds between heartbeats."""
AT_ONCE = 200
"""Records published in one go."""
TOMBSTONE = 24 * 3600.0
"""Seconds a destroyed sandbox's record stays."""
AFTERLIFE = 3600.0
"""Seconds a grant's record stays after its expiry."""
REMEMBERED = 6.0
"""Seconds an edge counts as alive after it was last seen among those who are. Redis may have lost their names, or be
gone altogether; and edges need a moment to find the control plane instead."""
AT_A_TIME = 100
"""Usage batches taken over with each heartbeat."""
FIRST_DELAY, LAST_DELAY = 0.1, 2.0
"""Seconds before Redis is tried again; doubled each time, with jitter."""

_ENTRY_ID = re.compile(rb"\d{1,18}-(\d{1,18})")

Record = SandboxRecord | GrantRecord
Log = Callable[..., None]


class _Shard:
    """What this publisher knows of one stream. ``least`` is what its next epoch has to be at least."""

    def __init__(self) -> None:
        self.least = 1
        self._latest: tuple[int, int] | None = None

    def begin(self) -> None:
        """The stream begins anew, and so does what is known of it."""
        self._latest = None

    def loses(self, entry_id: bytes) -> bool:
        """Take the id of an entry of ours; True when others of ours must be missing before it."""
        epoch, number = (int(part) for part in entry_id.split(b"-"))
        before, self._latest = self._latest, (epoch, number)
        self.least = max(self.least, epoch + 1)
        return before is not None and not (epoch == before[0] and number > before[1])


class Publisher:
    """Publishes records. `run` does the work; the other methods neither wait nor fail.

    ``everything`` gives all records there are, ``wall`` Unix time in seconds. ``take_usage`` is given every batch
    that an edge could not hand to the control plane, at least once; it may raise `Unavailable` to be given it later.
    """

    def __init__(
        self,
        settings: RedisSettings,
        everything: Callable[[], Iterable[Record]],
        *,
        wall: Callable[[], float],
        log: Log,
        take_usage: Callable[[UsageBatch], object] | None = None,
    ) -> None:
        self._connection = Connection(settings)
        self._layout = Layout(settings.prefix)
        self._everything = everything
        self._wall = wall
        self._log = log
        self._take_usage = take_usage
        self._collects = True
        self._pending: dict[tuple[str, str], Record] = {}
        self._news = asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self._due = 0.0
        self._shards = [_Shard() for _ in range(SHARDS)]
        self._seen: dict[str, float] = {}

    @property
    def members(self) -> frozenset[str]:
        """The edges that are alive, or were a moment ago."""
        since = self._clock() - REMEMBERED
        return frozenset(name for name, seen in self._seen.items() if seen >= since)

    def publish(self, record: Record) -> None:
        """Publish a record soon. Of several versions of one that wait, only the newest goes out."""
        self._pending[_kind(record), record.id] = record
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
                if told:
                    self._log("redis_back")
                delay, told = FIRST_DELAY, False
                while True:
                    await self._flush()
                    if self._clock() >= self._due:
                        await self._beat()
                    await self._wait()
            except RedisGone as gone:
                if not told:
                    told = True
                    self._log("redis_gone", reason=str(gone))
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))
                delay = min(LAST_DELAY, delay * 2)
            except _Lost:
                self._log("redis_lost_changes")

    async def _begin(self) -> None:
        """New epochs, and everything again: what Redis holds after a broken connection is anybody's guess."""
        calls = [
            ([self._layout.changes(number)], [shard.least])
            for number, shard in enumerate(self._shards)
        ]
        ids = await self._connection.run_all(scripts.RESET, calls)
        for number, entry_id in enumerate(ids):
            _number(entry_id)
            self._shards[number].begin()
            self._note(number, entry_id)
        for record in self._everything():
            self._pending.setdefault((_kind(record), record.id), record)

    async def _flush(self) -> None:
        while self._pending:
            # Taken out only once it is there, for it may not get there; and a newer one stays in.
            keys = list(self._pending)[:AT_ONCE]
            records = [self._pending[key] for key in keys]
            ids = await self._connection.run_all(
                scripts.PUBLISH, [self._call(record) for record in records]
            )
            for key, record in zip(keys, records, strict=True):
                if self._pending.get(key) is record:
                    del self._pending[key]
            # In order, whatever order they were answered in.
            written = [
                (shard_of(record.id), _number(entry_id), entry_id)
                for record, entry_id in zip(records, ids, strict=True)
                if entry_id is not None
            ]
            for shard, _, entry_id in sorted(written):
                self._note(shard, entry_id)

    def _call(self, record: Record) -> tuple[list[str], list[str | bytes | int]]:
        kind, shard = _kind(record), shard_of(record.id)
        text = (
            wire.sandbox_to_json(record)
            if isinstance(record, SandboxRecord)
            else wire.grant_to_json(record)
        )
        keys = [self._layout.record(kind, record.id), self._layout.changes(shard)]
        least = self._shards[shard].least
        return keys, [kind, record.version, text, self._lifetime(record), KEPT_CHANGES, least]

    def _lifetime(self, record: Record) -> int:
        """Milliseconds a record stays in Redis; 0 = until it is replaced."""
        if isinstance(record, GrantRecord):
            return max(1, round(1000 * (record.expires_at - self._wall() + AFTERLIFE)))
        return round(1000 * TOMBSTONE) if record.state is State.DESTROYED else 0

    async def _beat(self) -> None:
        # Who is alive is asked first: an edge that is fresh has heard a heartbeat after it joined.
        alive = await self._connection.run(scripts.MEMBERS, [self._layout.alive])
        self._remember(alive)
        calls = [
            ([self._layout.changes(number)], [KEPT_CHANGES, shard.least])
            for number, shard in enumerate(self._shards)
        ]
        ids = await self._connection.run_all(scripts.BEAT, calls)
        for number, entry_id in enumerate(ids):
            _number(entry_id)
            self._note(number, entry_id)
        self._due = self._clock() + BEAT
        try:
            await self._collect()
            self._collects = True
        except RedisGone as gone:
            # Publishing goes on. Is it gone altogether, then the next heartbeat notices.
            if self._collects:
                self._log("usage_not_collected", reason=str(gone))
            self._collects = False

    def _remember(self, alive: object) -> None:
        if not isinstance(alive, list) or not all(isinstance(name, bytes) for name in alive):
            raise RedisGone("members of an impossible shape")
        for gone in self._seen.keys() - self.members:
            del self._seen[gone]
        for name in alive:
            self._seen[name.decode("utf-8", "replace")] = self._clock()

    async def _collect(self) -> None:
        """Usage that was left here while the control plane was away. Taken before it is deleted."""
        if self._take_usage is None:
            return
        taken = []
        for entry_id, fields in await self._connection.first(self._layout.batches, AT_A_TIME):
            try:
                self._take_usage(wire.usage_from_json(fields.get(b"u", b"")))
            except wire.WireError:
                self._log("usage_unreadable")
            except Unavailable:
                break  # it waits on
            taken.append(entry_id)
        if taken:
            await self._connection.delete(self._layout.batches, taken)

    def _note(self, shard: int, entry_id: bytes) -> None:
        if self._shards[shard].loses(entry_id):
            raise _Lost

    async def _wait(self) -> None:
        if self._pending:
            return
        self._news.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._due - self._clock())):
                await self._news.wait()


class _Lost(Exception):
    """Redis no longer has what it had."""


def _number(entry_id: object) -> int:
    """The number in the id of an entry. Raises `RedisGone` for what is none."""
    found = _ENTRY_ID.fullmatch(entry_id) if isinstance(entry_id, bytes) else None
    if found is None:
        raise RedisGone("an id of an impossible shape")
    return int(found[1])


def _kind(record: Record) -> str:
    return "sandbox" if isinstance(record, SandboxRecord) else "grant"
