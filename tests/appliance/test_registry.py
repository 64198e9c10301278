"""Who is there, who was, and which snapshots lead where."""

from __future__ import annotations

import pytest

from edge.appliance.problems import ApiError
from edge.appliance.registry import SNAPSHOTS, Registry
from edge.appliance.sandbox import Plan, Sandbox, Snapshot
from edge.appliance.store import Store, StoreError
from edge.core.records import State


def _sandbox(name: str) -> Sandbox:
    plan = Plan("base", 1, 1, "/workspace", {}, True, None, {}, None, None)
    return Sandbox(name, 1, plan, 0.0, 1000, "hibernate")


def _code(call: object) -> str:
    with pytest.raises(ApiError) as refused:
        call()  # type: ignore[operator]
    return refused.value.problem.code


def test_the_destroyed_are_remembered_and_then_forgotten(store: Store) -> None:
    """A tombstone is found but not got; the oldest makes room and is told."""
    forgotten: list[str] = []
    registry = Registry(store, forgotten.append, max_tombstones=1)
    first, second = _sandbox("sb_1"), _sandbox("sb_2")
    for sandbox in (first, second):
        registry.add(sandbox)
    assert registry.living() == [first, second]
    for sandbox in (first, second):
        sandbox.state = State.DESTROYED
        registry.bury(sandbox)
    assert registry.living() == []
    assert registry.find("sb_2") is second
    assert _code(lambda: registry.get("sb_2")) == "sandbox_not_found"
    assert registry.find("sb_1") is None
    assert forgotten == ["sb_1"]


def test_old_snapshots_still_lead_to_the_sandbox_up_to_a_number(store: Store) -> None:
    """A client may hold a snapshot id from before; it is dropped with the sandbox, or when too old."""
    registry = Registry(store, lambda _: None)
    sandbox = _sandbox("sb_1")
    registry.add(sandbox)
    for number in range(SNAPSHOTS + 1):
        registry.keep(Snapshot(f"snap_{number}", "sb_1", 0, 0.0))
    assert _code(lambda: registry.of_snapshot("snap_0")) == "snapshot_not_found"
    assert registry.of_snapshot("snap_1") is sandbox
    assert sandbox.snapshot is not None and sandbox.snapshot.id == f"snap_{SNAPSHOTS}"
    registry.bury(sandbox)
    assert _code(lambda: registry.of_snapshot("snap_1")) == "snapshot_not_found"


def test_a_tombstone_stays_while_the_file_cannot_forget_it(store: Store) -> None:
    """It goes with the next one; in the file and in memory are the same ones."""
    forgotten: list[str] = []
    registry = Registry(store, forgotten.append, max_tombstones=1)
    made = [_sandbox(f"sb_{number}") for number in range(3)]
    for sandbox in made:
        registry.add(sandbox)
        sandbox.state = State.DESTROYED
        registry.rows.put(sandbox)
    registry.bury(made[0])
    store.write("PRAGMA query_only = ON")
    with pytest.raises(StoreError):
        registry.bury(made[1])
    assert registry.find("sb_0") is made[0] and forgotten == []
    store.write("PRAGMA query_only = OFF")
    registry.bury(made[2])
    assert forgotten == ["sb_0", "sb_1"]
    assert [row[0] for row in store.read("SELECT id FROM sandboxes")] == ["sb_2"]


def test_after_a_restart_it_knows_the_same(store: Store) -> None:
    """The living with their snapshots, tombstones without, and the number to go on from."""
    first, second = _sandbox("sb_1"), _sandbox("sb_2")
    second.number = 7
    before = Registry(store, lambda _: None)
    for sandbox in (first, second):
        before.add(sandbox)
        before.keep(Snapshot(f"snap_{sandbox.id}", sandbox.id, 5, 6.0))
        before.rows.put(sandbox)
    second.state = State.DESTROYED
    before.rows.put(second)
    after = Registry(store, lambda _: None)
    assert [sandbox.id for sandbox in after.living()] == ["sb_1"]
    assert after.of_snapshot("snap_sb_1").snapshot == Snapshot("snap_sb_1", "sb_1", 5, 6.0)
    assert _code(lambda: after.of_snapshot("snap_sb_2")) == "snapshot_not_found"
    assert after.find("sb_2") is not None and after.last_number == 7


def test_a_snapshot_can_be_forgotten(store: Store) -> None:
    """It leads nowhere then, also after a restart; the others still do."""
    registry = Registry(store, lambda _: None)
    sandbox = _sandbox("sb_1")
    registry.add(sandbox)
    for number in range(3):
        registry.keep(Snapshot(f"snap_{number}", "sb_1", number, 0.0))
    registry.forget("snap_2")
    assert sandbox.snapshot is None
    registry.forget("snap_0")
    after = Registry(store, lambda _: None)
    for one in (registry, after):
        assert [snapshot.id for _, snapshot in one.snapshots()] == ["snap_1"]
        assert _code(lambda one=one: one.of_snapshot("snap_0")) == "snapshot_not_found"
    store.write("PRAGMA query_only = ON")
    with pytest.raises(StoreError):
        registry.forget("snap_1")
    assert registry.of_snapshot("snap_1") is sandbox and len(sandbox.snapshots) == 1
