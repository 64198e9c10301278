"""Who is there, who was, and which snapshots lead where."""

from __future__ import annotations

import pytest

from edge.appliance.problems import ApiError
from edge.appliance.registry import SNAPSHOTS, Registry
from edge.appliance.sandbox import Plan, Sandbox, Snapshot
from edge.appliance.store import Store
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
