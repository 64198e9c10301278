"""After a restart: who is in error, who is told why, and which numbers the records have."""

from __future__ import annotations

import asyncio

import pytest
from stage import Stage, play

from edge.appliance.events import EventFilter, LifecycleEvent, Operation
from edge.appliance.problems import ApiError
from edge.appliance.requests import SetTimeout
from edge.appliance.store import Store, StoreError
from edge.core.records import State

FLOOR = 10**12


def _events(stage: Stage) -> list[LifecycleEvent]:
    """What reconciling told; the log has what was before, too."""
    wanted = EventFilter(operation=Operation.RECONCILE)
    return stage.events.select(wanted, offset=0, limit=99, ascending=True)[0]


def _code(call: object) -> str:
    with pytest.raises(ApiError) as refused:
        call()  # type: ignore[operator]
    return refused.value.problem.code


def test_what_ran_or_was_paused_is_in_error_and_says_why(store: Store) -> None:
    """With what was set, a version above the floor, no timeout, and one event; the destroyed stay so."""
    ids: list[str] = []

    async def before(stage: Stage) -> None:
        running, paused, destroyed = [await stage.create() for _ in range(3)]
        snapshot = await stage.sandboxes.pause(paused)
        await stage.sandboxes.destroy(destroyed)
        stage.sandboxes.set_timeout(running, SetTimeout(timeout_ms=7000))
        stage.sandboxes.switch_previews(running, disabled=True)
        ids.extend([running.id, paused.id, destroyed.id, snapshot.id])

    async def after(stage: Stage) -> None:
        left = stage.sandboxes.reconcile(FLOOR)
        assert [sandbox.id for sandbox in left] == ids[:2]
        running, paused = left
        for sandbox in left:
            record = sandbox.record()
            assert (record.state, record.upstream, record.incarnation) == (State.ERROR, None, 1)
            assert record.version > FLOOR and sandbox.timeout_at is None
        assert (running.timeout_ms, running.previews_disabled) == (7000, True)
        assert stage.sandboxes.living() == left
        assert _code(lambda: stage.sandboxes.get(ids[2])) == "sandbox_not_found"
        tombstone = stage.sandboxes.record(ids[2])
        assert tombstone is not None and tombstone.state is State.DESTROYED
        told = _events(stage)
        assert [event.sandbox_id for event in told] == ids[:2]
        assert {(e.operation, e.status, e.actor, e.reason, e.error_code) for e in told} == {
            ("reconcile", "failed", "reconcile", "restart", "runtime_lost")
        }
        assert [event.metadata for event in told] == [
            {"previous_status": "running"},
            {"previous_status": "paused"},
        ]
        assert [event.snapshot_id for event in told] == [None, ids[3]]
        with pytest.raises(ApiError, match="sandbox_not_ready"):
            await stage.sandboxes.resume(ids[3])
        new = await stage.create()
        assert new.number == 4 and new.version < FLOOR
        await stage.sandboxes.destroy(running)
        assert stage.sandboxes.living() == [paused, new]

    play(before, store)
    play(after, store)


def test_one_that_is_in_error_already_is_told_of_once(store: Store) -> None:
    """At the next restart only its version grows."""

    async def before(stage: Stage) -> None:
        await stage.create()

    async def after(stage: Stage) -> None:
        (sandbox,) = stage.sandboxes.reconcile(FLOOR)
        assert len(_events(stage)) == 1
        (again,) = stage.sandboxes.reconcile(2 * FLOOR)
        assert again is sandbox and sandbox.version > 2 * FLOOR
        assert len(_events(stage)) == 1

    play(before, store)
    play(after, store)


def test_what_was_ephemeral_is_destroyed(store: Store) -> None:
    """Its events say why and that it is gone; so do records; the next restart finds nothing more to do."""
    ids: list[str] = []

    async def before(stage: Stage) -> None:
        running = await stage.create(ephemeral=True)
        paused = await stage.create(ephemeral=True, auto_resume=False)
        await stage.sandboxes.pause(paused)
        ids.extend([running.id, paused.id])

    async def after(stage: Stage) -> None:
        assert stage.sandboxes.reconcile(FLOOR) == stage.sandboxes.living() == []
        told = stage.events.select(EventFilter(), offset=0, limit=99, ascending=True)[0][-4:]
        assert [(e.sandbox_id, f"{e.operation} {e.status} {e.reason}") for e in told] == [
            (each, what)
            for each in ids
            for what in ("reconcile failed restart", "destroy succeeded restart")
        ]
        assert "files are gone" in (told[0].error_message or "")
        for each in ids:
            record = stage.sandboxes.record(each)
            assert record is not None and record.version > FLOOR
            assert record.state is State.DESTROYED
        assert stage.sandboxes.snapshots() == []

    async def again(stage: Stage) -> None:
        assert stage.sandboxes.reconcile(2 * FLOOR) == []
        assert len(_events(stage)) == 2

    play(before, store)
    play(after, store)
    play(again, store)


def test_a_create_that_was_not_acknowledged_has_not_happened(store: Store) -> None:
    """Killed while the sandbox is being made: nobody was told of it, so there is none."""

    async def before(stage: Stage) -> None:
        stage.runtime.seconds["create"] = 10.0
        making = stage.scope.spawn(stage.create(), name="create")
        await asyncio.sleep(1.0)
        making.cancel()

    async def after(stage: Stage) -> None:
        assert stage.sandboxes.reconcile(FLOOR) == []

    play(before, store)
    play(after, store)


def test_a_sandbox_being_made_that_somebody_has_set_is_kept(store: Store) -> None:
    """It is listed while it is made, so its timeout may be set; that was acknowledged."""

    async def before(stage: Stage) -> None:
        stage.runtime.seconds["create"] = 10.0
        making = stage.scope.spawn(stage.create(), name="create")
        await asyncio.sleep(1.0)
        stage.sandboxes.set_timeout(stage.sandboxes.living()[0], SetTimeout(timeout_ms=7000))
        making.cancel()

    async def after(stage: Stage) -> None:
        (sandbox,) = stage.sandboxes.reconcile(FLOOR)
        assert (sandbox.state, sandbox.timeout_ms) == (State.ERROR, 7000)

    play(before, store)
    play(after, store)


def test_files_of_one_in_error_can_be_read_and_nothing_else(store: Store) -> None:
    """Whoever wants more than to read is told that it is not ready."""

    async def before(stage: Stage) -> None:
        await stage.create()

    async def after(stage: Stage) -> None:
        (sandbox,) = stage.sandboxes.reconcile(FLOOR)
        async with stage.sandboxes.use(sandbox.id, reading=True) as read:
            assert read is sandbox
        with pytest.raises(ApiError, match="sandbox_not_ready"):
            async with stage.sandboxes.use(sandbox.id):
                pass

    play(before, store)
    play(after, store)


def test_a_timeout_that_passes_takes_no_files_away(store: Store) -> None:
    """Timeouts were meant for what ran: it stays until somebody kills it, also when its timeout is set."""

    async def before(stage: Stage) -> None:
        await stage.create(timeout=1.0, action="destroy", auto_resume=False)

    async def after(stage: Stage) -> None:
        (sandbox,) = stage.sandboxes.reconcile(FLOOR)
        stage.sandboxes.set_timeout(sandbox, SetTimeout(timeout_ms=1000))
        sentinel = await stage.create(timeout=5.0, action="destroy", auto_resume=False)
        await asyncio.sleep(10.0)
        assert not sentinel.alive
        assert sandbox.state is State.ERROR and sandbox.timeout_at is None

    play(before, store)
    play(after, store)


# --- A disk that is full ----------------------------------------------------------------------------


async def _refused(awaitable: object) -> None:
    with pytest.raises((StoreError, ApiError)):
        await awaitable  # type: ignore[misc]


def test_what_cannot_be_written_is_refused_and_undone(store: Store) -> None:
    """Create, kill, a timeout and the operator's switch: as they were, and edges hear nothing."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        before, changes = sandbox.record(), len(stage.states())
        store.write("PRAGMA query_only = ON")
        await _refused(stage.sandboxes.destroy(sandbox))
        with pytest.raises(StoreError):
            stage.sandboxes.set_timeout(sandbox, SetTimeout(timeout_ms=1))
        with pytest.raises(StoreError):
            stage.sandboxes.switch_previews(sandbox, disabled=True)
        assert sandbox.record() == before and len(stage.states()) == changes
        assert sandbox.timeout_ms == 1_000_000
        await _refused(stage.create())
        assert stage.sandboxes.living() == [sandbox]
        assert stage.runtime.calls == ["create", "create", "destroy"]
        store.write("PRAGMA query_only = OFF")
        await stage.sandboxes.destroy(sandbox)
        assert stage.sandboxes.living() == []

    play(script, store)


def test_pausing_and_waking_go_on_without_room_on_the_disk(store: Store) -> None:
    """After a restart it makes no difference which of them it was; it is told in the log."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create()
        store.write("PRAGMA query_only = ON")
        snapshot = await stage.sandboxes.pause(sandbox)
        await stage.sandboxes.resume(snapshot.id)
        assert (sandbox.state, sandbox.incarnation) == (State.RUNNING, 2)
        assert "state_not_written" in stage.logged
        store.write("PRAGMA query_only = OFF")

    play(script, store)


def test_a_timeout_that_cannot_be_written_is_tried_again(store: Store) -> None:
    """The sandbox runs on meanwhile."""

    async def script(stage: Stage) -> None:
        sandbox = await stage.create(timeout=2.0, action="destroy", auto_resume=False)
        store.write("PRAGMA query_only = ON")
        await asyncio.sleep(3.0)
        assert sandbox.state is State.RUNNING
        store.write("PRAGMA query_only = OFF")
        await asyncio.sleep(3.0)
        assert not sandbox.alive
        assert isinstance(stage.crashes.pop(), StoreError) and not stage.crashes

    play(script, store)
