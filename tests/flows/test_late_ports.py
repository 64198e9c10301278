"""A sandbox that runs may not listen yet, and a route may be stale: what is waited out, and what is told."""

from __future__ import annotations

import time

import pytest

from edge.core.records import State, Upstream
from tests.flows.mint import LIFETIME
from tests.flows.stage import PORT, MakeStage, Stage
from tests.flows.test_failed_wakes import refused

NOWHERE = "255.255.255.255"
"""An address that no TCP connection can go to."""


async def test_an_app_that_listens_late_is_waited_for(stage: Stage) -> None:
    """Refused right after the wake, accepted later: the original request is answered."""
    app = await stage.app(listening=False)
    box = stage.sandbox(app, State.PAUSED)
    async with await stage.client() as client:
        await client.send(box.request("POST", "/late", body=b"body"))
        await stage.refused_dials(at_least=3)
        await app.listen()
        assert (await client.answer()).body == b"POST /late HTTP/1.1\nbody"
    assert len(app.requests) == 1
    assert stage.plane.counts["resume"] == stage.plane.incarnations[box.id] == 1


async def test_an_app_that_never_listens(make_stage: MakeStage) -> None:
    """The window is for both: the resume, and the port."""
    stage = await make_stage(wake={"window": 0.5})
    box = stage.sandbox(await stage.app(listening=False), State.PAUSED)
    answer = await stage.ask(box.get())
    refused(answer, "sandbox_resume_timeout")
    assert answer.json["details"] == {"port": PORT}
    assert "Start the app on this port" in answer.json["suggested_action"]
    assert stage.plane.counts["resume"] == 1


async def test_a_host_that_is_out_of_reach_after_a_wake(make_stage: MakeStage) -> None:
    """An unreachable host right after a wake is a wake that did not end in time."""
    stage = await make_stage(wake={"window": 0.5}, deadlines={"connect": 0.2})
    box = stage.sandbox(await stage.app(), State.PAUSED)
    stage.plane.upstreams[box.id] = Upstream(NOWHERE)
    answer = await stage.ask(box.get())
    refused(answer, "sandbox_resume_timeout")
    assert "Start the app" not in answer.json["suggested_action"]


async def test_a_sandbox_that_runs_with_nobody_on_the_port(make_stage: MakeStage) -> None:
    """Running for long: a short patience, then 502, retryable, without Retry-After."""
    stage = await make_stage(wake={"refused_retry": 0.1})
    box = stage.sandbox(await stage.app(listening=False))
    answer = await stage.ask(box.get())
    assert (answer.status, answer.code) == (502, "preview_service_not_ready")
    assert answer.json["retryable"] is True and answer.json["details"] == {"port": PORT}
    assert answer.value("retry-after") is None
    assert stage.plane.counts["resume"] == 0
    assert stage.plane.counts["sandbox"] == 2, "it was not asked whether the sandbox has moved"


async def test_a_dev_server_that_restarts(make_stage: MakeStage) -> None:
    """Running for long and refused for a moment: the request waits for it."""
    stage = await make_stage(wake={"refused_retry": 30})
    app = await stage.app(listening=False)
    box = stage.sandbox(app)
    async with await stage.client() as client:
        await client.send(box.get("/again"))
        await stage.refused_dials(at_least=3)
        await app.listen()
        assert (await client.answer()).body == b"GET /again HTTP/1.1\n"


async def test_a_sandbox_resumed_by_somebody_else_has_its_window_too(make_stage: MakeStage) -> None:
    """``running_since`` decides: fresh from a resume that was not ours, the window counts, not a second."""
    stage = await make_stage(wake={"refused_retry": 0})
    app = await stage.app(listening=False)
    box = stage.sandbox(app, running_since=time.time())
    async with await stage.client() as client:
        await client.send(box.get())
        await stage.refused_dials(at_least=3)
        await app.listen()
        assert (await client.answer()).status == 200


@pytest.mark.parametrize("host", [NOWHERE, "no-such-host.invalid"])
async def test_a_host_out_of_reach(make_stage: MakeStage, host: str) -> None:
    """No route, or no such name: the runtime host is to blame, not the app."""
    stage = await make_stage(wake={"refused_retry": 0.1}, deadlines={"connect": 0.3})
    box = stage.sandbox(await stage.app(), upstream=Upstream(host))
    answer = await stage.ask(box.get())
    assert (answer.status, answer.code) == (502, "edge_runtime_host_unreachable")
    assert answer.json["retryable"] is True


async def test_a_stale_route_is_resolved_again(stage: Stage) -> None:
    """The sandbox moved and the news is lost: a refused dial asks anew and goes to the new place."""
    old, new = await stage.app(), await stage.app()
    box = stage.sandbox(old)
    assert (await stage.ask(box.get("/old"))).status == 200
    await old.stop()
    stage.plane.upstreams[box.id] = Upstream("127.0.0.1", {PORT: new.port})
    stage.plane.begin_incarnation(box.id, tell=False)
    assert (await stage.ask(box.request("POST", "/new", body=b"body"))).status == 200
    assert (len(old.requests), len(new.requests)) == (1, 1)
    assert stage.plane.asked == {"sandbox": 2, "grant": 1, "resume": 0}


async def test_whoever_comes_after_the_others_gave_up_is_asked_for_too(
    make_stage: MakeStage,
) -> None:
    """The port is still being dialed for those who have left; that the route was true then is no news."""
    stage = await make_stage(wake={"refused_retry": 0.3})
    old, new = await stage.app(listening=False), await stage.app()
    box = stage.sandbox(old)
    assert (await stage.ask(box.get("/old"))).status == 502
    stage.plane.upstreams[box.id] = Upstream("127.0.0.1", {PORT: new.port})
    stage.plane.begin_incarnation(box.id, tell=False)
    assert (await stage.ask(box.get("/new"))).status == 200
    assert len(new.requests) == 1


async def test_a_stale_route_to_a_sleeper_wakes_it(stage: Stage) -> None:
    """The sandbox was paused and the news is lost: the refused request wakes it, once."""
    old, new = await stage.app(), await stage.app()
    box = stage.sandbox(old)
    assert (await stage.ask(box.get("/old"))).status == 200
    await old.stop()
    stage.plane.upstreams[box.id] = Upstream("127.0.0.1", {PORT: new.port})
    stage.plane.pause(box.id, tell=False)
    assert (await stage.ask(box.get("/new"))).status == 200
    assert len(new.requests) == 1
    assert stage.plane.counts["resume"] == stage.plane.incarnations[box.id] == 1


async def test_a_stale_route_to_the_dead(stage: Stage) -> None:
    """The sandbox was destroyed and the news is lost: 404, not 502."""
    app = await stage.app()
    box = stage.sandbox(app)
    assert (await stage.ask(box.get())).status == 200
    await app.stop()
    stage.plane.change_sandbox(box.id, tell=False, state=State.DESTROYED, upstream=None)
    answer = await stage.ask(box.get())
    assert (answer.status, answer.code) == (404, "sandbox_not_found")


async def test_a_place_is_given_back_though_the_credential_has_died_meanwhile(stage: Stage) -> None:
    """Decided again after its token's expiry: refused, and nothing of it is left in the counts."""
    box = stage.sandbox(await stage.app(listening=False), running_since=time.time())
    async with await stage.client() as client:
        await client.send(box.get())
        await stage.refused_dials()
        assert stage.edge.admission.counts()["exchanges"] == 1
        stage.ahead = 2 * LIFETIME
        stage.plane.change_sandbox(box.id, incarnation=2)
        answer = await client.answer()
    assert (answer.status, answer.code) == (401, "edge_token_expired")
    assert stage.edge.admission.counts()["exchanges"] == 0


async def test_a_port_that_is_not_named_is_closed(make_stage: MakeStage) -> None:
    """With ``only_ports``, what listens at its number here is not the sandbox's, and hears nothing of the request."""
    stage = await make_stage(wake={"refused_retry": 0.1})
    app = await stage.app()
    closed = Upstream("127.0.0.1", {}, only_ports=True)
    box = stage.sandbox(app, port=app.port, upstream=closed)
    answer = await stage.ask(box.get())
    assert (answer.status, answer.code) == (502, "preview_service_not_ready")
    assert app.requests == []


async def test_a_port_that_was_named_meanwhile_is_found(stage: Stage) -> None:
    """The news of it is lost: what is known has it closed, so it is asked for anew."""
    one, two = await stage.app(), await stage.app()
    ports = {PORT: one.port}
    box = stage.sandbox(one, upstream=Upstream("127.0.0.1", ports, only_ports=True))
    assert (await stage.ask(box.get())).status == 200
    more = Upstream("127.0.0.1", ports | {PORT + 1: two.port}, only_ports=True)
    stage.plane.change_sandbox(box.id, tell=False, upstream=more)
    assert (await stage.ask(stage.preview(box.id, PORT + 1).get())).status == 200
    assert (len(one.requests), len(two.requests)) == (1, 1)
