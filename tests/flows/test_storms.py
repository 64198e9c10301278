"""Storms: a thousand at once, on one sleeping sandbox and on a thousand of them; and clocks that disagree."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Iterator

import pytest
from aiohttp import web

from edge.core.records import State
from edge.state import wire
from edge.state.http import SHORT_CALLS
from tests.flows.rawclient import RawClient
from tests.flows.scripts import Call, after, as_json, hang, resume, told
from tests.flows.stage import MakeStage, Stage, until

MANY = 1000
CALM = {"catalog": {"fresh": 60.0, "stale_after": 60.0}}
"""The storm keeps this loop from heartbeats; that must not look like doubt, and cost calls."""


@pytest.fixture(autouse=True)
def _room_for_sockets() -> Iterator[None]:
    """Both ends of every connection are here: four sockets a request."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 6 * MANY if hard == resource.RLIM_INFINITY else min(6 * MANY, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def begin(stage: Stage, request: bytes) -> RawClient:
    """A client that has sent its request."""
    client = await stage.client()
    await client.send(request)
    return client


@pytest.mark.may_block("a thousand answers are read in one go")
async def test_a_thousand_requests_wake_one_sandbox_once(make_stage: MakeStage) -> None:
    """One resume call, one new incarnation, a thousand right answers."""
    stage, ready = await make_stage(**CALM), asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(await stage.app(), State.PAUSED)
    token = box.token()
    clients = [await begin(stage, box.get(f"/{n}", token=token)) for n in range(MANY)]
    await until(lambda: stage.edge.admission.counts()["waiting"] == MANY)
    ready.set()
    for n, client in enumerate(clients):
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, f"GET /{n} HTTP/1.1\n".encode())
        client.close()
    assert (stage.plane.counts["resume"], stage.plane.incarnations[box.id]) == (1, 1)


@pytest.mark.may_block("a thousand answers are read in one go")
async def test_a_thousand_sandboxes_wake_at_once(make_stage: MakeStage) -> None:
    """One resume and one new incarnation each; everybody gets his own sandbox's answer."""
    stage = await make_stage(**CALM)
    app = await stage.app()
    boxes = [stage.sandbox(app, State.PAUSED) for _ in range(MANY)]
    clients = [await begin(stage, box.get(f"/{n}")) for n, box in enumerate(boxes)]
    for n, client in enumerate(clients):
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, f"GET /{n} HTTP/1.1\n".encode())
        client.close()
    assert stage.plane.counts["resume"] == MANY
    assert {stage.plane.incarnations[box.id] for box in boxes} == {1}


async def test_more_first_meetings_than_the_control_plane_answers_in_time(
    make_stage: MakeStage,
) -> None:
    """Whoever does not get a turn is told to come again, and wakes nobody; who comes again is served, after one wake."""
    stage = await make_stage(control_plane={"timeout": 1.0}, **CALM)
    app = await stage.app()
    boxes = [stage.sandbox(app, State.PAUSED) for _ in range(SHORT_CALLS + 30)]
    slow = {box.id for box in boxes[: SHORT_CALLS + 10]}

    async def busy(call: Call) -> web.StreamResponse:
        if call.kind == "sandbox" and call.id in slow:
            await hang(call)
        plane = stage.plane
        match call.kind:
            case "sandbox":
                return told(plane.sandboxes[call.id])
            case "grant":
                return as_json(wire.grant_to_json(plane.grants[call.id]))
        return await resume(call)

    stage.plane.fault = busy
    answers = await asyncio.gather(*(stage.ask(box.get()) for box in boxes))
    refused = [answer for answer in answers if answer.status == 503]
    assert len(refused) >= len(slow)
    assert {(one.code, one.value("retry-after")) for one in refused} == {
        ("control_plane_unavailable", "5")
    }
    assert {answer.status for answer in answers} <= {200, 503}
    assert not slow & set(stage.plane.incarnations)
    stage.plane.fault = None
    for box in boxes:
        while (await stage.ask(box.get())).status == 503:
            pass
    assert {stage.plane.incarnations[box.id] for box in boxes} == {1}


@pytest.mark.parametrize(
    ("ahead", "lifetime", "status"), [(60.0, 900, 200), (60.0, 50, 401), (4.0, 900, 200)]
)
async def test_an_edge_whose_clock_is_ahead(
    stage: Stage, ahead: float, lifetime: int, status: int
) -> None:
    """Credentials end that much earlier; nothing else changes, a wake included."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    stage.ahead = ahead
    answer = await stage.ask(box.get("/", exp=time.time() + lifetime))
    assert answer.status == status
    assert stage.plane.counts["resume"] == (status == 200)


@pytest.mark.parametrize(("ahead", "status"), [(-4.0, 200), (-60.0, 401)])
async def test_an_edge_whose_clock_is_behind(stage: Stage, ahead: float, status: int) -> None:
    """Credentials from more than five seconds in the future are refused, and wake nobody."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    stage.ahead = ahead
    answer = await stage.ask(box.get("/"))
    assert answer.status == status
    assert stage.plane.counts["resume"] == (status == 200)
