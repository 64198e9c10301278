"""Wake policy, end to end: what does not wake is told so, and served while the sandbox runs."""

from __future__ import annotations

import pytest

from edge.core.records import State
from tests.flows.stage import MakeStage, Stage

PREFETCH = b"Sec-Purpose: prefetch\r\n"


@pytest.mark.parametrize("state", [State.PAUSED, State.PAUSING])
async def test_a_prefetch_does_not_wake(stage: Stage, state: State) -> None:
    """503, try again, and no call beyond the records; the click that follows wakes."""
    box = stage.sandbox(await stage.app(), state)
    answer = await stage.ask(box.get("/", PREFETCH))
    assert (answer.status, answer.code) == (503, "wake_suppressed_by_policy")
    assert answer.values("retry-after") == ["5"]
    assert answer.json["retryable"] is True and answer.json["details"] == {"kind": "prefetch"}
    assert stage.plane.asked == {"sandbox": 1, "grant": 1, "resume": 0}
    if state is State.PAUSED:
        assert (await stage.ask(box.get("/"))).status == 200
        assert stage.plane.incarnations[box.id] == 1


async def test_a_prefetch_of_what_runs_is_served(stage: Stage) -> None:
    """The policy is about waking."""
    box = stage.sandbox(await stage.app())
    assert (await stage.ask(box.get("/", PREFETCH))).status == 200


async def test_a_prefetch_without_a_credential_learns_nothing(stage: Stage) -> None:
    """401 as everybody, before anything is looked up."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    answer = await stage.ask(box.get("/", PREFETCH, token=""))
    assert (answer.status, answer.code) == (401, "edge_token_missing")
    assert stage.plane.asked == {"sandbox": 0, "grant": 0, "resume": 0}


async def test_more_kinds_by_settings(make_stage: MakeStage) -> None:
    """HEAD is let sleep where the operator says so; GET still wakes."""
    stage = await make_stage(wake_policy={"head": False})
    box = stage.sandbox(await stage.app(), State.PAUSED)
    assert (await stage.ask(box.request("HEAD", "/"))).status == 503
    assert stage.plane.counts["resume"] == 0
    assert (await stage.ask(box.get("/"))).status == 200
