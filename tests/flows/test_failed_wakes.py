"""Wakes that fail: the contract's code, 503 with Retry-After, in bounded time and for one attempt."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace

import pytest
from aiohttp import web

from edge.core.records import State
from edge.state import wire
from tests.flows.rawclient import Answer
from tests.flows.scripts import Call, Script, after, as_json, hang, hang_up, refuse, say, told
from tests.flows.stage import MakeStage, Stage, until


def refused(answer: Answer, code: str, *, retryable: bool = True) -> None:
    """The whole shape of a 503 (contract: wake, errors)."""
    assert answer.status == 503
    assert answer.value("retry-after") == "5"
    assert answer.value("content-type") == "application/json"
    assert answer.value("cache-control") == "no-store"
    said = answer.json
    assert (said["code"], said["retryable"]) == (code, retryable)
    assert said["request_id"] == answer.value("x-request-id")
    assert said["error"] and said["suggested_action"]


async def test_auto_resume_off(stage: Stage) -> None:
    """Nobody is asked to resume what does not resume by itself."""
    box = stage.sandbox(await stage.app(), State.PAUSED, auto_resume=False)
    refused(await stage.ask(box.get()), "sandbox_paused_auto_resume_disabled", retryable=False)
    assert stage.plane.counts["resume"] == 0


async def test_a_sandbox_in_error_is_not_woken(stage: Stage) -> None:
    """The state ``error`` is told as it is."""
    box = stage.sandbox(await stage.app(), State.ERROR)
    refused(await stage.ask(box.get()), "sandbox_error", retryable=False)
    assert stage.plane.counts["resume"] == 0


async def test_a_sandbox_still_being_created_is_waited_for(stage: Stage) -> None:
    """Creating: the request waits, and is served as soon as it runs; there is nothing to resume."""
    box = stage.sandbox(await stage.app(), State.CREATING)
    async with await stage.client() as client:
        await client.send(box.get("/soon"))
        await until(lambda: stage.edge.admission.counts()["waiting"] == 1)
        stage.plane.begin_incarnation(box.id)
        assert (await client.answer()).body == b"GET /soon HTTP/1.1\n"
    assert stage.plane.counts["resume"] == 0


async def test_a_sandbox_created_for_too_long(make_stage: MakeStage) -> None:
    """Creating past the window has a code of its own."""
    stage = await make_stage(wake={"window": 0.3})
    box = stage.sandbox(await stage.app(), State.CREATING)
    refused(await stage.ask(box.get()), "sandbox_not_ready")
    assert stage.plane.counts["resume"] == 0


@dataclass
class Said:
    """What the control plane answers a resume with, and what the client is told."""

    script: Script
    status: int
    code: str
    retryable: bool


ANSWERS = {
    "resume failed": Said(refuse(503, "resume_failed"), 503, "sandbox_resume_failed", True),
    "resume timeout": Said(refuse(503, "resume_timeout"), 503, "sandbox_resume_timeout", True),
    "policy": Said(
        refuse(409, "auto_resume_disabled"), 503, "sandbox_paused_auto_resume_disabled", False
    ),
    "not found": Said(refuse(404, "not_found"), 404, "sandbox_not_found", False),
}


@pytest.mark.parametrize("case", ANSWERS)
async def test_the_control_plane_says_no(stage: Stage, case: str) -> None:
    """Each refusal of the internal API has its code; it is believed at once and not asked again."""
    said = ANSWERS[case]
    app = await stage.app()
    box = stage.sandbox(app, State.PAUSED)
    stage.plane.on_resume = said.script
    answer = await stage.ask(box.get())
    assert answer.status == said.status
    if said.status == 503:
        refused(answer, said.code, retryable=said.retryable)
    assert (answer.code, answer.json["retryable"]) == (said.code, said.retryable)
    assert (stage.plane.counts["resume"], app.connections) == (1, 0)


async def test_the_window_ends_a_resume_that_hangs(make_stage: MakeStage) -> None:
    """When the control plane never answers, the window does; the client connection goes on."""
    stage = await make_stage(wake={"window": 0.3})
    stage.plane.on_resume = hang
    box, other = stage.sandbox(await stage.app(), State.PAUSED), stage.sandbox(await stage.app())
    async with await stage.client() as client:
        refused(await client.ask(box.get()), "sandbox_resume_timeout")
        assert (await client.ask(other.get())).status == 200
    assert stage.plane.counts["resume"] == 1


async def another(call: Call) -> web.StreamResponse:
    """The record of somebody else."""
    return told(replace(call.plane.sandboxes[call.id], id="sb_somebody"))


async def untrue(call: Call) -> web.StreamResponse:
    """Yes, here you are: still paused."""
    return told(call.plane.sandboxes[call.id])


async def redirect(_: Call) -> web.StreamResponse:
    """Go elsewhere."""
    return web.Response(status=307, headers={"Location": "/internal/edge/v1/sandboxes/x"})


async def cut_short(call: Call) -> web.StreamResponse:
    """Half a record."""
    body = wire.sandbox_to_json(call.plane.sandboxes[call.id])
    return as_json(body[: len(body) // 2])


NO_ANSWERS: dict[str, Script] = {
    "hangs up": hang_up,
    "garbage": say(b"<html>not for you</html>"),
    "half": cut_short,
    "empty": say(b""),
    "500": refuse(500, "internal"),
    "503 of a proxy": say(b"no backend", 503),
    "404 of a proxy": say(b"no route", 404),
    "redirect": redirect,
    "somebody else": another,
    "types": say(json.dumps({"id": 5, "state": "running"}).encode()),
}


async def test_no_usable_answer_is_control_plane_unavailable(stage: Stage) -> None:
    """Whatever is no answer of the internal API is tried again for a while, then told as that."""
    boxes = {case: stage.sandbox(await stage.app(), State.PAUSED) for case in NO_ANSWERS}
    by_id = {box.id: NO_ANSWERS[case] for case, box in boxes.items()}

    async def each(call: Call) -> web.StreamResponse:
        return await by_id[call.id](call)

    stage.plane.on_resume = each
    answers = await asyncio.gather(*(stage.ask(box.get()) for box in boxes.values()))
    for case, answer in zip(boxes, answers, strict=True):
        assert (case, answer.status, answer.code) == (case, 503, "control_plane_unavailable")
        refused(answer, "control_plane_unavailable")
    assert not stage.plane.incarnations
    calls = [call.id for call in stage.plane.calls if call.kind == "resume"]
    assert all(2 <= calls.count(box.id) <= 20 for box in boxes.values())


async def test_a_short_outage_is_bridged(stage: Stage) -> None:
    """A control plane that comes back within the window: the waiting client notices nothing."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    stage.plane.on_resume = hang_up
    waiting = asyncio.create_task(stage.ask(box.get()))
    await stage.plane.called("resume", 2)
    stage.plane.on_resume = after(asyncio.Event())
    stage.plane.begin_incarnation(box.id)  # the change alone ends the wait, answer or no answer
    assert (await waiting).status == 200
    assert stage.plane.incarnations[box.id] == 1


async def test_a_control_plane_that_says_still_paused_is_not_asked_for_ever(stage: Stage) -> None:
    """An answer that changes nothing is a failed resume, not a loop."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    stage.plane.on_resume = untrue
    refused(await stage.ask(box.get()), "sandbox_resume_failed")
    assert stage.plane.counts["resume"] == 1


@pytest.mark.parametrize("case", ["hang", "500", "garbage", "404 of a proxy", "hang up"])
async def test_a_look_up_without_an_answer(make_stage: MakeStage, case: str) -> None:
    """Not even the record can be had: 503, never a 404, and no resume on suspicion."""
    stage = await make_stage(control_plane={"timeout": 0.3})
    scripts = {"hang": hang, "500": refuse(500, "internal"), "garbage": say(b"{]")}
    scripts |= {"404 of a proxy": say(b"no route", 404), "hang up": hang_up}
    box = stage.sandbox(await stage.app(), State.PAUSED)
    stage.plane.fault = scripts[case]
    refused(await stage.ask(box.get()), "control_plane_unavailable")
    assert stage.plane.counts["resume"] == 0


async def test_a_look_up_takes_no_longer_than_the_window(make_stage: MakeStage) -> None:
    """However long the control plane may take for it by its own setting."""
    stage = await make_stage(control_plane={"timeout": 300}, wake={"window": 0.5})
    stage.plane.fault = hang
    box = stage.sandbox(await stage.app(), State.PAUSED)
    refused(await stage.ask(box.get()), "control_plane_unavailable")


async def test_a_storm_after_a_failure_costs_one_attempt(make_stage: MakeStage) -> None:
    """Those who waited and those who come while it is remembered get the same answer."""
    stage = await make_stage(wake={"failure_memory": 30})
    ready = asyncio.Event()
    stage.plane.on_resume = after(ready, refuse(503, "resume_failed"))
    box = stage.sandbox(await stage.app(), State.PAUSED)
    storm = [asyncio.create_task(stage.ask(box.get())) for _ in range(50)]
    await until(lambda: stage.edge.admission.counts()["waiting"] == 50)
    ready.set()
    for answer in await asyncio.gather(*storm):
        refused(answer, "sandbox_resume_failed")
    for _ in range(20):
        refused(await stage.ask(box.get()), "sandbox_resume_failed")
    assert stage.plane.counts["resume"] == 1


async def test_a_failure_is_forgotten(make_stage: MakeStage) -> None:
    """With no memory every request tries anew; and the memory is of one paused incarnation only."""
    stage = await make_stage(wake={"failure_memory": 0})
    box = stage.sandbox(await stage.app(), State.PAUSED)
    stage.plane.on_resume = refuse(503, "resume_failed")
    for n in range(1, 4):
        refused(await stage.ask(box.get()), "sandbox_resume_failed")
        assert stage.plane.counts["resume"] == n


async def test_a_remembered_failure_does_not_outlive_its_incarnation(
    make_stage: MakeStage,
) -> None:
    """Resumed by somebody else and paused again: that is another sleep, and it is tried."""
    stage = await make_stage(wake={"failure_memory": 30})
    box = stage.sandbox(await stage.app(), State.PAUSED)
    good, stage.plane.on_resume = stage.plane.on_resume, refuse(503, "resume_failed")
    refused(await stage.ask(box.get()), "sandbox_resume_failed")
    stage.plane.on_resume = good
    stage.plane.begin_incarnation(box.id)
    await stage.heard(stage.plane.pause(box.id))
    assert (await stage.ask(box.get())).status == 200
    assert stage.plane.counts["resume"] == 2


async def test_who_waits_is_served_although_memory_runs_short(stage: Stage) -> None:
    """Let in when it began to wait: the wake it has paid for is not thrown away."""
    ready = asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(await stage.app(), State.PAUSED)
    async with await stage.client() as client:
        await client.send(box.get("/soon"))
        await until(lambda: stage.edge.admission.counts()["waiting"] == 1)
        stage.edge.admission.pressed = True
        ready.set()
        assert (await client.answer()).body == b"GET /soon HTTP/1.1\n"
