"""Timeouts in virtual time: an order cuts, a question asks first."""

from __future__ import annotations

import asyncio

from stage import Stage, play

from edge.appliance.events import EventFilter, Operation
from edge.appliance.requests import SetTimeout
from edge.appliance.sandbox import Sandbox
from edge.core.records import SandboxRecord, State


async def _answer(stage: Stage, in_flight: int) -> None:
    """Play an edge that answers every pausing record."""
    seen = 0
    while True:
        news = stage.feed.news
        for change in stage.feed.since(seen) or []:
            seen = change.cursor
            record = change.record
            if isinstance(record, SandboxRecord) and record.state is State.PAUSING:
                stage.edges.ack("edge", record.id, record.version, in_flight)
        await news.wait()


def _expired(sandbox: Sandbox) -> bool:
    return sandbox.state in (State.PAUSED, State.DESTROYED)


def test_timeout_ms_pauses_to_the_millisecond() -> None:
    """Running until then, paused after; traffic does not postpone it."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create(timeout=10)
        await asyncio.sleep(9.999)
        stage.sandboxes.touch(sandbox.id)
        assert sandbox.state is State.RUNNING
        await asyncio.sleep(0.002)
        assert sandbox.state is State.PAUSED
        assert stage.happened()[1:] == [
            "timeout_expired succeeded",
            "hibernate requested",
            "hibernate succeeded",
            "snapshot_created succeeded",
        ]
        assert sandbox.deadline is None

    play(script)


def test_timeout_destroys_where_that_was_asked_for() -> None:
    """The default action ends the sandbox."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create(timeout=10, action="destroy", auto_resume=False)
        await asyncio.sleep(10.001)
        assert sandbox.state is State.DESTROYED
        assert stage.happened()[1:] == [
            "timeout_expired succeeded",
            "destroy requested",
            "destroy succeeded",
        ]

    play(script)


def test_an_ordered_pause_waits_for_no_edge() -> None:
    """A live edge that never answers does not hold up ``timeout_ms``, but it sees ``pausing``."""

    async def script(stage: Stage) -> None:
        with stage.edges.watching("edge"):
            sandbox = await stage.create(timeout=10)
            await asyncio.sleep(10.001)
            assert sandbox.state is State.PAUSED
            assert stage.states()[-2:] == ["pausing", "paused"]

    play(script)


def test_a_resume_starts_the_timeout_anew() -> None:
    """The time before the pause does not count."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create(timeout=10)
        await asyncio.sleep(7)
        snapshot = await stage.sandboxes.pause(sandbox)
        await asyncio.sleep(100)
        await stage.sandboxes.resume(snapshot.id)
        await asyncio.sleep(9.9)
        assert sandbox.state is State.RUNNING
        await asyncio.sleep(0.2)
        assert sandbox.state is State.PAUSED

    play(script)


def test_while_paused_all_timeouts_stand_still() -> None:
    """However long, and whatever is set meanwhile: that begins with the resume, and so does inactivity."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create(timeout=10, inactivity=8, auto_resume=False)
        await asyncio.sleep(5)
        snapshot = await stage.sandboxes.pause(sandbox)
        before = stage.happened()
        assert sandbox.timeout_at is None
        stage.sandboxes.set_timeout(sandbox, SetTimeout(timeout_ms=3000, timeout_action="destroy"))
        await asyncio.sleep(1000)
        assert sandbox.state is State.PAUSED and sandbox.timeout_at is None
        assert stage.happened()[len(before) :] == [
            "timeout_updated requested",
            "timeout_updated succeeded",
        ]
        await stage.sandboxes.resume(snapshot.id)
        await asyncio.sleep(2.9)
        assert sandbox.state is State.RUNNING
        await asyncio.sleep(0.2)
        assert sandbox.state is State.DESTROYED

    play(script)


def test_the_event_says_which_timeout_and_what_it_did() -> None:
    """``metadata`` names it and the action; reason and actor are those of what follows, too."""

    async def script(stage: Stage) -> None:
        edge = stage.scope.spawn(_answer(stage, 0), name="edge")
        with stage.edges.watching("edge"):
            await stage.create(timeout=10)
            await stage.create(inactivity=20, action="destroy", auto_resume=False)
            await asyncio.sleep(25)
        edge.cancel()
        events, _ = stage.events.select(EventFilter(), offset=0, limit=99, ascending=True)
        told = [e for e in events if e.operation is not Operation.CREATE]
        assert {(e.reason, e.actor) for e in told} == {("timeout", "system")}
        assert [e.metadata for e in told if e.operation is Operation.TIMEOUT_EXPIRED] == [
            {"timeout": "timeout_ms", "timeout_action": "hibernate"},
            {"timeout": "inactivity_timeout_ms", "timeout_action": "destroy"},
        ]

    play(script)


def test_set_timeout_moves_it_both_ways() -> None:
    """Longer and shorter take effect at once, counted from the call."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create(timeout=10)
        await asyncio.sleep(5)
        stage.sandboxes.set_timeout(sandbox, SetTimeout(timeout_ms=20_000))
        await asyncio.sleep(19)
        assert sandbox.state is State.RUNNING
        stage.sandboxes.set_timeout(sandbox, SetTimeout(timeout_ms=500))
        await asyncio.sleep(0.501)
        assert sandbox.state is State.PAUSED
        assert stage.happened().count("timeout_updated requested") == 2

    play(script)


def test_inactivity_pauses_when_every_edge_is_quiet() -> None:
    """Activity postpones; without any, the edges are asked and agree."""

    async def script(stage: Stage) -> None:
        edge = stage.scope.spawn(_answer(stage, 0), name="edge")
        with stage.edges.watching("edge"):
            sandbox = await stage.create(inactivity=20)
            for _ in range(10):
                await asyncio.sleep(15)
                stage.sandboxes.touch(sandbox.id)
                assert sandbox.state is State.RUNNING
            await asyncio.sleep(20.1)
            assert sandbox.state is State.PAUSED
            assert sandbox.incarnation == 1
        edge.cancel()

    play(script)


def test_a_request_in_flight_keeps_it_running() -> None:
    """An edge that says one: running again with a new version, asked again after as long."""

    async def script(stage: Stage) -> None:
        edge = stage.scope.spawn(_answer(stage, 1), name="edge")
        with stage.edges.watching("edge"):
            sandbox = await stage.create(inactivity=20)
            await asyncio.sleep(70)
            assert stage.states() == ["creating", "running", *["pausing", "running"] * 3]
            assert sandbox.state is State.RUNNING
            assert "freeze" not in stage.runtime.calls
        edge.cancel()

    play(script)


def test_an_edge_that_does_not_answer_keeps_it_running() -> None:
    """No answer within the second is no zero; once the edge is gone, nobody is asked."""

    async def script(stage: Stage) -> None:
        with stage.edges.watching("edge"):
            sandbox = await stage.create(inactivity=20)
            await asyncio.sleep(22)
            assert stage.states()[-2:] == ["pausing", "running"]
        await asyncio.sleep(20)
        assert sandbox.state is State.PAUSED

    play(script)


def test_nobody_is_idle_before_edges_have_come_back() -> None:
    """After a restart an edge that has not come back yet may have a request in flight, and is not asked."""

    async def script(stage: Stage) -> None:
        stage.edges.complete_at = stage.loop.time() + 5
        sandbox = await stage.create(inactivity=1)
        await asyncio.sleep(4.9)
        assert stage.states() == ["creating", "running"]
        await asyncio.sleep(0.2)
        assert sandbox.state is State.PAUSED

    play(script)


def test_activity_while_the_edges_are_asked_wins() -> None:
    """A report of usage that arrives with the answers postpones the pause."""

    async def script(stage: Stage) -> None:
        with stage.edges.watching("edge"):
            sandbox = await stage.create(inactivity=20)
            await asyncio.sleep(20.5)
            assert sandbox.state is State.PAUSING
            stage.sandboxes.touch(sandbox.id)
            stage.edges.ack("edge", sandbox.id, sandbox.version, 0)
            await asyncio.sleep(0.1)
            assert sandbox.state is State.RUNNING

    play(script)


def test_a_call_under_way_keeps_it_running() -> None:
    """A command that runs for minutes is activity; its end starts the inactivity timeout."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create(inactivity=20)
        async with stage.sandboxes.use(sandbox.id):
            await asyncio.sleep(500)
            assert sandbox.state is State.RUNNING
        await asyncio.sleep(19.9)
        assert sandbox.state is State.RUNNING
        await asyncio.sleep(0.2)
        assert sandbox.state is State.PAUSED

    play(script)


def test_inactivity_destroys_where_that_was_asked_for() -> None:
    """The action of the timeout is the action of inactivity, after the same question."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create(inactivity=20, action="destroy", auto_resume=False)
        await asyncio.sleep(20.1)
        assert sandbox.state is State.DESTROYED
        assert stage.states()[-2:] == ["pausing", "destroyed"]

    play(script)


def test_a_timeout_that_cannot_pause_does_not_spin() -> None:
    """After a failed freeze the timeout starts anew instead of being due at once, for ever."""

    async def script(stage: Stage) -> None:
        stage.runtime.fail["freeze"] = RuntimeError("busy")
        sandbox = await stage.create(timeout=10)
        await asyncio.sleep(35)
        assert stage.runtime.calls.count("freeze") == 3
        assert sandbox.state is State.RUNNING

    play(script)


def test_nothing_is_due_after_close() -> None:
    """A control plane that stops leaves its sandboxes to the runtime."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create(timeout=10)
        stage.sandboxes.close()
        await asyncio.sleep(20)
        assert not _expired(sandbox)

    play(script)
