"""Transitions when the runtime fails: the state says what is true, and nobody waits for ever."""

from __future__ import annotations

import pytest
from stage import Stage, play

from edge.appliance.events import EventFilter, Status
from edge.appliance.problems import VOLUME_UNAVAILABLE, ApiError
from edge.appliance.runtime import (
    MountTaken,
    NoSuchDirectory,
    PathEscape,
    SupervisorLost,
    VolumeLost,
)
from edge.appliance.sandbox import API, Sandbox
from edge.core.records import State


async def _code(awaitable: object) -> str:
    with pytest.raises(ApiError) as refused:
        await awaitable  # type: ignore[misc]
    return refused.value.problem.code


def test_the_way_through_a_life() -> None:
    """Every change of state is told to edges in order, with growing versions, and as events."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        snapshot = await stage.sandboxes.pause(sandbox)
        await stage.sandboxes.resume(snapshot.id)
        await stage.sandboxes.destroy(sandbox)
        assert stage.states() == (
            "creating running pausing paused resuming running destroyed".split()
        )
        versions = [change.record.version for change in stage.feed.since(0) or []]
        assert versions == list(range(1, 8))
        assert stage.happened() == [
            "create succeeded",
            "hibernate requested",
            "hibernate succeeded",
            "snapshot_created succeeded",
            "resume_from_snapshot succeeded",
            "destroy requested",
            "destroy succeeded",
        ]
        assert sandbox.incarnation == 2
        assert stage.runtime.calls == ["create", "freeze", "thaw", "destroy"]

    play(script)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError("disk full"), "create_failed"),
        (PathEscape("no"), "invalid_request"),
        (NoSuchDirectory("no"), "invalid_request"),
    ],
)
def test_a_failed_create_leaves_nothing(error: Exception, code: str) -> None:
    """The caller gets the reason, the sandbox is gone, edges know."""

    async def script(stage: Stage) -> None:
        stage.runtime.fail["create"] = error
        assert await _code(stage.create()) == code
        assert stage.sandboxes.living() == []
        assert stage.states() == ["creating", "error", "destroyed"]
        assert stage.happened() == ["create failed"]

    play(script)


def test_a_failed_pause_runs_on() -> None:
    """What was frozen so far is thawed, in the same incarnation."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        stage.runtime.fail["freeze"] = RuntimeError("busy")
        assert await _code(stage.sandboxes.pause(sandbox)) == "pause_failed"
        assert stage.states()[-2:] == ["pausing", "running"]
        assert stage.runtime.calls[-2:] == ["freeze", "thaw"]
        assert sandbox.incarnation == 1
        assert stage.happened()[-1] == "hibernate failed"

    play(script)


def test_a_pause_that_cannot_be_undone_is_an_error() -> None:
    """Neither frozen nor thawed: the state is error, and only destroy is left."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        stage.runtime.fail |= {"freeze": RuntimeError("x"), "thaw": RuntimeError("y")}
        assert await _code(stage.sandboxes.pause(sandbox)) == "pause_failed"
        assert sandbox.state is State.ERROR
        assert await _code(stage.sandboxes.pause(sandbox)) == "sandbox_not_ready"
        await stage.sandboxes.destroy(sandbox)
        assert sandbox.state is State.DESTROYED

    play(script)


def test_a_failed_resume_can_be_tried_again() -> None:
    """The sandbox is paused as before: same snapshot, same incarnation."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        snapshot = await stage.sandboxes.pause(sandbox)
        stage.runtime.fail["thaw"] = RuntimeError("not now")
        assert await _code(stage.sandboxes.resume(snapshot.id)) == "resume_failed"
        assert (sandbox.state, sandbox.incarnation) == (State.PAUSED, 1)
        assert sandbox.snapshot == snapshot
        del stage.runtime.fail["thaw"]
        await stage.sandboxes.resume(snapshot.id)
        assert (sandbox.state, sandbox.incarnation) == (State.RUNNING, 2)

    play(script)


def test_a_resume_without_memory_is_an_error() -> None:
    """With the processes gone there is nothing that a second try could find."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        snapshot = await stage.sandboxes.pause(sandbox)
        stage.runtime.fail["thaw"] = SupervisorLost("gone")
        assert await _code(stage.sandboxes.resume(snapshot.id)) == "resume_failed"
        assert sandbox.state is State.ERROR

    play(script)


def test_a_destroy_that_fails_inside_is_done_outside() -> None:
    """For clients the sandbox is gone; the log says that something was left."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        stage.runtime.fail["destroy"] = OSError("busy")
        await stage.sandboxes.destroy(sandbox)
        assert stage.logged == ["destroy_incomplete"]
        assert await _code(stage.sandboxes.destroy(sandbox)) == "sandbox_not_found"

    play(script)


def test_what_has_to_come_before_a_resume_may_refuse_it() -> None:
    """With its own code for the API and a plain failure for edges; nothing runs, and the next try may succeed."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        snapshot = await stage.sandboxes.pause(sandbox)

        async def refuse(_: Sandbox) -> None:
            raise ApiError(VOLUME_UNAVAILABLE, "gone")

        stage.sandboxes.before_resume(refuse)
        assert await _code(stage.sandboxes.resume(snapshot.id)) == "volume_unavailable"
        wake = stage.sandboxes.wake(sandbox.id, paused_incarnation=1, cause=API, timeout=5)
        assert await _code(wake) == "resume_failed"
        assert (sandbox.state, sandbox.incarnation) == (State.PAUSED, 1)
        assert sandbox.snapshot == snapshot and stage.runtime.calls == ["create", "freeze"]
        failed = EventFilter(status=Status.FAILED)
        events, _ = stage.events.select(failed, offset=0, limit=9, ascending=True)
        assert [(one.error_code, one.error_message) for one in events] == [
            ("volume_unavailable", "gone")
        ] * 2

        async def agree(_: Sandbox) -> None:
            assert stage.runtime.calls[-1] == "freeze", "before anything runs"

        stage.sandboxes.before_resume(agree)
        await stage.sandboxes.resume(snapshot.id)
        assert (sandbox.state, sandbox.incarnation) == (State.RUNNING, 2)

    play(script)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (VolumeLost("gone"), "volume_unavailable"),
        (MountTaken("taken"), "volume_mount_conflict"),
        (ApiError(VOLUME_UNAVAILABLE), "volume_unavailable"),
    ],
)
def test_a_create_that_its_setup_keeps_from_running(error: Exception, code: str) -> None:
    """The reason is told, and the sandbox is gone."""

    async def script(stage: Stage) -> None:
        stage.runtime.fail["create"] = error
        assert await _code(stage.create()) == code
        assert stage.sandboxes.living() == []

    play(script)
