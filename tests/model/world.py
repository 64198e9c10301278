"""One history: edges, clients and a control plane in virtual time, and the invariants as code."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, field
from typing import Any

from plane import CALM, Faults, Plane, PlanePort
from virtual import VirtualLoop

from edge.core.errors import EdgeError
from edge.core.records import GrantRecord, GrantStatus, Missing, SandboxRecord, State
from edge.core.reports import ExchangeReport, WakeReport
from edge.core.settings import AdmissionSettings, CatalogSettings, WakeSettings
from edge.state.port import Unavailable
from edge.wake.admission import Admission
from edge.wake.barrier import Barrier
from edge.wake.catalog import Catalog
from edge.wake.scope import Scope
from edge.wake.trust import ASK_INTERVAL, Trust
from edge.wake.wakes import Wakes

CATALOG = CatalogSettings(fresh=1.0, stale_after=2.0, stale_limit=4.0, absent_ttl=0.5)
WAKE = WakeSettings(window=4.0, failure_memory=0.3, budget_per_hour=0)
SERVED = "served"
UNTROUBLED = (SERVED, "preview_grant_revoked", "sandbox_not_found")
"""How clients may be answered while nothing goes wrong."""


@dataclass(frozen=True)
class Parts:
    """Which classes a history is made of; a mutant swaps one."""

    plane: type[Plane] = Plane
    catalog: type[Catalog] = Catalog
    wakes: type[Wakes] = Wakes
    admission: type[Admission] = Admission


class Notes:
    """An observer that keeps what it hears."""

    def __init__(self) -> None:
        self.wakes: list[WakeReport] = []
        self.crashes: list[object] = []

    def exchange(self, report: ExchangeReport) -> None:
        raise AssertionError("the model has no exchanges")

    def wake(self, report: WakeReport) -> None:
        self.wakes.append(report)

    def dialed(self, outcome: str) -> None:
        raise AssertionError("the model dials nobody")

    def event(self, name: str, **fields: object) -> None:
        if name == "crash":
            self.crashes.append(fields)


class Edge:
    """One edge without its sockets: what `flow` does with catalog, wakes and admission."""

    def __init__(self, world: World, name: str) -> None:
        loop, rng, parts = world.loop, world.rng, world.parts
        self.world = world
        self.notes = Notes()
        self.port = PlanePort(world.plane, name)
        self.scope = Scope(lambda task, error: self.notes.crashes.append((task, error)))
        self.catalog = parts.catalog(self.port, CATALOG, clock=loop.time, observer=self.notes)
        self.admission = parts.admission(AdmissionSettings(), WAKE, clock=loop.time)
        self.wakes = parts.wakes(
            self.port,
            self.catalog,
            WAKE,
            spend_wake=self.admission.spend_wake,
            scope=self.scope,
            clock=loop.time,
            observer=self.notes,
            rng=rng,
        )
        self.barrier = Barrier(
            self.port, self.catalog, self.admission, scope=self.scope, observer=self.notes, rng=rng
        )
        self.gaps: list[float] = []
        self.running_at: dict[str, float] = {}
        self.heard: Counter[str] = Counter()
        self.in_flight: Counter[str] = Counter()
        self.catalog.listen(self._hear)
        self.scope.spawn(self.catalog.run(), name="watch")

    def _hear(self, record: SandboxRecord | GrantRecord) -> None:
        self.heard[record.id] = max(self.heard[record.id], record.version)
        if isinstance(record, SandboxRecord) and record.state is State.RUNNING:
            self.running_at[record.id] = self.world.loop.time()

    async def request(self, sandbox_id: str, grant_id: str) -> str:
        """One client: how it was answered."""
        deadline = self.world.loop.time() + WAKE.window
        try:
            while True:
                match self.catalog.grant(grant_id), self.catalog.sandbox(sandbox_id):
                    case Missing.ABSENT, _:
                        return "preview_grant_invalid"
                    case (Missing.LOST, _) | (_, Missing.LOST):
                        return "control_plane_unavailable"
                    case Missing.UNKNOWN, _:
                        await self.catalog.look_up_grant(grant_id)
                    case _, Missing.UNKNOWN:
                        await self.catalog.look_up_sandbox(sandbox_id)
                    case _, Missing.ABSENT:
                        return "sandbox_not_found"
                    case GrantRecord(status=status), _ if status is not GrantStatus.ACTIVE:
                        return "preview_grant_revoked"
                    case GrantRecord() as grant, SandboxRecord(state=State.RUNNING) as record:
                        return await self._serve(grant, record)
                    case _, SandboxRecord(state=State.DESTROYED):
                        return "sandbox_not_found"
                    case _, SandboxRecord() as record:
                        await self._settle(record, grant_id, deadline)
        except EdgeError as e:
            return e.problem.code
        except Unavailable:
            return "control_plane_unavailable"

    async def _settle(self, record: SandboxRecord, grant_id: str, deadline: float) -> None:
        assert self.admission.park(record.id, grant_id)
        try:
            await self.wakes.settle(record, grant_id=grant_id, woken_by="GET /", deadline=deadline)
            known = self.catalog.sandbox(record.id)
            awake = isinstance(known, SandboxRecord) and known.state is State.RUNNING
            if awake and record.id in self.running_at:
                self.gaps.append(self.world.loop.time() - self.running_at[record.id])
        finally:
            self.admission.unpark(record.id, grant_id)

    async def _serve(self, grant: GrantRecord, record: SandboxRecord) -> str:
        self._judge(grant, record)
        assert self.admission.enter(record.id)
        self.in_flight[record.id] += 1
        try:
            await asyncio.sleep(self.world.rng.uniform(0.0, 0.3))
        finally:
            self.in_flight[record.id] -= 1
            self.admission.leave(record.id)
        return SERVED

    def _judge(self, grant: GrantRecord, record: SandboxRecord) -> None:
        """Nobody is served on what is known, or must be known, to be over."""
        world = self.world
        for served in (grant, record):
            if served.version < self.heard[served.id]:
                world.complain(
                    f"served {served.id} v{served.version} after v{self.heard[served.id]}"
                )
        for key in (grant.id, record.id):
            ended = world.plane.ended_at.get(key)
            if ended is not None:
                self._judge_ended(key, ended)

    def _judge_ended(self, key: str, ended: float) -> None:
        world, port = self.world, self.port
        late = world.loop.time() - ended
        round_trip = 3.1 if world.plane.faults.slow else 0.1
        lag = port.lag + round_trip
        if late > CATALOG.stale_limit + ASK_INTERVAL + lag:
            world.complain(f"{key} served {late:.2f} s after its end, past the stale limit")
        if port.failed_at > ended:
            return  # an answer was missing, so the old one may stand up to the stale limit
        if port.proved_at > ended:
            world.complain(f"{key} served although a heartbeat proved that its end was told")
        bounded = self.catalog.trust() in (Trust.FRESH, Trust.SUSPECT)
        if key in world.plane.grants and bounded and late > CATALOG.fresh + ASK_INTERVAL + lag:
            world.complain(f"{key} served {late:.2f} s after its end, with the control plane there")

    async def close(self) -> None:
        await self.scope.close()
        await self.catalog.close()


@dataclass
class World:
    """A history and what is wrong with it."""

    loop: VirtualLoop
    seed: int
    faults: Faults = CALM
    parts: Parts = field(default_factory=Parts)
    edge_count: int = 1
    complaints: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.plane = self.parts.plane(self.rng, self.faults, self.loop.time)
        self.edges = [Edge(self, f"edge-{i}") for i in range(self.edge_count)]
        self.plane.on_paused = self._barrier_let_through
        self.clients: list[asyncio.Task[str]] = []
        self.jobs: list[asyncio.Task[None]] = []
        self.asked = 0

    def complain(self, text: str) -> None:
        self.complaints.append(f"seed {self.seed} at {self.loop.time():.3f}: {text}")

    def _barrier_let_through(self, sandbox_id: str) -> None:
        for edge in self.edges:
            if edge.in_flight[sandbox_id]:
                self.complain(f"paused {sandbox_id} under {edge.in_flight[sandbox_id]} exchanges")

    def client(self, sandbox_id: str, grant_id: str, edge: Edge | None = None) -> asyncio.Task[str]:
        """Start one client on one of the edges."""
        edge = edge or self.rng.choice(self.edges)
        return self.start(edge.request(sandbox_id, grant_id))

    def start(self, request: Coroutine[Any, Any, str]) -> asyncio.Task[str]:
        """Start one client."""
        task = self.loop.create_task(request, name="client")
        self.clients.append(task)
        self.asked += 1
        return task

    def one_leaves(self) -> None:
        """Some client goes away, wherever it is."""
        if self.clients:
            self.rng.choice(self.clients).cancel()

    async def finish(self, allowed: Callable[[str], bool]) -> None:
        """Wait for every client, close everything and check what must hold at the end."""
        slack = WAKE.window + 8.0
        _, unanswered = await asyncio.wait(self.clients, timeout=slack)
        for task in unanswered:
            self.complain("a client was not answered")
            task.cancel()
        for task in self.clients:
            if task.cancelled() or task in unanswered:
                self.outcomes["left"] += 1
            elif (error := task.exception()) is not None:
                self.complain(f"a client met {error!r}")
            else:
                self.outcomes[task.result()] += 1
        wrong = [code for code in self.outcomes if code != "left" and not allowed(code)]
        if wrong:
            self.complain(f"answers {wrong} of {dict(self.outcomes)}")
        await asyncio.sleep(3.0)  # resumes that nobody waits for come to their end
        for edge in self.edges:
            self._check_idle(edge)
            await edge.close()
        self._check_incarnations()

    def _check_idle(self, edge: Edge) -> None:
        counts = edge.admission.counts()
        if any(counts.values()) or edge.wakes.waiting() or edge.catalog._signals:
            self.complain(f"not idle at the end: {counts}, {edge.catalog._signals}")
        if edge.notes.crashes:
            self.complain(f"crashed: {edge.notes.crashes}")

    def _check_incarnations(self) -> None:
        plane = self.plane
        for (sandbox_id, incarnation), count in plane.launches.items():
            if count != 1:
                self.complain(f"{sandbox_id}: {count} launches from incarnation {incarnation}")
        for sandbox_id, record in plane.sandboxes.items():
            if record.incarnation > 1 + plane.pauses[sandbox_id]:
                self.complain(f"{sandbox_id}: incarnation {record.incarnation} is one too many")


async def turmoil(world: World, *, duration: float = 6.0, blackout: float = 0.0) -> None:
    """Random clients, pauses, departures, a revocation, a destruction, and maybe silence for a while."""
    rng, plane = world.rng, world.plane
    names = [("sb_a", "g_a"), ("sb_b", "g_b")]
    for sandbox_id, grant_id in names:
        await plane.create(sandbox_id, grant_id)
    jobs: list[asyncio.Task[None]] = []

    def later(at: float, job: Callable[[], Any]) -> None:
        async def wait_and_do() -> None:
            await asyncio.sleep(at)
            result = job()
            if asyncio.iscoroutine(result):
                await result

        jobs.append(world.loop.create_task(wait_and_do(), name="job"))

    for sandbox_id, grant_id in names:
        for _ in range(rng.randint(2, 4)):
            barrier = rng.random() < 0.6
            at = rng.uniform(0.1, duration)
            later(at, lambda s=sandbox_id, b=barrier: plane.pause(s, barrier=b))
            for _ in range(rng.randint(2, 5)):
                close = max(0.0, at + rng.gauss(0.2, 0.4))
                later(close, lambda s=sandbox_id, g=grant_id: world.client(s, g))
        for _ in range(3):
            at = rng.uniform(0, duration + blackout)
            later(at, lambda s=sandbox_id, g=grant_id: world.client(s, g))
    for _ in range(rng.randint(0, 6)):
        later(rng.uniform(0.2, duration), world.one_leaves)
    if rng.random() < 0.6:
        later(rng.uniform(0.5, duration), lambda: plane.revoke("g_b"))
    if rng.random() < 0.2:
        later(rng.uniform(0.5, duration), lambda: plane.destroy("sb_b"))
    if blackout:
        starts = rng.uniform(0.0, duration / 2)
        later(starts, lambda: plane.go_silent(blackout))
    await asyncio.wait(jobs)
    calm = world.faults == CALM and not blackout
    await world.finish(lambda code: not calm or code in UNTROUBLED)


async def herd(world: World, *, dies_at: int, size: int = 5) -> bool:
    """A sleeping sandbox and many clients at once; the first leaves at its ``dies_at``-th wait.

    The answer is whether it got so far. Nothing else goes wrong, so everybody else is to be served, by
    one resume an edge and one launch in all, in the very instant in which the sandbox is known to run.
    """
    plane, edge = world.plane, world.edges[0]
    await plane.create("sb_a", "g_a")
    await asyncio.sleep(1.0)
    if world.seed % 2:
        await edge.catalog.look_up_sandbox("sb_a")
        await edge.catalog.look_up_grant("g_a")
    if world.seed % 3:
        await plane.pause("sb_a", barrier=False)
    else:
        world.jobs.append(world.loop.create_task(plane.pause("sb_a", barrier=False)))
    first = DyingAt(edge.request("sb_a", "g_a"), dies_at)
    world.start(first.run())
    for i in range(size - 1):
        world.client("sb_a", "g_a", world.edges[i % len(world.edges)])
    await world.finish(lambda code: code == SERVED)
    for busy in world.edges:
        if any(gap > 0.0 for gap in busy.gaps):
            world.complain(f"seconds between awake and served: {busy.gaps}")
    calls = plane.resume_calls["sb_a", 1]
    if plane.pauses["sb_a"] and not 1 <= calls <= len(world.edges):
        world.complain(f"{calls} resumes asked for by {len(world.edges)} edges")
    return first.died


class DyingAt:
    """Runs a request whose task is cancelled the moment it waits for the ``step``-th time."""

    def __init__(self, request: Coroutine[Any, Any, str], step: int) -> None:
        self.request = request
        self.step = step
        self.died = False

    async def run(self) -> str:
        """The client to start."""
        return await self

    def __await__(self) -> Generator[Any, Any, str]:
        inner = self.request.__await__()
        error: BaseException | None = None
        count = 0
        while True:
            try:
                waited_for = inner.throw(error) if error is not None else next(inner)
            except StopIteration as done:
                return str(done.value)
            if count == self.step:
                self.died = True
                task = asyncio.current_task()
                assert task is not None
                # The cancellation arrives at the very next turn of the loop, wherever this waits.
                asyncio.get_running_loop().call_soon(task.cancel)
            count += 1
            try:
                yield waited_for
                error = None
            except BaseException as e:  # noqa: BLE001 - it is passed on to the request
                error = e
