"""Concurrency: many ask at once, one transition happens, leavers disturb nobody."""

from __future__ import annotations

import asyncio
import re

import pytest
from stage import Stage, play

from edge.appliance.events import Actor
from edge.appliance.problems import RUNTIME_LOST, ApiError
from edge.appliance.requests import SetTimeout
from edge.appliance.sandbox import Cause, Sandbox
from edge.appliance.sandboxes import new_id
from edge.core.records import SandboxRecord, State, Upstream

EDGE = Cause(Actor.SYSTEM, "preview")


async def _wake(
    stage: Stage, sandbox: Sandbox, incarnation: int = 1, timeout: float = 20.0
) -> SandboxRecord | None:
    return await stage.sandboxes.wake(
        sandbox.id, paused_incarnation=incarnation, cause=EDGE, timeout=timeout
    )


async def _code(awaitable: object) -> str:
    with pytest.raises(ApiError) as refused:
        await awaitable  # type: ignore[misc]
    return refused.value.problem.code


def test_a_hundred_wakes_are_one_incarnation() -> None:
    """All get the running record; half of the callers leave, the first among them."""

    async def script(stage: Stage) -> None:
        stage.runtime.seconds["thaw"] = 1.0
        sandbox = await stage.create()
        await stage.sandboxes.pause(sandbox)
        wakes = [asyncio.create_task(_wake(stage, sandbox)) for _ in range(100)]
        await asyncio.sleep(0.5)
        for leaver in wakes[:50]:
            leaver.cancel()
        records = await asyncio.gather(*wakes[50:])
        assert {(r.state, r.incarnation) for r in records if r} == {(State.RUNNING, 2)}
        assert stage.runtime.calls.count("thaw") == 1
        assert sandbox.incarnation == 2
        await asyncio.gather(*wakes[:50], return_exceptions=True)

    play(script)


def test_a_wake_of_another_incarnation_resumes_nothing() -> None:
    """Whoever saw an older pause gets the current record, paused as it is."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        snapshot = await stage.sandboxes.pause(sandbox)
        await stage.sandboxes.resume(snapshot.id)
        await stage.sandboxes.pause(sandbox)
        record = await _wake(stage, sandbox, incarnation=1)
        assert record is not None
        assert (record.state, record.incarnation) == (State.PAUSED, 2)

    play(script)


def test_a_wake_in_the_middle_of_a_pause_finishes_it_first() -> None:
    """``pausing`` becomes ``paused`` and then runs again: the freeze is never left half done."""

    async def script(stage: Stage) -> None:
        stage.runtime.seconds["freeze"] = 1.0
        sandbox = await stage.create()
        pausing = asyncio.create_task(stage.sandboxes.pause(sandbox))
        await asyncio.sleep(0.5)
        assert sandbox.state is State.PAUSING
        record = await _wake(stage, sandbox)
        assert record is not None and record.state is State.RUNNING and record.incarnation == 2
        await pausing
        assert stage.states()[2:] == ["pausing", "paused", "resuming", "running"]

    play(script)


def test_a_wake_that_takes_too_long_is_told_and_goes_on() -> None:
    """The edge hears of the timeout; the resume it began comes to its end."""

    async def script(stage: Stage) -> None:
        stage.runtime.seconds["thaw"] = 10.0
        sandbox = await stage.create()
        await stage.sandboxes.pause(sandbox)
        assert await _code(_wake(stage, sandbox, timeout=2.0)) == "resume_timeout"
        await asyncio.sleep(9)
        assert sandbox.state is State.RUNNING

    play(script)


def test_without_auto_resume_only_the_api_resumes() -> None:
    """An edge and an exec are refused, a resume by snapshot is not."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create(auto_resume=False)
        snapshot = await stage.sandboxes.pause(sandbox)
        assert await _code(_wake(stage, sandbox)) == "auto_resume_disabled"
        assert await _code(stage.sandboxes.use(sandbox.id).__aenter__()) == "sandbox_not_ready"
        assert sandbox.state is State.PAUSED
        await stage.sandboxes.resume(snapshot.id)
        assert sandbox.state is State.RUNNING

    play(script)


def test_use_resumes_once_for_all() -> None:
    """Ten commands on a paused sandbox: one thaw, all run."""

    async def script(stage: Stage) -> None:
        stage.runtime.seconds["thaw"] = 1.0
        sandbox = await stage.create()
        await stage.sandboxes.pause(sandbox)

        async def call() -> State:
            async with stage.sandboxes.use(sandbox.id) as running:
                return running.state

        assert await asyncio.gather(*(call() for _ in range(10))) == [State.RUNNING] * 10
        assert stage.runtime.calls.count("thaw") == 1
        assert sandbox.calls == 0

    play(script)


def test_use_gives_up_before_the_client_does() -> None:
    """A thaw that hangs is 503 before the client's 30 s are over."""

    async def script(stage: Stage) -> None:
        stage.runtime.seconds["thaw"] = 100.0
        sandbox = await stage.create()
        await stage.sandboxes.pause(sandbox)
        start = stage.loop.time()
        assert await _code(stage.sandboxes.use(sandbox.id).__aenter__()) == "resume_timeout"
        assert stage.loop.time() - start < 30
        assert sandbox.calls == 0

    play(script)


def test_pausing_twice_is_one_snapshot() -> None:
    """At once or later, a second pause answers what the first one made."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        both = (stage.sandboxes.pause(sandbox), stage.sandboxes.pause(sandbox))
        first, second = await asyncio.gather(*both)
        assert first == second == await stage.sandboxes.pause(sandbox)
        assert stage.runtime.calls.count("freeze") == 1

    play(script)


def test_a_resumed_snapshot_answers_the_running_sandbox() -> None:
    """Resuming again, even from an older snapshot, starts nothing new while it runs."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        first = await stage.sandboxes.pause(sandbox)
        await stage.sandboxes.resume(first.id)
        assert await stage.sandboxes.resume(first.id) is sandbox
        assert sandbox.incarnation == 2
        await stage.sandboxes.pause(sandbox)
        await stage.sandboxes.resume(first.id)
        assert (sandbox.state, sandbox.incarnation) == (State.RUNNING, 3)

    play(script)


def test_destroy_ends_what_waits() -> None:
    """Whoever waits for a destroyed sandbox is told so; its snapshot is gone; edges get a tombstone."""

    async def script(stage: Stage) -> None:
        stage.runtime.seconds["destroy"] = 1.0
        sandbox = await stage.create()
        snapshot = await stage.sandboxes.pause(sandbox)
        ending = asyncio.create_task(stage.sandboxes.destroy(sandbox))
        await asyncio.sleep(0.5)
        assert await _code(stage.sandboxes.destroy(sandbox)) == "sandbox_not_found"
        await ending
        assert await _code(stage.sandboxes.resume(snapshot.id)) == "snapshot_not_found"
        record = await _wake(stage, sandbox)
        assert record is not None and record.state is State.DESTROYED
        assert stage.sandboxes.record(sandbox.id) == record
        assert stage.sandboxes.known(sandbox.id)
        assert stage.sandboxes.record("sb_unknown") is None

    play(script)


def test_resume_while_it_is_destroyed() -> None:
    """A resume that waited for the lock finds the sandbox gone."""

    async def script(stage: Stage) -> None:
        stage.runtime.seconds["destroy"] = 1.0
        sandbox = await stage.create()
        snapshot = await stage.sandboxes.pause(sandbox)
        ending = asyncio.create_task(stage.sandboxes.destroy(sandbox))
        resuming = asyncio.create_task(stage.sandboxes.resume(snapshot.id))
        assert await _code(resuming) == "snapshot_not_found"
        await ending

    play(script)


def test_set_timeout_keeps_auto_resume_possible() -> None:
    """A sandbox that resumes by itself cannot be told to destroy itself; nothing is changed or told."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        with pytest.raises(ApiError, match="auto_resume"):
            stage.sandboxes.set_timeout(
                sandbox, SetTimeout(timeout_ms=1000, timeout_action="destroy")
            )
        assert sandbox.timeout_ms == 1_000_000
        assert stage.happened() == ["create succeeded"]

    play(script)


def test_refusals_are_no_crashes() -> None:
    """The scope hears of refused calls, and they are refusals, not accidents."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create(auto_resume=False)
        await stage.sandboxes.pause(sandbox)
        await _code(_wake(stage, sandbox))
        assert all(isinstance(error, ApiError) for error in stage.crashes)

    play(script)


def test_a_place_that_is_there_already_is_taken_over() -> None:
    """The sandbox has its id and everything else anew; nothing is made, but it ends like any other."""

    async def script(stage: Stage) -> None:
        await stage.create()
        made = await stage.create(timeout=10.0)
        await asyncio.sleep(5.0)
        calls = len(stage.runtime.calls)
        plan = made.plan
        warm = await stage.sandboxes.create(
            plan, envs={}, cwd=None, timeout_ms=10_000, timeout_action="destroy", place="sb_warm"
        )
        assert len(stage.runtime.calls) == calls
        assert (warm.id, warm.number, warm.incarnation) == ("sb_warm", made.number + 1, 1)
        assert warm.created_at == warm.started_at == stage.loop.time()
        assert stage.happened()[-1] == "create succeeded"
        await asyncio.sleep(11.0)
        assert warm.state is State.DESTROYED and stage.runtime.calls[-1] == "destroy"

    play(script)


def test_ids_are_all_different() -> None:
    """And of the published form."""
    ids = {new_id() for _ in range(100)}
    assert len(ids) == 100 and all(re.fullmatch(r"sb_[a-z0-9]{8,40}", one) for one in ids)


def test_previews_are_switched_without_waiting_for_a_transition() -> None:
    """Edges hear at once, in the midst of a resume; the switch outlives it, and repeating it is nothing."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        await stage.sandboxes.pause(sandbox)
        stage.runtime.seconds["thaw"] = 10.0
        waking = asyncio.create_task(_wake(stage, sandbox))
        await asyncio.sleep(1.0)
        cursor = stage.feed.cursor
        assert stage.sandboxes.switch_previews(sandbox, disabled=True)
        assert not stage.sandboxes.switch_previews(sandbox, disabled=True)
        (change,) = stage.feed.since(cursor) or []
        told = change.record
        assert isinstance(told, SandboxRecord)
        assert (told.state, told.previews_disabled) == (State.RESUMING, True)
        record = await waking
        assert record is not None and record.previews_disabled
        assert (record.state, record.version) == (State.RUNNING, told.version + 1)
        assert stage.sandboxes.switch_previews(sandbox, disabled=False)
        assert not sandbox.record().previews_disabled

    play(script)


def test_a_resume_is_told_as_it_was_when_it_was_done() -> None:
    """Whoever waits for the lock behind a resume does not change what the resume answers."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        snapshot = await stage.sandboxes.pause(sandbox)
        seen: list[State] = []
        resuming = stage.sandboxes.resume(snapshot.id, seen=lambda one: seen.append(one.state))
        await asyncio.gather(resuming, stage.sandboxes.destroy(sandbox))
        assert (seen, sandbox.state) == ([State.RUNNING], State.DESTROYED)

    play(script)


@pytest.mark.parametrize(("killed", "code"), [(True, "sandbox_not_found"), (False, "runtime_lost")])
def test_a_call_whose_sandbox_is_killed_meanwhile(killed: bool, code: str) -> None:
    """Its processes are gone because there is no sandbox any more; that is what the caller hears."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()

        async def call() -> None:
            async with stage.sandboxes.use(sandbox.id):
                if killed:
                    await stage.sandboxes.destroy(sandbox)
                raise ApiError(RUNTIME_LOST)

        assert await _code(call()) == code
        assert sandbox.calls == 0

    play(script)


def test_a_port_of_an_isolated_sandbox_is_made_known_once() -> None:
    """Its record says where it is before anybody needs it, and that there is no other; others need none of that."""

    async def script(stage: Stage) -> None:
        shared = await stage.create()
        stage.sandboxes.reach(shared.id, 8080)
        assert shared.record().upstream == Upstream("127.0.0.1")
        stage.runtime.isolated = True
        sandbox = await stage.create()
        assert sandbox.record().upstream == Upstream("127.0.0.1", {}, only_ports=True)
        version = sandbox.version
        for port in (8080, 8080, 8081):
            stage.sandboxes.reach(sandbox.id, port)
        assert sandbox.version == version + 2
        told = (stage.feed.since(0) or [])[-1].record
        ports = {8080: 18080, 8081: 18081}
        assert told == sandbox.record()
        assert sandbox.record().upstream == Upstream("127.0.0.1", ports, only_ports=True)
        snapshot = await stage.sandboxes.pause(sandbox)
        assert sandbox.record().upstream is None
        await stage.sandboxes.resume(snapshot.id)
        assert sandbox.record().upstream == Upstream("127.0.0.1", ports, only_ports=True)
        assert [call for call in stage.runtime.calls if "publish" in call] == [
            "publish 8080",
            "publish 8081",
        ]
        stage.runtime.seconds["create"] = 10.0
        making = stage.scope.spawn(stage.create(), name="create")
        await asyncio.sleep(1.0)
        with pytest.raises(ApiError, match="sandbox_not_ready"):
            stage.sandboxes.reach(stage.sandboxes.living()[-1].id, 8080)
        await making

    play(script)


def test_without_a_free_port_nothing_is_made_known() -> None:
    """It is refused as any other limit is, and the next attempt may do better."""

    async def script(stage: Stage) -> None:
        stage.runtime.isolated = True
        sandbox = await stage.create()
        version = sandbox.version
        stage.runtime.fail["publish"] = OSError("none is free")
        with pytest.raises(ApiError, match="quota_exceeded"):
            stage.sandboxes.reach(sandbox.id, 8080)
        assert (sandbox.version, sandbox.ports) == (version, {})

    play(script)
