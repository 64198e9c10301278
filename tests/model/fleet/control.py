"""The control plane as an actor: compare-and-resume, the pause barrier, the change log, the publisher.

What is on its disk (`Plane`) outlives it; what is in its memory (`Process`) does not, and is made of the parts of the
embedded control plane: change log, sockets' worth of changes, the question to the edges, the publisher.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from plane import UPSTREAM

from edge.appliance.barrier import REJOINING, Edges
from edge.appliance.feed import Feed
from edge.appliance.watch import send_changes
from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State, Transport
from edge.core.redis_settings import RedisSettings
from edge.state.port import Heartbeat, RefusalReason, ResumeRefused, Unavailable, WatchEvent
from edge.state.redis import Publisher
from tests.model.fleet.actors import Actor
from tests.model.fleet.network import Lost, Network, Stream

if TYPE_CHECKING:
    from tests.model.fleet.world import FleetEdge, World

SETTINGS = RedisSettings.model_validate({"url": "redis://model"})
CALL = 1.0
"""Seconds a look-up, an ack or a watch may take to be answered."""
PING = 5.0
"""Seconds after which a socket's other end is asked whether it is there; half as long for the answer."""


class Process:
    """What a control plane has in memory."""

    def __init__(self, plane: Plane, started: int) -> None:
        self.feed = Feed(start=started * 1_000_000)
        self.edges = Edges(rejoining=REJOINING if started > 1 else 0.0)
        self.publisher = plane.world.parts.publisher(
            SETTINGS, plane.everything, wall=plane.world.loop.time, log=plane.world.note
        )
        self.feed.listen(self.publisher.publish)
        self.edges.elsewhere = lambda: self.publisher.members


class Plane:
    """The truth about sandboxes and grants, and who is told of it how."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng: random.Random = world.rng
        self.sandboxes: dict[str, SandboxRecord] = {}
        self.grants: dict[str, GrantRecord] = {}
        self.forgotten: set[str] = set()
        self.ended_at: dict[str, float] = {}
        self.retired_at: dict[tuple[str, int], float] = {}
        self.pauses: Counter[str] = Counter()
        self.launches: Counter[tuple[str, int]] = Counter()
        self.resume_calls: Counter[tuple[str, int]] = Counter()
        self.starts = 0

    def everything(self) -> list[SandboxRecord | GrantRecord]:
        """What the publisher publishes anew."""
        known = [*self.sandboxes.values(), *self.grants.values()]
        return [record for record in known if record.id not in self.forgotten]

    def start(self) -> None:
        """The process begins, or begins anew with what is on disk."""
        world = self.world
        self.starts += 1
        self.actor = world.network.actors["plane"] = Actor(world.loop, "plane")
        self.actor.context.run(world.servers_here)

        async def boot() -> None:
            self.process = Process(self, self.starts)
            ready.set()
            for record in list(self.sandboxes.values()):
                # What was under way is not any more; a memory that was frozen still is.
                if record.state in (State.PAUSING, State.RESUMING):
                    back = State.RUNNING if record.state is State.PAUSING else State.PAUSED
                    self.set(record, back)
            await self.process.publisher.run()

        ready = asyncio.Event()
        self.actor.start(boot(), "plane")

    # --- The truth --------------------------------------------------------------------------------

    def set(self, record: SandboxRecord, state: State, **changes: Any) -> SandboxRecord:
        """The next version of a sandbox, written and told."""
        new = replace(record, state=state, version=record.version + 1, **changes)
        self.sandboxes[record.id] = new
        self.process.feed.publish(new)
        return new

    def create(self, sandbox_id: str, grant_id: str) -> None:
        """A running sandbox with one active grant."""
        record = SandboxRecord(sandbox_id, State.RUNNING, 1, 1, True, 0.0, UPSTREAM)
        grant = GrantRecord(
            grant_id, sandbox_id, 80, frozenset(Transport), GrantStatus.ACTIVE, 1e12, 1
        )
        self.sandboxes[sandbox_id], self.grants[grant_id] = record, grant
        self.process.feed.publish(record)
        self.process.feed.publish(grant)

    def revoke(self, grant_id: str) -> None:
        """End a grant."""
        grant = self.grants[grant_id]
        new = replace(grant, status=GrantStatus.REVOKED, version=grant.version + 1)
        self.grants[grant_id] = new
        self.ended_at.setdefault(grant_id, self.world.loop.time())
        self.process.feed.publish(new)

    def destroy(self, sandbox_id: str) -> None:
        """End a sandbox."""
        record = self.sandboxes[sandbox_id]
        self.ended_at.setdefault(sandbox_id, self.world.loop.time())
        self.retired_at.setdefault((sandbox_id, record.incarnation), self.world.loop.time())
        self.set(record, State.DESTROYED, upstream=None)

    def forget(self, sandbox_id: str) -> None:
        """It is gone, and nobody is told: who asks is."""
        self.forgotten.add(sandbox_id)

    async def pause(self, sandbox_id: str, *, barrier: bool) -> None:
        """Pause a running sandbox; with ``barrier`` only if every edge says that nothing is in flight."""
        if barrier and self.world.loop.time() < self.process.edges.complete_at:
            return
        record = self.sandboxes[sandbox_id]
        if record.state is not State.RUNNING:
            return
        record = self.set(record, State.PAUSING)
        if barrier:
            quiet = await self.process.edges.quiet(sandbox_id, record.version)
            if self.sandboxes[sandbox_id] is not record:
                return
            if not quiet:
                self.set(record, State.RUNNING)
                return
            self.world.paused_by_barrier(sandbox_id)
        else:
            await asyncio.sleep(self.rng.uniform(0, 0.3))
            if self.sandboxes[sandbox_id] is not record:
                return
        self.pauses[sandbox_id] += 1
        self.retired_at[sandbox_id, record.incarnation] = self.world.loop.time()
        self.set(record, State.PAUSED, upstream=None)

    async def resume(self, sandbox_id: str, paused_incarnation: int) -> SandboxRecord:
        """Compare and resume. It goes on when its caller hangs up."""
        self.resume_calls[sandbox_id, paused_incarnation] += 1
        record = self.sandboxes[sandbox_id]
        while record.state is State.RESUMING and record.incarnation == paused_incarnation:
            await asyncio.sleep(0.05)  # as behind the sandbox's lock
            record = self.sandboxes[sandbox_id]
        if not self.may_launch(record, paused_incarnation):
            return record
        if self.world.network.chance(self.world.refusing):
            raise ResumeRefused(RefusalReason.FAILED)
        record = self.set(record, State.RESUMING)
        await asyncio.sleep(self.rng.uniform(*self.world.resuming))
        if self.sandboxes[sandbox_id] is not record:
            return self.sandboxes[sandbox_id]
        self.launches[sandbox_id, record.incarnation] += 1
        return self.set(
            record, State.RUNNING, incarnation=record.incarnation + 1, upstream=UPSTREAM
        )

    def may_launch(self, record: SandboxRecord, paused_incarnation: int) -> bool:
        """The comparison."""
        return record.state is State.PAUSED and record.incarnation == paused_incarnation

    # --- What edges ask ---------------------------------------------------------------------------

    def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        """A look-up."""
        return None if sandbox_id in self.forgotten else self.sandboxes.get(sandbox_id)

    def grant(self, grant_id: str) -> GrantRecord | None:
        """A look-up."""
        return None if grant_id in self.forgotten else self.grants.get(grant_id)

    def open(self, stream: Stream, edge: str, cursor: int | None) -> None:
        """A socket on which an edge follows the change log."""
        feed = self.process.feed
        self.world.streams.append(stream)
        self.world.loop.create_task(
            self._serve(stream, edge, feed.cursor if cursor is None else cursor),
            name=f"feed {edge}",
        )

    async def _serve(self, stream: Stream, edge: str, cursor: int) -> None:
        loop = self.world.loop
        work = [
            loop.create_task(send_changes(self.process.feed, stream.send, cursor)),
            loop.create_task(stream.closed.wait()),
            loop.create_task(self._pings(edge)),
        ]
        with self.process.edges.watching(edge):
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        stream.close()

    async def _pings(self, edge: str) -> None:
        while True:
            await asyncio.sleep(PING)
            try:
                await self.world.network.call(edge, lambda: None, PING / 2)
            except Lost:
                return


class ControlPort:
    """One edge's way to the control plane, as over HTTP."""

    def __init__(self, edge: FleetEdge, network: Network, plane: Plane) -> None:
        self._edge = edge
        self._network = network
        self._plane = plane
        self.failed_at = float("-inf")
        """When a look-up last failed."""
        self.gone: dict[str, int] = {}
        """What the control plane said does not exist, and the newest version heard of before it was asked."""

    async def _call(self, work: Any, limit: float = CALL) -> Any:
        try:
            return await self._network.call("plane", work, limit)
        except Lost:
            self.failed_at = self._network.loop.time()
            raise Unavailable("no answer") from None

    async def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        heard = self._edge.heard[sandbox_id]  # what comes meanwhile may be younger than the answer
        found = await self._call(lambda: self._plane.sandbox(sandbox_id))
        if found is None:
            self.gone[sandbox_id] = heard
        return found

    async def grant(self, grant_id: str) -> GrantRecord | None:
        return await self._call(lambda: self._plane.grant(grant_id))

    async def resume(
        self, sandbox_id: str, paused_incarnation: int, reason: str, timeout: float
    ) -> SandboxRecord:
        return await self._call(lambda: self._plane.resume(sandbox_id, paused_incarnation), timeout)

    async def ack(self, sandbox_id: str, version: int, in_flight: int) -> None:
        edge = self._edge.name
        await self._call(
            lambda: self._plane.process.edges.ack(edge, sandbox_id, version, in_flight)
        )

    async def report(self, batch: object) -> None:
        raise AssertionError("the model reports no usage")

    async def close(self) -> None:
        """Nothing to let go of."""

    async def watch(self, cursor: int | None) -> AsyncIterator[WatchEvent]:
        network, edge = self._network, self._edge
        stream = Stream(network, "plane", edge.actor)
        await self._call(lambda: self._plane.open(stream, edge.name, cursor))
        try:
            while True:
                item = await stream.items.get()
                if item is None:
                    raise Unavailable("cut")
                sent, event = item
                if isinstance(event, Heartbeat):
                    edge.lag = max(edge.lag, network.loop.time() - sent)
                yield event
        finally:
            stream.close()


__all__ = ["ControlPort", "Plane", "Process", "Publisher"]
