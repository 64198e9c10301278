"""A control plane in virtual time that can be slow, fail, and garble its watch, as a seed tells it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State, Transport, Upstream
from edge.state.port import (
    Change,
    Heartbeat,
    RefusalReason,
    ResumeRefused,
    Resync,
    Unavailable,
    UsageBatch,
    WatchEvent,
)

HEARTBEAT = 0.3
BARRIER = 1.0
UPSTREAM = Upstream("127.0.0.1")


@dataclass(frozen=True)
class Faults:
    """How much goes wrong: probabilities per event, and the longest delay of one message in seconds."""

    delay: float = 0.02
    slow: float = 0.0
    unavailable: float = 0.0
    answer_lost: float = 0.0
    refused: float = 0.0
    cut: float = 0.0
    duplicate: float = 0.0
    overtake: float = 0.0
    drop: float = 0.0
    resync: float = 0.0
    deaf: bool = False
    """The watch never connects."""


CALM = Faults()


class Acks:
    """What the edges said to one ``pausing`` version."""

    def __init__(self, edges: int) -> None:
        self.edges = edges
        self.in_flight: dict[str, int] = {}
        self.complete = asyncio.Event()

    def hear(self, edge: str, in_flight: int) -> None:
        """One edge's answer; the first one counts."""
        self.in_flight.setdefault(edge, in_flight)
        if len(self.in_flight) == self.edges:
            self.complete.set()


class Plane:
    """The truth about sandboxes and grants, and the log of its changes."""

    def __init__(self, rng: random.Random, faults: Faults, clock: Callable[[], float]) -> None:
        self.rng = rng
        self.faults = faults
        self.clock = clock
        self.sandboxes: dict[str, SandboxRecord] = {}
        self.grants: dict[str, GrantRecord] = {}
        self.ended_at: dict[str, float] = {}
        self.log: list[SandboxRecord | GrantRecord] = []
        self.published = asyncio.Condition()
        self.ports: list[PlanePort] = []
        self.pauses: Counter[str] = Counter()
        self.launches: Counter[tuple[str, int]] = Counter()
        self.resume_calls: Counter[tuple[str, int]] = Counter()
        self.acks: dict[tuple[str, int], Acks] = {}
        self.on_paused: Callable[[str], None] = lambda sandbox_id: None
        self.silent_until = float("-inf")

    # --- The truth --------------------------------------------------------------------------------

    def go_silent(self, seconds: float) -> None:
        """Nothing gets through for so long; what is sent meanwhile is lost."""
        self.silent_until = self.clock() + seconds

    @property
    def silent(self) -> bool:
        """Whether nothing gets through at the moment."""
        return self.clock() < self.silent_until

    async def set(self, record: SandboxRecord, state: State, **changes: object) -> SandboxRecord:
        """Publish the next version of a sandbox."""
        new = replace(record, state=state, version=record.version + 1, **changes)
        self.sandboxes[record.id] = new
        await self._publish(new)
        return new

    async def create(self, sandbox_id: str, grant_id: str) -> None:
        """A running sandbox with one active grant."""
        record = SandboxRecord(sandbox_id, State.RUNNING, 1, 1, True, 0.0, UPSTREAM)
        grant = GrantRecord(
            grant_id, sandbox_id, 80, frozenset(Transport), GrantStatus.ACTIVE, 1e12, 1
        )
        self.sandboxes[sandbox_id], self.grants[grant_id] = record, grant
        await self._publish(record)
        await self._publish(grant)

    async def revoke(self, grant_id: str) -> None:
        """End a grant."""
        grant = self.grants[grant_id]
        new = replace(grant, status=GrantStatus.REVOKED, version=grant.version + 1)
        self.grants[grant_id] = new
        self.ended_at[grant_id] = self.clock()
        await self._publish(new)

    async def destroy(self, sandbox_id: str) -> None:
        """End a sandbox."""
        self.ended_at[sandbox_id] = self.clock()
        await self.set(self.sandboxes[sandbox_id], State.DESTROYED, upstream=None)

    async def pause(self, sandbox_id: str, *, barrier: bool) -> None:
        """Pause a running sandbox; with ``barrier``, only if every edge says that nothing is in flight."""
        record = self.sandboxes[sandbox_id]
        if record.state is not State.RUNNING:
            return
        record = await self.set(record, State.PAUSING)
        if barrier:
            acks = self.acks[sandbox_id, record.version] = Acks(len(self.ports))
            try:
                async with asyncio.timeout(BARRIER):
                    await acks.complete.wait()
            except TimeoutError:
                pass
            if self.sandboxes[sandbox_id] is not record:
                return
            if not acks.complete.is_set() or any(acks.in_flight.values()):
                await self.set(record, State.RUNNING)
                return
            self.on_paused(sandbox_id)
        else:
            await asyncio.sleep(self.rng.uniform(0, 0.3))
            if self.sandboxes[sandbox_id] is not record:
                return
        self.pauses[sandbox_id] += 1
        await self.set(record, State.PAUSED, upstream=None)

    async def resume(self, sandbox_id: str, paused_incarnation: int) -> SandboxRecord:
        """Compare and resume."""
        record = self.sandboxes[sandbox_id]
        if not self._may_launch(record, paused_incarnation):
            return record
        self.launches[sandbox_id, paused_incarnation] += 1
        record = await self.set(record, State.RESUMING)
        await asyncio.sleep(self.rng.uniform(0.01, 0.4))
        if self.sandboxes[sandbox_id] is not record:
            return self.sandboxes[sandbox_id]
        return await self.set(
            record, State.RUNNING, incarnation=record.incarnation + 1, upstream=UPSTREAM
        )

    def _may_launch(self, record: SandboxRecord, paused_incarnation: int) -> bool:
        return record.state is State.PAUSED and record.incarnation == paused_incarnation

    async def _publish(self, record: SandboxRecord | GrantRecord) -> None:
        self.log.append(record)
        async with self.published:
            self.published.notify_all()


class PlanePort:
    """One edge's way to the plane: implements the state port."""

    def __init__(self, plane: Plane, edge: str) -> None:
        self.plane = plane
        self.edge = edge
        self.failed_at = float("-inf")
        """When a look-up last failed."""
        self.proved_at = float("-inf")
        """When the last heartbeat that arrived was sent."""
        self.lag = 0.0
        """The longest a heartbeat was under way."""
        plane.ports.append(self)

    def _chance(self, probability: float) -> bool:
        return self.plane.rng.random() < probability

    async def _travel(self) -> None:
        faults = self.plane.faults
        if self._chance(faults.slow):
            await asyncio.sleep(self.plane.rng.uniform(0.2, 1.5))
        await asyncio.sleep(self.plane.rng.uniform(0.0, faults.delay))

    async def _there(self) -> None:
        await self._travel()
        if self.plane.silent or self._chance(self.plane.faults.unavailable):
            self.failed_at = self.plane.clock()
            raise Unavailable("the request got lost")

    async def _back(self) -> None:
        await self._travel()
        if self.plane.silent or self._chance(self.plane.faults.answer_lost):
            self.failed_at = self.plane.clock()
            raise Unavailable("the answer got lost")

    async def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        await self._there()
        record = self.plane.sandboxes.get(sandbox_id)
        await self._back()
        return record

    async def grant(self, grant_id: str) -> GrantRecord | None:
        await self._there()
        grant = self.plane.grants.get(grant_id)
        await self._back()
        return grant

    async def resume(
        self, sandbox_id: str, paused_incarnation: int, reason: str, timeout: float
    ) -> SandboxRecord:
        self.plane.resume_calls[sandbox_id, paused_incarnation] += 1
        try:
            async with asyncio.timeout(timeout):
                await self._there()
                if self._chance(self.plane.faults.refused):
                    raise ResumeRefused(RefusalReason.FAILED)
                # The control plane goes on when its caller hangs up.
                work = asyncio.get_running_loop().create_task(
                    self.plane.resume(sandbox_id, paused_incarnation)
                )
                record = await asyncio.shield(work)
                await self._back()
                return record
        except TimeoutError:
            raise Unavailable("slow") from None

    async def report(self, batch: UsageBatch) -> None:
        raise AssertionError("the model reports no usage")

    async def ack(self, sandbox_id: str, version: int, in_flight: int) -> None:
        await self._there()
        acks = self.plane.acks.get((sandbox_id, version))
        if acks is not None:
            acks.hear(self.edge, in_flight)
        await self._back()

    async def close(self) -> None:
        """Nothing to let go of."""

    # --- The watch --------------------------------------------------------------------------------

    async def watch(self, cursor: int | None) -> AsyncIterator[WatchEvent]:
        plane = self.plane
        if plane.faults.deaf:
            raise Unavailable("deaf")
        await self._there()
        at = len(plane.log) if cursor is None else cursor
        if cursor is not None and self._chance(plane.faults.resync):
            at = len(plane.log)
            yield Resync(at)
        beat = plane.clock()
        lossy = False
        while True:
            lossy = self._chance(plane.faults.drop)
            events, at = self._due(at, lossy=lossy)
            sent = plane.clock()
            if sent >= beat:
                beat = sent + HEARTBEAT
                events.append(Heartbeat(at))
            for event in events:
                await self._travel()
                if plane.silent or self._chance(plane.faults.cut):
                    raise Unavailable("cut")
                if isinstance(event, Heartbeat):
                    self.proved_at = sent
                    self.lag = max(self.lag, plane.clock() - sent)
                yield event
            async with plane.published:
                try:
                    # At least a moment: less than one bit of the clock would never pass.
                    async with asyncio.timeout(max(1e-6, beat - plane.clock())):
                        if at == len(plane.log):
                            await plane.published.wait()
                except TimeoutError:
                    pass

    def _due(self, at: int, *, lossy: bool) -> tuple[list[WatchEvent], int]:
        """What is to be sent from ``at``: garbled as the faults say, but never after its heartbeat.

        Changes that are dropped are the last ones before the next heartbeat (a queue ran over), which
        is what a cursor can tell.
        """
        faults, log = self.plane.faults, self.plane.log
        events: list[WatchEvent] = (
            [] if lossy else [Change(i + 1, log[i]) for i in range(at, len(log))]
        )
        if at and self._chance(faults.duplicate):
            old = self.plane.rng.randrange(at)
            events.insert(0, Change(old + 1, log[old]))
        if len(events) > 1 and self._chance(faults.overtake):
            self.plane.rng.shuffle(events)
        if lossy and len(log) > at:
            events.append(Heartbeat(len(log)))
        return events, len(log)
