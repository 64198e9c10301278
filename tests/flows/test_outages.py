"""The control plane is gone: what runs is served on, what sleeps is refused in time, and nothing is made up."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.core.records import GrantStatus, State
from edge.wake.trust import Trust
from tests.flows.scripts import hang
from tests.flows.stage import MakeStage, Stage, until
from tests.flows.test_failed_wakes import refused
from tests.flows.test_grants import alive, tunnel
from tests.flows.test_websocket_wakes import shout

SILENCE = 10.0
"""Seconds without a word: longer than `stale_after`, shorter than `stale_limit`."""


async def lose(stage: Stage, how: str, *, since: float = SILENCE) -> None:
    """The control plane is lost, that long ago."""
    if how == "dead":
        await stage.plane.stop()
    else:
        stage.plane.fall_silent()
        if how == "hanging":
            stage.plane.fault = hang
    # Two round trips: by then a heartbeat that was on its way has been heard.
    for _ in range(2):
        assert (await stage.ask(b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n")).status == 404
    stage.passed += since
    assert stage.edge.unready()


@pytest.mark.parametrize("how", ["dead", "hanging", "silent"])
async def test_what_runs_is_served_on(make_stage: MakeStage, how: str) -> None:
    """Requests and tunnels of a known running sandbox do not need the control plane."""
    stage = await make_stage(control_plane={"timeout": 0.3})
    app, sockets = await stage.app(), await stage.app(shout)
    box, talk = stage.sandbox(app), stage.sandbox(sockets)
    assert (await stage.ask(box.get())).status == 200
    client = await tunnel(stage, talk)
    await lose(stage, how)
    for _ in range(3):
        assert (await stage.ask(box.get())).status == 200
    await alive(client)
    another = await tunnel(stage, talk)
    client.close()
    another.close()


@pytest.mark.parametrize("how", ["dead", "hanging"])
async def test_a_wake_is_refused_in_time(make_stage: MakeStage, how: str) -> None:
    """A known sleeper: it is tried, and 503 comes within the window, not when the client gives up."""
    stage = await make_stage(control_plane={"timeout": 0.3}, wake={"window": 0.5})
    box = stage.sandbox(await stage.app(), State.PAUSED, auto_resume=False)
    assert (await stage.ask(box.get())).status == 503  # known by now
    await stage.heard(stage.plane.change_sandbox(box.id, auto_resume=True))
    await lose(stage, how)
    refused(await stage.ask(box.get()), "sandbox_resume_timeout")
    assert not stage.plane.incarnations


async def test_a_wake_without_a_control_plane_has_its_code(stage: Stage) -> None:
    """With the whole window at hand, it is told that nobody answered."""
    box = stage.sandbox(await stage.app(), State.PAUSED, auto_resume=False)
    assert (await stage.ask(box.get())).status == 503
    await stage.heard(stage.plane.change_sandbox(box.id, auto_resume=True))
    await lose(stage, "dead")
    refused(await stage.ask(box.get()), "control_plane_unavailable")


async def test_what_is_not_known_is_not_a_404(stage: Stage) -> None:
    """Never looked up before the outage: 503, whether it exists or not; found again afterwards."""
    box = stage.sandbox(await stage.app())
    nobody = stage.preview("sb_neverexisted")
    await lose(stage, "dead")
    for one in (box, nobody):
        refused(await stage.ask(one.get()), "control_plane_unavailable")
    await stage.plane.start()
    await until(lambda: not stage.edge.unready())
    assert (await stage.ask(box.get())).status == 200
    answer = await stage.ask(nobody.get())
    assert (answer.status, answer.code) == (404, "sandbox_not_found")


async def test_trust_has_an_end(stage: Stage) -> None:
    """Beyond the stale limit nothing old is believed any more; with the control plane back, all is well."""
    box = stage.sandbox(await stage.app())
    assert (await stage.ask(box.get())).status == 200
    await lose(stage, "dead", since=100)
    assert stage.edge.catalog.trust() is Trust.LOST
    refused(await stage.ask(box.get()), "control_plane_unavailable")
    await stage.plane.start()
    await until(lambda: not stage.edge.unready())
    assert (await stage.ask(box.get())).status == 200


@pytest.mark.parametrize("log", ["kept", "lost"])
async def test_a_revocation_during_the_outage_is_caught_up_with(stage: Stage, log: str) -> None:
    """The watch goes on where it was; when that place is gone, everything is asked for anew."""
    box, other = stage.sandbox(await stage.app()), stage.sandbox(await stage.app())
    for one in (box, other):
        assert (await stage.ask(one.get())).status == 200
    await lose(stage, "dead")
    stage.plane.change_grant(box.grant, tell=log == "kept", status=GrantStatus.REVOKED)
    assert (await stage.ask(box.get())).status == 200, "nobody can know yet"
    if log == "lost":
        stage.plane.forget_changes()
    await stage.plane.start()
    await until(lambda: not stage.edge.unready())
    answer = await stage.ask(box.get())
    assert (answer.status, answer.code) == (401, "preview_grant_revoked")
    assert (await stage.ask(other.get())).status == 200


async def test_an_absence_is_remembered(make_stage: MakeStage) -> None:
    """A sandbox that is not there is asked for once, not once a request."""
    stage = await make_stage(catalog={"absent_ttl": 30})
    box = stage.preview("sb_neverexisted")
    for _ in range(5):
        answer = await stage.ask(box.get())
        assert (answer.status, answer.code) == (404, "sandbox_not_found")
    assert stage.plane.asked == {"sandbox": 1, "grant": 0, "resume": 0}


@pytest.mark.parametrize("told", [True, False])
async def test_an_absence_is_not_for_ever(stage: Stage, told: bool) -> None:
    """A sandbox that came into being after it was asked for: served by the news, or after a second."""
    app = await stage.app()
    box = stage.sandbox(app)
    record = stage.plane.sandboxes.pop(box.id)
    await stage.heard(record)  # and not kept, because nobody had asked for it
    assert (await stage.ask(box.get())).status == 404
    record = stage.plane.put(record, tell=told)
    if told:
        await stage.heard(record)
    else:
        assert (await stage.ask(box.get())).status == 404
        stage.passed += 1.5
    assert (await stage.ask(box.get())).status == 200


async def test_a_late_control_plane(stage: Stage) -> None:
    """Usage that could not be told during the outage is told afterwards, once."""
    box = stage.sandbox(await stage.app())
    assert (await stage.ask(box.get())).status == 200
    await lose(stage, "dead")
    for _ in range(4):
        assert (await stage.ask(box.get())).status == 200
    await stage.plane.start()

    def told() -> int:
        batches = {batch.sequence: batch for batch in stage.plane.usage}
        return sum(item.requests for batch in batches.values() for item in batch.items)

    await stage.plane.until(lambda: told() >= 5)
    assert told() == 5


async def test_usage_outlives_the_edge(make_stage: MakeStage, tmp_path: Path) -> None:
    """The edge ends while nobody takes its usage; the one that starts when somebody does tells it."""
    stage = await make_stage(control_plane={"usage_dir": tmp_path / "usage"})
    box = stage.sandbox(await stage.app())
    assert (await stage.ask(box.get())).status == 200
    await stage.plane.stop()
    for _ in range(4):
        assert (await stage.ask(box.get())).status == 200
    await stage.stop_edge()
    assert len(list((tmp_path / "usage").glob("*.usage"))) == 1
    await stage.plane.start()
    await stage.start_edge()

    def told() -> int:
        batches = {batch.sequence: batch for batch in stage.plane.usage}
        return sum(item.requests for batch in batches.values() for item in batch.items)

    await stage.plane.until(lambda: told() >= 5)
    assert told() == 5
    await until(lambda: not list((tmp_path / "usage").glob("*.usage")))
