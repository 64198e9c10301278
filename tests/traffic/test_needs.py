"""Needs: who is parked holds a place for it, and gives it back however the waiting ends."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web

from edge.core.records import State
from edge.state import wire
from tests.flows.scripts import Call, after, as_json
from tests.flows.stage import MakeStage, Stage, until
from tests.traffic.dialogue import idle


async def test_one_look_up_serves_all_who_wait_for_it(stage: Stage) -> None:
    """Twenty requests for an unknown sandbox: one call for it, one for the grant."""
    box = stage.sandbox(await stage.app())
    token = box.token()
    answers = await asyncio.gather(*(stage.ask(box.get(f"/{n}", token=token)) for n in range(20)))
    assert {answer.status for answer in answers} == {200}
    assert stage.plane.counts["sandbox"] == stage.plane.counts["grant"] == 1
    assert idle(stage)


@pytest.mark.parametrize("reset", [True, False])
async def test_who_leaves_while_waiting_gives_the_place_back(stage: Stage, reset: bool) -> None:
    """And is not forwarded when the sandbox runs at last."""
    app, ready = await stage.app(), asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(app, State.PAUSED)
    client = await stage.client()
    await client.send(box.get("/"))
    await until(lambda: len(stage.edge.flow.waiting()) == 1)
    (exchange,) = stage.edge.flow.waiting()
    assert stage.edge.flow.is_waking(exchange)
    client.reset() if reset else client.close()
    await until(lambda: idle(stage))
    assert not stage.edge.flow.waiting() and not stage.edge.flow.is_waking(exchange)
    ready.set()
    await until(lambda: stage.plane.incarnations[box.id] == 1)
    assert (await stage.ask(box.get("/later"))).status == 200
    assert [head.split(b" ")[1] for head in app.requests] == [b"/later"]


async def test_nobody_is_woken_for_a_client_that_left_during_a_look_up(stage: Stage) -> None:
    """Its FIN came while the sandbox was looked up; that it is paused is known only after that."""
    box, ready = stage.sandbox(await stage.app(), State.PAUSED), asyncio.Event()

    async def slow(call: Call) -> web.StreamResponse:
        await ready.wait()
        return as_json(wire.sandbox_to_json(stage.plane.sandboxes[call.id]))

    stage.plane.fault = slow
    async with await stage.client() as client:
        await client.send(box.get("/"))
        await stage.plane.called("sandbox")
        (connection,) = stage.edge.connections
        client.end()
        await until(lambda: connection.half_closed)
        stage.plane.fault = None
        ready.set()
        assert await client.at_end()
    assert idle(stage) and stage.plane.counts["resume"] == 0


async def test_the_wait_is_part_of_what_is_told(stage: Stage) -> None:
    """A request that waited is counted apart from those that did not."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    assert (await stage.ask(box.get("/"))).status == 200
    waited = [
        sample.value
        for family in stage.edge.metrics.collect()
        for sample in family.samples
        if sample.name == "preview_edge_request_duration_seconds_count"
        and sample.labels["waited"] == "yes"
    ]
    assert waited == [1]


@pytest.mark.parametrize(
    ("state", "code"),
    [(State.CREATING, "sandbox_not_ready"), (State.PAUSED, "sandbox_resume_timeout")],
)
async def test_look_ups_that_take_the_whole_window(stage: Stage, state: State, code: str) -> None:
    """Nothing is waited for any more, and the answer says what it was that is not ready."""
    box = stage.sandbox(await stage.app(), state)

    async def slow(call: Call) -> web.StreamResponse:
        stage.passed = 2 * stage.edge.settings.wake.window
        return as_json(wire.grant_to_json(stage.plane.grants[box.grant]))

    stage.plane.on_grant = slow
    answer = await stage.ask(box.get())
    assert (answer.status, answer.code) == (503, code)
    assert stage.plane.counts["resume"] == 0


@pytest.mark.parametrize("layers", [0, 1, 2])
async def test_a_wake_is_told_without_the_token_in_its_path(
    capfd: pytest.CaptureFixture[str], make_stage: MakeStage, layers: int
) -> None:
    """Whole before anything is cut off: the line of the event log has no part of it, however it was escaped."""
    stage = await make_stage(log={"access": "", "level": "info"})
    box = stage.sandbox(await stage.app(), State.PAUSED)
    token = spelled = box.token()
    for _ in range(layers):
        spelled = "".join(f"%{byte:02x}" for byte in spelled.encode())
    assert (await stage.ask(box.get(f"/{'x' * 60}/{spelled}", token=token))).status == 200
    await stage.stop_edge()
    said = capfd.readouterr().err
    (event,) = [json.loads(line) for line in said.splitlines() if '"event":"wake"' in line]
    told, shown = event["woken_by"], f"GET /{'x' * 60}/<redacted>"
    assert told.startswith(shown) and len(told) <= len(shown) + 2  # an escape that was cut in two
