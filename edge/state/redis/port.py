"""The edge's side: a state port that reads from Redis what may be believed, and asks the control plane else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from edge.core.records import GrantRecord, SandboxRecord, State
from edge.core.redis_settings import RedisSettings
from edge.state import wire
from edge.state.port import (
    RefusalReason,
    ResumeRefused,
    StatePort,
    Unavailable,
    UsageBatch,
    WatchEvent,
)
from edge.state.redis import scripts
from edge.state.redis.changes import Changes
from edge.state.redis.connect import Connection, RedisGone
from edge.state.redis.following import Following
from edge.state.redis.kinds import GRANT, SANDBOX, Kind, R
from edge.state.redis.layout import (
    KEPT_BATCHES,
    MAX_BATCH,
    MAX_MEMBERS,
    MAX_RECORD,
    SHARDS,
    Layout,
    shard_of,
)
from edge.state.redis.lease import DONE, FAILED, Lease, Turn

BELIEVED = 1.5
"""Seconds after a proof of being caught up during which records are read from Redis."""
LOOK = 0.1
"""Seconds between two looks at another edge's wake. Its waiters are told by the changes, sooner than that."""
MEMBERSHIP = 3.0
"""Seconds an edge is a member after it last joined."""


class RedisStatePort:
    """`StatePort` over Redis, and ``control`` for what Redis cannot do.

    ``clock`` gives monotonic seconds, ``note`` takes events an operator may want to read about.
    """

    def __init__(
        self,
        settings: RedisSettings,
        control: StatePort,
        edge_id: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        note: Callable[..., None] = lambda _event, **_fields: None,
    ) -> None:
        self._settings = settings
        self._control = control
        self._edge_id = edge_id
        self._clock = clock
        self._layout = Layout(settings.prefix)
        self._connection = Connection(settings)
        self._leaving: set[asyncio.Task[None]] = set()
        # Reading blocks, and must not take a connection from those who look something up.
        self._reading = Connection(settings, most=SHARDS + 1)
        self._changes = Changes(self._reading, self._layout, clock=clock)
        self._following = Following(self._changes, control, join=self._join, clock=clock, note=note)

    async def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        """See `StatePort.sandbox`."""
        found = await self._read(SANDBOX, sandbox_id)
        return found or await self._control.sandbox(sandbox_id)

    async def grant(self, grant_id: str) -> GrantRecord | None:
        """See `StatePort.grant`."""
        found = await self._read(GRANT, grant_id)
        return found or await self._control.grant(grant_id)

    async def resume(
        self, sandbox_id: str, paused_incarnation: int, reason: str, timeout: float
    ) -> SandboxRecord:
        """See `StatePort.resume`. Of many edges one asks; the others look on, and take over if it falls silent."""
        lease = Lease(
            self._connection,
            self._layout.lease(sandbox_id, paused_incarnation),
            self._settings.lease,
        )
        ends = self._clock() + timeout
        patient_until = self._clock() + self._settings.lease
        # While Redis is in trouble, waiting for its answers would cost those who wait more than a call costs.
        while self._believed:
            turn = await lease.take()
            if isinstance(turn, RefusalReason):
                raise ResumeRefused(turn)
            left = ends - self._clock()
            if left <= 0:
                raise Unavailable("another edge's wake did not end in time")
            if turn is Turn.OURS:
                return await self._lead(lease, sandbox_id, paused_incarnation, reason, left)
            moved = await self._read(SANDBOX, sandbox_id)
            if moved is not None and moved.incarnation > paused_incarnation:
                return moved
            # Who has the lease may have lost the control plane and not Redis. Whoever got through would show.
            stuck = moved is None or moved.state is State.PAUSED
            if stuck and self._clock() >= patient_until:
                break
            await asyncio.sleep(min(LOOK, left))
        left = max(0.0, ends - self._clock())
        return await self._control.resume(sandbox_id, paused_incarnation, reason, left)

    async def _lead(
        self, lease: Lease, sandbox_id: str, incarnation: int, reason: str, timeout: float
    ) -> SandboxRecord:
        left = ""
        try:
            async with lease.kept():
                record = await self._control.resume(sandbox_id, incarnation, reason, timeout)
            left = DONE
        except ResumeRefused as refused:
            # That our own window ended says nothing to those who have some of theirs left.
            if refused.reason is not RefusalReason.TIMEOUT:
                left = FAILED + refused.reason
            raise
        else:
            return record
        finally:
            # Not awaited: who waits for the sandbox has nothing to wait for any more, least of all a Redis that hangs.
            task = asyncio.create_task(lease.leave(left))  # noqa: TID251 - `close` waits for it
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def watch(self, cursor: int | None) -> AsyncIterator[WatchEvent]:
        """See `StatePort.watch`. Over Redis, and over the control plane's own events while that is gone."""
        return self._following.follow(again=cursor is not None)

    async def _join(self) -> None:
        try:
            await self._reading.run(
                scripts.JOIN,
                [self._layout.members],
                self._edge_id,
                round(MEMBERSHIP * 1000),
                MAX_MEMBERS,
            )
        except RedisGone as gone:
            raise Unavailable(f"redis: {gone}") from None

    async def report(self, batch: UsageBatch) -> None:
        """See `StatePort.report`. What the control plane cannot take is left for it in Redis."""
        try:
            await self._control.report(batch)
        except Unavailable:
            if not await self._left(batch):
                raise

    async def _left(self, batch: UsageBatch) -> bool:
        """Whether a batch waits in Redis now. Where too many do, it is the edge that keeps and merges it."""
        stream, text = self._layout.batches, wire.usage_to_json(batch)
        if len(text) > MAX_BATCH:
            return False
        try:
            if await self._connection.length(stream) >= KEPT_BATCHES:
                return False
            await self._connection.add(stream, {"u": text}, 2 * KEPT_BATCHES)
        except RedisGone:
            return False
        return True

    async def ack(self, sandbox_id: str, version: int, in_flight: int) -> None:
        """See `StatePort.ack`."""
        await self._control.ack(sandbox_id, version, in_flight)

    async def close(self) -> None:
        """See `StatePort.close`."""
        await self._control.close()
        if self._leaving:
            await asyncio.wait(tuple(self._leaving))
        await self._connection.close()
        await self._reading.close()

    @property
    def _believed(self) -> bool:
        """Whether what Redis holds is what the control plane has said, up to a moment ago."""
        beaten = self._changes.beaten_at if self._following.over_redis else None
        return beaten is not None and self._clock() - beaten <= BELIEVED

    async def _read(self, kind: Kind[R], record_id: str) -> R | None:
        """A record, if Redis can be believed and has it."""
        if not self._believed:
            return None
        changes = self._layout.changes(shard_of(record_id))
        keys = [self._layout.record(kind.name, record_id), changes]
        try:
            newest, found = await self._connection.look(scripts.READ, keys, MAX_RECORD)
            # Another connection than the one that is followed: it may have gone to another server, which
            # a failover has made the primary, and which has not got what this edge has already heard of.
            if not isinstance(found, bytes) or not self._changes.reached(changes, newest):
                return None
            record = kind.from_json(found)
        except (RedisGone, wire.WireError, UnicodeEncodeError, TypeError, ValueError):
            return None
        return record if record.id == record_id else None
