"""The stages: everybody starts, edges learn, requests to what runs, wakes at once, wakes at a rate, memory."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Any

from bench.fleet import law, memory, world
from bench.fleet.clients import Clients
from bench.fleet.valkey import Valkey, difference
from bench.fleet.world import FleetWorld, Sizes, Visit
from bench.machine import describe, rss_of_tree
from bench.processes import BenchError, Crew, Started, python
from bench.stats import percentile

SETTLE = 0.4
"""Seconds after a stage in which those who looked on at a wake notice that it is over; `law.LOOK` and then some."""
PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class Measured:
    """A stage, what the server counted meanwhile, and how long answers took."""

    stage: law.Stage
    calls: dict[str, int]
    p50: float
    p99: float
    redis_cpu: float
    broken: list[str]


@dataclass
class Outcome:
    """All that was measured."""

    machine: dict[str, str]
    sizes: Sizes
    publishing: float = 0.0
    redis_per_record: float = 0.0
    records: int = 0
    stages: list[Measured] = field(default_factory=list)
    footprints: list[memory.Footprint] = field(default_factory=list)
    went_on: list[float] = field(default_factory=list)
    """Seconds from the control plane's word that a sandbox runs to the app's getting what had waited, ascending."""
    last_went_on: list[float] = field(default_factory=list)
    """The same, of each wake only the last."""
    plane: dict[str, Any] = field(default_factory=dict)

    @property
    def broken(self) -> list[str]:
        """The laws that do not hold, by stage."""
        return [f"{one.stage.name}: {law}" for one in self.stages for law in one.broken]


@dataclass
class Fleet:
    """What runs."""

    there: FleetWorld
    sizes: Sizes
    valkey: Valkey
    clients: Clients
    plane: str
    processes: list[tuple[Started, str]]
    ports: list[list[int]]

    @property
    def all_ports(self) -> list[int]:
        return [port for ports in self.ports for port in ports]

    async def asked(self) -> Counter[str]:
        """What the control plane was asked for, and how many sandboxes have got a new incarnation."""
        said = await self.clients.json(f"{self.plane}/bench/calls")
        return Counter({name: int(str(count)) for name, count in said.items()})

    @asynccontextmanager
    async def measured(self, stage: law.Stage, outcome: Outcome) -> AsyncIterator[list[float]]:
        """Count what the server does meanwhile; the block adds the seconds its answers took."""
        times: list[float] = []
        calls = await self.asked()
        cpu, before, began = self.valkey.cpu(), self.valkey.calls(), time.monotonic()
        yield times
        await asyncio.sleep(SETTLE)
        after, seconds = self.valkey.calls(), time.monotonic() - began
        went = difference(before, after)
        # The look before is among them; those of heartbeats are counted by what they write.
        went["info"] = went.get("info", 0) - 1
        times.sort()
        since = await self.asked()
        since.subtract(calls)
        done = replace(
            stage,
            seconds=seconds,
            resume_calls=since["resume"],
            asked_directly=since["sandboxes"] + since["grants"],
            longest=times[-1] if times else 0.0,
        )
        broken = law.broken(done, went)
        if since["resumed"] != stage.wakes:
            broken.append(f"{since['resumed']} incarnations of {stage.wakes} wakes")
        p50, p99 = percentile(times, 50), percentile(times, 99)
        outcome.stages.append(Measured(done, went, p50, p99, self.valkey.cpu() - cpu, broken))


async def run(crew: Crew, sizes: Sizes, tell: Callable[[str], None]) -> Outcome:
    """Everything. Raises `BenchError` when it cannot go on."""
    outcome = Outcome(describe(), sizes)
    async with Clients() as clients:
        tell("starting")
        fleet, settings = await _start(crew, sizes, clients, outcome, tell)
        try:
            tell("learning")
            await _learn(fleet, outcome)
            tell("requests")
            await _requests(fleet, outcome)
            tell("a burst of wakes")
            await _burst(fleet, outcome)
            tell("who waits goes on")
            await _waited_for(fleet, outcome)
            tell("wakes at a rate")
            await _paced(fleet, outcome)
            outcome.plane = await clients.json(f"{fleet.plane}/bench/calls")
            for process, _ in fleet.processes:
                process.stop()
            tell("memory")
            outcome.footprints += await memory.measure(crew, settings, fleet.there, sizes, clients)
        finally:
            fleet.valkey.close()
    return outcome


async def _start(
    crew: Crew, sizes: Sizes, clients: Clients, outcome: Outcome, tell: Callable[[str], None]
) -> tuple[Fleet, Path]:
    app_port = int(crew.start("upstream", python("bench.upstream"), None).said()["port"])
    there = world.build(app_port, sizes)
    file = crew.directory / "world.json"
    file.write_text(there.world.for_control_plane())
    valkey = Valkey(crew)
    memory_before, began = valkey.memory(), time.monotonic()
    tell("publishing")
    command = python("bench.fleet.plane", str(file), valkey.url)
    plane_port = int(crew.start("control-plane", command, None).said()["port"])
    read_at = time.monotonic()
    while not valkey.beaten():
        if time.monotonic() - began > PATIENCE:
            raise BenchError("the control plane does not get everything published")
        await asyncio.sleep(0.05)
    outcome.publishing = time.monotonic() - read_at
    outcome.records = len(there.world.sandboxes) + len(there.world.grants)
    outcome.redis_per_record = (valkey.memory() - memory_before) / outcome.records
    settings = crew.directory / "edge.toml"
    log = crew.directory / "access.log"
    settings.write_text(world.settings(there.world, plane_port, valkey.url, log))
    tell("starting edges")
    each = sizes.edges // sizes.processes
    processes = [
        crew.start(
            f"edges-{n}",
            python("bench.fleet.edges", str(settings), f"edges-{n}", str(each)),
            None,
        )
        for n in range(sizes.processes)
    ]
    said = [process.said() for process in processes]
    fleet = Fleet(
        there=there,
        sizes=sizes,
        valkey=valkey,
        clients=clients,
        plane=f"http://127.0.0.1:{plane_port}",
        processes=[
            (process, f"http://127.0.0.1:{told['port']}")
            for process, told in zip(processes, said, strict=True)
        ],
        ports=[told["ports"] for told in said],
    )
    return fleet, settings


async def _learn(fleet: Fleet, outcome: Outcome) -> None:
    """Every edge looks up its share of all sandboxes, as first requests would have it do."""
    known, edges = fleet.there.known, fleet.sizes.edges
    shares = [known[number::edges] for number in range(edges)]
    before = sum(rss_of_tree(process.pid) for process, _ in fleet.processes)
    stage = law.Stage("sandboxes looked up", 0, edges, cold=len(known))
    async with fleet.measured(stage, outcome):
        taken = 0
        calls = []
        for (_, url), ports in zip(fleet.processes, fleet.ports, strict=True):
            part = shares[taken : taken + len(ports)]
            taken += len(ports)
            calls.append(fleet.clients.json(f"{url}/know", {"ids": part}))
        await asyncio.gather(*calls)
    after = sum(rss_of_tree(process.pid) for process, _ in fleet.processes)
    outcome.footprints.append(memory.Footprint("sandbox known", len(known), after - before))


async def _requests(fleet: Fleet, outcome: Outcome) -> None:
    """Requests to what runs and is known to every edge."""
    ports, visit, count = fleet.all_ports, fleet.there.running, fleet.sizes.requests
    for port in ports:
        await fleet.clients.ask(port, visit)
    asked = [(port, visit) for port, _ in zip(cycle(ports), range(count), strict=False)]
    stage = law.Stage("requests to what runs", 0, len(ports), requests=count)
    async with fleet.measured(stage, outcome) as times:
        times.extend(await fleet.clients.in_turn(asked, 32))


async def _burst(fleet: Fleet, outcome: Outcome) -> None:
    """All at once, each through one edge; then some, each through several at the same time."""
    sizes, sleeping = fleet.sizes, fleet.there.sleeping
    await _at_once(fleet, outcome, "wakes at once", sleeping[: sizes.burst], 1)
    shared = sleeping[sizes.burst : sizes.burst + sizes.shared]
    await _at_once(fleet, outcome, f"the same at {sizes.asking} edges", shared, sizes.asking)


async def _at_once(
    fleet: Fleet, outcome: Outcome, name: str, visits: list[Visit], asking: int
) -> None:
    async with fleet.measured(_wakes(name, fleet, len(visits), asking), outcome) as times:
        answers = await asyncio.gather(
            *(fleet.clients.wake(_some(fleet, n, asking), one) for n, one in enumerate(visits))
        )
        times.extend(one for answer in answers for one in answer)


async def _waited_for(fleet: Fleet, outcome: Outcome) -> None:
    """One wake after the other, each at several edges: when those who waited are with the app, once it is known to run."""
    sizes, clients = fleet.sizes, fleet.clients
    arrived: dict[str, list[int]] = {}
    stage = _wakes(f"{sizes.asking} edges wait, in turn", fleet, sizes.waited_for, sizes.asking)
    async with fleet.measured(stage, outcome) as times:
        for number, visit in enumerate(fleet.there.late):
            ports = _some(fleet, number, sizes.asking)
            taken, arrived[visit.sandbox_id] = await clients.arrive(ports, visit)
            times.extend(taken)
    running = await clients.json(f"{fleet.plane}/bench/running")
    for sandbox_id, when in arrived.items():
        began = int(str(running[sandbox_id]))
        outcome.went_on += [(one - began) / 1e9 for one in when]
        outcome.last_went_on.append((max(when) - began) / 1e9)
    outcome.went_on.sort()
    outcome.last_went_on.sort()


async def _paced(fleet: Fleet, outcome: Outcome) -> None:
    """One after the other by the clock, whether or not those before are awake, each through one edge."""
    before, rate = fleet.sizes.burst + fleet.sizes.shared, fleet.sizes.rate
    visits = fleet.there.sleeping[before:]
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def later(number: int, visit: Visit) -> float:
        await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
        (taken,) = await fleet.clients.wake(_some(fleet, number, 1), visit)
        return taken

    name = f"{rate:g} wakes a second"
    async with fleet.measured(_wakes(name, fleet, len(visits), 1), outcome) as times:
        began = loop.time()
        times.extend(await asyncio.gather(*(later(n, one) for n, one in enumerate(visits))))


def _wakes(name: str, fleet: Fleet, count: int, asking: int) -> law.Stage:
    # Each of the edges asked meets the sandbox and its grant for the first time.
    return law.Stage(
        name, 0, fleet.sizes.edges, requests=count * asking, wakes=count, asking=asking,
        cold=2 * count * asking,
    )  # fmt: skip


def _some(fleet: Fleet, number: int, asking: int) -> list[int]:
    ports = fleet.all_ports
    return [ports[(number * asking + n) % len(ports)] for n in range(asking)]
