"""The record of a sandbox: what edges may rely on in every state."""

from __future__ import annotations

import dataclasses
import json

import pytest

from edge.appliance.sandbox import Plan, Sandbox, Snapshot, from_document, to_document
from edge.appliance.volumes.volume import Attachment
from edge.core.records import State


@pytest.mark.parametrize("state", State)
def test_a_route_exists_exactly_while_it_runs(state: State) -> None:
    """Upstream and start time are told while processes run, a pausing one included, else never."""
    plan = Plan("base", 1, 1, "/workspace", {}, True, 5.0, {}, "localhost:${PORT}", "ab" * 32)
    sandbox = Sandbox("sb_1", 1, plan, 0.0, 1000, "hibernate", state, 3, 2, started_at=9.0)
    record = sandbox.record()
    runs = state in (State.RUNNING, State.PAUSING)
    assert (record.upstream is not None) is runs
    assert (record.running_since == 9.0) is runs
    if runs:
        assert record.upstream is not None
        assert record.upstream.address(8080) == ("127.0.0.1", 8080)
    assert (record.version, record.incarnation, record.auto_resume) == (3, 2, True)
    assert record.mask_request_host == "localhost:${PORT}"
    assert record.traffic_token_sha256 == "ab" * 32
    assert sandbox.idle_at == 5.0


def test_a_sandbox_is_the_same_after_it_was_written() -> None:
    """Every field, except those of the loop's clock and what runs now: nobody forgets to write a new one."""
    plan = Plan("t", 2, 3, "/c", {"a": [1, None]}, True, 5.0, {"hit": False}, "h", "ab" * 32)
    sandbox = Sandbox(
        *("sb_1", 9, plan, 1.25, 1000, "destroy", State.PAUSED, 3, 2, 4.5, 6.5),
        previews_disabled=True,
        snapshot=Snapshot("snap_1", "sb_1", 5, 1.0),
        snapshots=[Snapshot("snap_0", "sb_1", 4, 0.5), Snapshot("snap_1", "sb_1", 5, 1.0)],
        attachments=[Attachment("vat_1", "vol_1", ("a", "b"), ("c",), 1.0, 2.0, "code", "text")],
    )
    again = from_document(json.loads(json.dumps(to_document(sandbox))))
    passing = {"deadline", "last_activity", "calls", "lock", "ports"}
    for field in dataclasses.fields(Sandbox):
        if field.name not in passing:
            assert getattr(again, field.name) == getattr(sandbox, field.name), field.name
            assert field.name in ("id", "plan") or getattr(sandbox, field.name) != field.default


def test_a_sandbox_of_an_older_file_is_read() -> None:
    """Which had names for snapshots and no attachments: the names mean nothing any more."""
    plan = Plan("t", 2, 3, "/c", {}, True, None, {}, None, None)
    document = to_document(Sandbox("sb_1", 1, plan, 0.0, 1000, "destroy", State.ERROR))
    del document["attachments"]
    again = from_document(document | {"snapshots": ["snap_0"]})
    assert (again.snapshots, again.attachments) == ([], [])
