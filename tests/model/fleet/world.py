"""One history of a fleet: the actors, the clients, what befalls them; judged by the functions of `invariants`."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from world import WAKE, Notes
from world import Edge as LoneEdge

from edge.core.records import GrantRecord, SandboxRecord
from edge.core.settings import AdmissionSettings
from edge.state.redis import Publisher, RedisStatePort
from edge.wake.admission import Admission
from edge.wake.barrier import Barrier
from edge.wake.catalog import Catalog
from edge.wake.scope import Scope
from edge.wake.wakes import Wakes
from tests.model.fleet import invariants
from tests.model.fleet.actors import Actor, ActorLoop
from tests.model.fleet.control import SETTINGS, ControlPort, Plane
from tests.model.fleet.invariants import CATALOG
from tests.model.fleet.network import CALM, Network, Stream, Weather
from tests.model.fleet.servers import SERVERS, Servers

BOXES = (("sb_a", "g_a"), ("sb_b", "g_b"))


@dataclass(frozen=True)
class Parts:
    """Which classes a history is made of; a mutant swaps one."""

    plane: type[Plane] = Plane
    port: type[RedisStatePort] = RedisStatePort
    publisher: type[Publisher] = Publisher
    catalog: type[Catalog] = Catalog
    wakes: type[Wakes] = Wakes
    admission: type[Admission] = Admission
    barrier: type[Barrier] = Barrier


class FleetEdge(LoneEdge):
    """One edge of the fleet: what an edge is made of behind its sockets."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.lag = 0.0
        """The longest a heartbeat of the control plane's own was under way."""
        self.actor = world.network.actors[name] = Actor(world.loop, name)
        self.actor.context.run(world.servers_here)
        self.gaps: list[float] = []
        self.running_at: dict[str, float] = {}
        self.heard: Counter[str] = Counter()
        self.in_flight: Counter[str] = Counter()
        self.notes = Notes()
        self.up = asyncio.Event()
        self.started_at = world.loop.time()
        self.actor.start(self._boot(), name)

    async def _boot(self) -> None:
        world, parts, clock = self.world, self.world.parts, self.world.loop.time
        self.control = ControlPort(self, world.network, world.plane)
        self.scope = Scope(lambda task, error: self.notes.crashes.append((task, error)))
        self.port = parts.port(SETTINGS, self.control, self.name, clock=clock, note=world.note)
        self.catalog = parts.catalog(self.port, CATALOG, clock=clock, observer=self.notes)
        self.catalog._watch._random = world.rng
        self.admission = parts.admission(AdmissionSettings(), WAKE, clock=clock)
        self.wakes = parts.wakes(
            self.port, self.catalog, WAKE, spend_wake=self.admission.spend_wake, scope=self.scope,
            clock=clock, observer=self.notes, rng=world.rng,
        )  # fmt: skip
        self.barrier = parts.barrier(
            self.port, self.catalog, self.admission, scope=self.scope, observer=self.notes,
            rng=world.rng,
        )  # fmt: skip
        self.catalog.listen(self._hear)
        self.scope.spawn(self.catalog.run(), name="watch")
        self.up.set()

    async def request(self, sandbox_id: str, grant_id: str) -> str:
        await self.up.wait()
        return await super().request(sandbox_id, grant_id)

    def _judge(self, grant: GrantRecord, record: SandboxRecord) -> None:
        for judge in invariants.OF_SERVED:
            for complaint in judge(self, grant, record):
                self.world.complain(judge.__name__, complaint)


@dataclass
class Client:
    """Somebody who asked, and how it ended."""

    edge: FleetEdge
    sandbox_id: str
    asked_at: float
    task: asyncio.Task[str]


@dataclass
class World:
    """A history and what is wrong with it."""

    loop: ActorLoop
    seed: int
    weather: Weather = CALM
    parts: Parts = field(default_factory=Parts)
    edge_count: int = 2
    refusing: float = 0.0
    resuming: tuple[float, float] = (0.05, 0.4)
    """Seconds a resume takes, at least and at most."""
    complaints: list[str] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    answered: dict[int, float] = field(default_factory=dict)
    """Seconds after which each client had its answer."""
    steps: dict[str, int] = field(default_factory=dict)
    """Of each actor, in a short history."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        random.seed(self.seed)  # some of the adapter's jitter
        self.network = Network(self.loop, self.rng, self.weather)
        self.servers = Servers(self.network, self.complain)
        self.redis = self.network.actors["redis-0"] = Actor(self.loop, "redis-0")
        self.streams: list[Stream] = []
        self.events: list[str] = []
        self.troubled = False
        self.clients: list[Client] = []
        self.plane = self.parts.plane(self)
        self.plane.start()
        self.edges = [FleetEdge(self, f"edge-{i}") for i in range(self.edge_count)]

    def servers_here(self) -> None:
        """For the context of an actor."""
        SERVERS.set(self.servers)

    def complain(self, invariant: str, text: str) -> None:
        """An invariant does not hold."""
        self.complaints.append(f"{invariant}: seed {self.seed} at {self.loop.time():.3f}: {text}")

    def note(self, event: str, **_: object) -> None:
        """What an operator would read."""
        self.events.append(event)

    def paused_by_barrier(self, sandbox_id: str) -> None:
        """The control plane is about to freeze a sandbox that it thinks idle."""
        for complaint in invariants.a_barrier_cuts_nothing(self, sandbox_id):
            self.complain("a_barrier_cuts_nothing", complaint)

    # --- What happens -----------------------------------------------------------------------------

    def client(self, sandbox_id: str, grant_id: str, edge: FleetEdge | None = None) -> Client:
        """Somebody asks one of the edges, or one that lives."""
        alive = [one for one in self.edges if not one.actor.dead]
        edge = edge or self.rng.choice(alive or self.edges)
        task = edge.actor.start(edge.request(sandbox_id, grant_id), "client")
        client = Client(edge, sandbox_id, self.loop.time(), task)
        self.clients.append(client)
        task.add_done_callback(
            lambda _: self.answered.setdefault(id(client), self.loop.time() - client.asked_at)
        )
        return client

    def order(self, work: Callable[[], Any]) -> None:
        """Have the control plane do something, when it is there."""

        async def run() -> None:
            result = work()
            if asyncio.iscoroutine(result):
                await result

        if not self.plane.actor.dead:
            self.plane.actor.start(run(), "order")

    def stop(self, actor: Actor, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so many seconds."""
        if not (actor.dead or actor.stopped):
            self.troubled = True
            actor.stop()
            self.loop.later(seconds, lambda: actor.dead or actor.go_on())

    def kill_edge(self, edge: FleetEdge, back_after: float = 1.0) -> None:
        """SIGKILL; a new one of the same name comes after so many seconds."""
        if edge.actor.dead:
            return
        self.troubled = True
        self._kill(edge.actor)

        def back() -> None:
            self.edges[self.edges.index(edge)] = FleetEdge(self, edge.name)

        self.loop.later(back_after, back)

    def kill_plane(self, back_after: float = 1.0) -> None:
        """SIGKILL, and another start with what is on disk."""
        if not self.plane.actor.dead:
            self.troubled = True
            self._kill(self.plane.actor)
            self.loop.later(back_after, self.plane.start)

    def _kill(self, actor: Actor) -> None:
        actor.kill()
        self.network.reset(actor.name)
        for stream in self.streams:
            if actor in (stream._receiver, self.plane.actor):
                stream.close()

    def cut_off(self, one: str, other: str, seconds: float) -> None:
        """Nothing gets through between these two for so long."""
        self.troubled = True
        pair = frozenset((one, other))
        for name in pair:
            self.network.actors[name].disturbed_at = self.loop.time()
        self.network.apart.add(pair)

        def heal() -> None:
            self.network.apart.discard(pair)
            for name in pair:
                self.network.actors[name].disturbed_at = self.loop.time()

        self.loop.later(seconds, heal)

    def flush(self) -> None:
        """Somebody types FLUSHALL."""
        self.troubled = True
        self.servers.primary.store.flush()

    def trim(self, times: int = 40) -> None:
        """For a while changes are dropped as soon as they are written."""
        self.troubled = True
        if times:
            self.loop.later(0.01, self.trim, times - 1)
        for value in self.servers.primary.store.keys.values():
            if isinstance(value, list):
                del value[:-1]

    def fail_over(self, lag: float, *, old_lives: bool) -> None:
        """A replica that is behind becomes the primary."""
        self.troubled = True
        old = self.servers.primary
        name = f"redis-{len(self.servers.by_name)}"
        store = old.store.replica(name)

        def promote() -> None:
            self.redis = self.network.actors[name] = Actor(self.loop, name)
            self.servers.replace(name, store)
            old_actor = self.network.actors[old.name]
            if old_lives:
                self.loop.later(3.0, old_actor.kill)
            else:
                self._kill(old_actor)

        self.loop.later(lag, promote)

    # --- The end ----------------------------------------------------------------------------------

    async def finish(self) -> None:
        """Wait for every client, let everything heal, and ask the invariants of the end."""
        deadline = self.loop.time() + WAKE.window + 25.0
        waiting = {client.task for client in self.clients}
        while waiting and self.loop.time() < deadline:
            waiting = {
                client.task
                for client in self.clients
                if not client.task.done() and not client.edge.actor.dead
            }
            await asyncio.sleep(0.5)
        for client in self.clients:
            self.outcomes[outcome(client)] += 1
        for judge in invariants.AT_THE_END:
            for complaint in judge(self):
                self.complain(judge.__name__, complaint)

    async def heal(self, patience: float = 20.0) -> None:
        """In fair weather everybody gets well by itself, and says so by serving."""
        self.network.weather = CALM
        self.refusing = 0.0
        deadline = self.loop.time() + patience
        missing: list[str] = []
        while self.loop.time() < deadline:
            await asyncio.sleep(1.0)
            probes = [
                self.client(*names, edge)
                for edge in self.edges
                if not edge.actor.dead
                for names in BOXES
            ]
            await asyncio.wait([probe.task for probe in probes], timeout=WAKE.window + 1.0)
            fresh = all(edge.catalog.heartbeat_age() < CATALOG.fresh for edge in self.edges)
            missing = [
                f"{probe.edge.name} says {outcome(probe)} of {probe.sandbox_id}"
                for probe in probes
                if outcome(probe) != invariants.expected(self, probe.sandbox_id)
            ]
            if fresh and not missing:
                return
        self.complain("everything_heals", f"after {patience} s: {missing or 'not fresh'}")


def outcome(client: Client) -> str:
    """How a client was answered."""
    task = client.task
    if not task.done():
        return "cut" if client.edge.actor.dead else "unanswered"
    if task.cancelled():
        return "left"
    error = task.exception()
    return f"crashed {error!r}" if error is not None else task.result()


async def settled(world: World) -> None:
    """Everybody has started and is caught up."""
    world.order(lambda: [world.plane.create(*names) for names in BOXES])
    async with asyncio.timeout(30):
        while True:
            await asyncio.sleep(0.1)
            if all(
                edge.up.is_set() and edge.catalog.heartbeat_age() < CATALOG.fresh
                for edge in world.edges
            ):
                return
