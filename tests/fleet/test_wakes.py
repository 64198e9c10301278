"""Wakes of a fleet: whoever leads, however late, and whatever its clock says, one new incarnation comes of it."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiohttp import web

from edge.core.records import State
from edge.state.redis.layout import Layout
from tests.fleet.conftest import MakeFleet
from tests.fleet.stage import FleetStage
from tests.flows.scripts import Call, after, refuse, resume
from tests.flows.stage import until
from tests.state.redis.valkey import Valkey


async def test_a_late_leader_changes_nothing(fleet: FleetStage, redis: Valkey) -> None:
    """Its call arrives after another edge has woken the sandbox, and after that was paused again: it stays paused."""
    box = fleet.sandbox(await fleet.app(), State.PAUSED)
    late = asyncio.Event()

    async def held(call: Call) -> web.StreamResponse:
        fleet.plane.on_resume = resume
        await late.wait()
        return await resume(call)

    fleet.plane.on_resume = held
    leading = asyncio.create_task(fleet.at(fleet.edges[0], box.get("/leader")))
    await fleet.plane.called("resume")
    async with redis.client() as client:  # as if it had been stopped for longer than its lease
        await client.delete(Layout("edge").lease(box.id, 1))
    assert (await fleet.at(fleet.edges[1], box.get("/other"))).status == 200
    assert (await leading).body == b"GET /leader HTTP/1.1\n", "told by the change, answer or not"
    assert (await fleet.at(fleet.edges[2], box.get())).status == 200
    await fleet.knows(fleet.plane.pause(box.id))
    record = fleet.plane.sandboxes[box.id]
    late.set()
    await fleet.plane.until(lambda: fleet.plane.counts["resume"] == 2)
    await asyncio.sleep(0.1)  # nothing shall happen, and nothing tells so
    assert fleet.plane.sandboxes[box.id] == record and record.state is State.PAUSED
    assert fleet.plane.incarnations[box.id] == 1
    await fleet.wakes(box)


async def test_a_failed_wake(fleet: FleetStage, redis: Valkey) -> None:
    """Everybody who waits for it, at whichever edge, is told once; a second later it is tried again."""
    box, ready = fleet.sandbox(await fleet.app(), State.PAUSED), asyncio.Event()
    fleet.plane.on_resume = after(ready, refuse(503, "resume_failed"))
    asked = [asyncio.create_task(fleet.at(fleet.edges[n % 3], box.get())) for n in range(30)]
    await until(lambda: fleet.waiting == 30)
    await fleet.plane.called("resume")
    ready.set()
    answers = await asyncio.gather(*asked)
    assert {(one.status, one.code) for one in answers} == {(503, "sandbox_resume_failed")}
    async with redis.client() as client:
        remembered = await client.pttl(Layout("edge").lease(box.id, 1))
        assert remembered <= 1000
        # One call, unless the machine is so slow that edges cannot believe Redis.
        assert fleet.plane.counts["resume"] <= len(fleet.edges)
        await client.delete(Layout("edge").lease(box.id, 1))
    fleet.plane.on_resume = resume
    fleet.passed += 1.1
    assert await fleet.everywhere(box.get()) == [200] * 3
    assert fleet.plane.incarnations[box.id] == 1


@pytest.mark.parametrize("skew", [60.0, -60.0])
async def test_a_clock_that_is_wrong(make_fleet: MakeFleet, skew: float) -> None:
    """An edge a minute off wakes, serves, hears of changes and is asked before pauses like the others."""
    fleet = await make_fleet(skews=(0.0, skew, 0.0), wake={"window": 5.0})
    app = await fleet.app()
    box = fleet.sandbox(app, State.PAUSED)
    # By its own clock, which is all it has: a token is good from `iat` on, less 5 seconds.
    token = box.token(iat=now_of(fleet) - 120)
    wrong = fleet.edges[1]
    assert (await fleet.at(wrong, box.get("/first", token=token))).body == b"GET /first HTTP/1.1\n"
    assert await fleet.everywhere(box.get(token=token)) == [200] * 3
    assert fleet.plane.incarnations[box.id] == 1
    pausing = fleet.plane.change_sandbox(box.id, state=State.PAUSING)
    await fleet.plane.until(lambda: len({ack.edge for ack in fleet.plane.acks}) == 3)
    assert {(ack.version, ack.in_flight) for ack in fleet.plane.acks} == {(pausing.version, 0)}
    fleet.plane.pause(box.id)
    assert await fleet.everywhere(box.get(token=token)) == [200] * 3
    assert fleet.plane.incarnations[box.id] == 2
    # An app that is late after a wake is waited for, whatever the edge thinks of the time.
    later = await fleet.app(listening=False)
    slow = fleet.sandbox(later, State.PAUSED)
    asked = asyncio.create_task(
        fleet.at(wrong, slow.get("/slow", token=slow.token(iat=now_of(fleet) - 120)))
    )
    await fleet.plane.until(lambda: fleet.plane.incarnations[slow.id] == 1)
    await asyncio.sleep(
        1.5
    )  # longer than the second a port of a sandbox that has long been running gets
    await later.listen()
    assert (await asked).body == b"GET /slow HTTP/1.1\n"


def now_of(fleet: FleetStage) -> int:
    """Now, by the clock of those who mint tokens."""
    return int(time.time() + fleet.ahead)
