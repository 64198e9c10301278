"""The control plane in trouble, cut off from Redis or from an edge, in the middle of a wake; and replicas that take over.

Everybody is answered, right, after one new incarnation; what runs is served all the while.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import pytest
from aiohttp import web

from edge.core.records import State, Upstream
from edge.state.redis import port
from tests.fleet.conftest import MakeFleet
from tests.fleet.stage import FleetStage
from tests.fleet.world import AWAY, EDGES, Tally, ask
from tests.flows.scripts import Call, Script, hang_up, refusal, resume
from tests.flows.stage import PORT, Preview, until
from tests.state.redis.sets import ClusterSet, SentinelSet, Set
from tests.state.redis.valkey import free_port

HERD = 30


class Wake:
    """A sandbox that is woken by many while another one is visited. ``gate`` holds the wake back, ``script`` answers it."""

    def __init__(self, fleet: FleetStage) -> None:
        self.fleet = fleet
        self.gate = asyncio.Event()
        self.script: Script = resume
        self.tally = Tally()
        self.asks: dict[str, list[asyncio.Task[None]]] = {name: [] for name in EDGES}
        self._over = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Back when the control plane has been asked, by the first edge, and the others wait."""
        fleet = self.fleet
        app = await fleet.app()
        running, self.box = fleet.sandbox(app), fleet.sandbox(app, State.PAUSED)
        assert await fleet.everywhere(running.get()) == [200] * len(EDGES)
        fleet.plane.on_resume = self._resume
        token = self.box.token()
        for number in range(HERD):
            name = EDGES[number % len(EDGES)]
            asked = ask(fleet, self.box, f"/{number}", (name,), self.tally, token)
            self.asks[name].append(asyncio.create_task(asked))
            if not number:
                await fleet.plane.called("resume")
        await until(lambda: fleet.waiting == HERD)
        self._visiting = asyncio.create_task(self._visit(running))
        return self

    async def __aexit__(self, *_: object) -> None:
        tasks = [self._visiting, *(one for asks in self.asks.values() for one in asks)]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    async def _resume(self, call: Call) -> web.StreamResponse:
        await self.gate.wait()
        return await self.script(call)

    async def _visit(self, box: Preview) -> None:
        token = box.token()
        for name in itertools.cycle(EDGES):
            if self._over.is_set():
                return
            await ask(self.fleet, box, f"/running/{self.tally.sent}", (name,), self.tally, token)
            await asyncio.sleep(0.02)

    async def answered(self, *names: str) -> None:
        """Everybody at these edges is."""
        await asyncio.gather(*(one for name in names or EDGES for one in self.asks[name]))

    async def end(self, what: str, began: float, report: list[str]) -> None:
        """Everybody is answered, and every edge follows Redis again; ``began`` is when all was mended."""
        await self.answered()
        await self.fleet.whole()
        healed = time.monotonic() - began
        self._over.set()
        await self._visiting
        tally, incarnations = self.tally, self.fleet.plane.incarnations[self.box.id]
        report.append(tally.line(what, incarnations, healed))
        assert tally.right == tally.sent and not tally.wrong and not tally.lost
        assert incarnations == 1


async def fails(_: Call) -> web.StreamResponse:
    """Something is broken there."""
    return refusal(500, "internal")


def flaps() -> Script:
    """Hangs up, fails, and does what it should, in turn."""
    turns = itertools.cycle((hang_up, fails, resume))

    async def answer(call: Call) -> web.StreamResponse:
        return await next(turns)(call)

    return answer


async def slow(call: Call) -> web.StreamResponse:
    """It does what it should, and takes its time."""
    await asyncio.sleep(AWAY)
    return await resume(call)


async def lies(call: Call) -> web.StreamResponse:
    """It runs, in a place where nobody is."""
    true = call.plane.upstreams[call.id]
    call.plane.upstreams[call.id] = Upstream("127.0.0.1", {PORT: free_port()})
    answer = await resume(call)
    call.plane.upstreams[call.id] = true
    return answer


@asynccontextmanager
async def trouble(wake: Wake, which: str) -> AsyncIterator[None]:
    """It is so in here; the wake's question is answered in here, too."""
    fleet, plane = wake.fleet, wake.fleet.plane
    match which:
        case "fails":
            wake.script = plane.fault = fails
            yield
            wake.script, plane.fault = resume, None
        case "flaps":
            wake.script = flaps()
            yield
            wake.script = resume
        case "is slow":
            wake.script = slow
            yield
            wake.script = resume
        case "restarts":
            await plane.stop()
            yield
            await plane.start()
        case "lies":
            wake.script = lies
            yield
            plane.change_sandbox(wake.box.id, upstream=plane.upstreams[wake.box.id])
        case _:
            fleet.links["plane"].cut()
            yield
            fleet.links["plane"].mend()


@pytest.mark.parametrize(
    "which", ["fails", "flaps", "is slow", "restarts", "lies", "is split from Redis"]
)
async def test_the_control_plane_in_the_middle_of_a_wake(
    make_fleet: MakeFleet, report: list[str], which: str
) -> None:
    """Whatever it does meanwhile: refused for now at worst, and right in the end."""
    fleet = await make_fleet(linked=which == "is split from Redis")
    async with Wake(fleet) as wake:
        async with trouble(wake, which):
            wake.gate.set()
            if which == "is split from Redis":
                await wake.answered()  # nobody waits for its end
            await asyncio.sleep(AWAY)
        await wake.end(f"control plane {which}, waking", time.monotonic(), report)


async def test_a_leader_that_is_cut_off(make_fleet: MakeFleet, report: list[str]) -> None:
    """From Redis and from the control plane: another edge asks; its own are answered when it is back."""
    fleet = await make_fleet(linked=True)
    async with Wake(fleet) as wake:
        for name in ("edge-1", "edge-1 to the control plane"):
            fleet.links[name].cut()
        cut = time.monotonic()
        await fleet.plane.called("resume", 2)
        replaced = time.monotonic() - cut
        wake.gate.set()
        await wake.answered("edge-2", "edge-3")
        for link in fleet.links.values():
            link.mend()
        what = f"leader cut off, replaced {replaced:.1f} s after"
        await wake.end(what, time.monotonic(), report)


@pytest.fixture(params=[SentinelSet, ClusterSet])
async def servers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Set]:
    """Servers with a replica, and somebody who promotes it."""
    async with request.param(tmp_path) as made:
        yield made


async def test_a_replica_takes_over_in_the_middle_of_a_wake(
    servers: Set, make_fleet: MakeFleet, report: list[str]
) -> None:
    """Redis' primary dies: nobody waits for its replica."""
    fleet = await make_fleet(servers=servers)
    async with Wake(fleet) as wake:
        died = time.monotonic()
        servers.primary.kill()
        wake.gate.set()
        await wake.answered()
        await servers.taken_over()
        await wake.end(f"{type(servers).__name__} fails over, waking", died, report)


async def test_others_hear_of_a_wake_at_once(
    make_fleet: MakeFleet, report: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the change, and not by looking: that would take a minute here, and end in a refusal."""
    monkeypatch.setattr(port, "LOOK", 60.0)
    fleet = await make_fleet()
    async with Wake(fleet) as wake:
        wake.gate.set()
        await wake.end("a wake, nobody looks", time.monotonic(), report)
        assert not wake.tally.refused and fleet.plane.counts["resume"] == 1
