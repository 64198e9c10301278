"""Objects of the API: exactly the keys that the published client takes."""

from __future__ import annotations

from dataclasses import fields

import pytest
from nullspace.types import (
    LifecycleEvent,
    PreviewGrantInfo,
    PreviewUrl,
    SandboxHostInfo,
    SandboxInfo,
    SnapshotInfo,
)

from edge.appliance.events import Actor, EventFilter, EventLog, Operation, Status
from edge.appliance.grants import Grant, Preview
from edge.appliance.sandbox import Plan, Sandbox, Snapshot
from edge.appliance.views import (
    SANDBOX_FIELDS,
    event_view,
    grant_view,
    host_view,
    preview_view,
    rfc3339,
    sandbox_view,
    snapshot_view,
)
from edge.core.records import State

GRANT = Grant("pvg_1", "sb_1", 80, issued_at=1.0, expires_at=2.0, updated_at=1.0)
PREVIEW = Preview(GRANT, "host", "http://host/", "ws://host/")


def test_grants_have_all_keys_of_the_client_and_no_other() -> None:
    """One unknown key would be a TypeError there."""
    view = grant_view(GRANT, 1.5)
    assert view.keys() == {field.name for field in fields(PreviewGrantInfo)}
    assert PreviewGrantInfo(**view).status == "active"  # type: ignore[arg-type]
    assert grant_view(GRANT, 2.0)["status"] == "expired"


def test_other_objects_fit_the_client() -> None:
    """Preview URLs, hosts, snapshots and events are built by the client's own classes."""
    url = PreviewUrl(**preview_view(PREVIEW, 1.5))  # type: ignore[arg-type]
    assert url.access_token_transport == "query"
    host = SandboxHostInfo(**host_view(PREVIEW))  # type: ignore[arg-type]
    assert host.access_token_expires_at == url.access_token_expires_at
    snapshot = snapshot_view(Snapshot("snap_1", "sb_1", 5, 1.0))
    assert SnapshotInfo(**snapshot).size_bytes == 5  # type: ignore[arg-type]
    log = EventLog(lambda: 1.0)
    log.emit(Operation.CREATE, Status.SUCCEEDED, sandbox_id="sb_1", actor=Actor.USER, reason="api")
    (event,), _ = log.select(EventFilter(), offset=0, limit=1, ascending=True)
    assert LifecycleEvent(**event_view(event)).reason == "api"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "status", "snapshot"),
    [
        (State.RUNNING, "running", False),
        (State.PAUSING, "running", False),
        (State.PAUSED, "paused", True),
        (State.RESUMING, "paused", True),
        (State.ERROR, "error", False),
    ],
)
def test_a_sandbox_names_its_snapshot_only_while_paused(
    state: State, status: str, snapshot: bool
) -> None:
    """Inner states show as published ones, and the secret shows only where it is handed in."""
    plan = Plan(
        "base", 1, 2, "/workspace", {"a": 1}, True, None, {"source": "cold_create"}, None, None
    )
    sandbox = Sandbox("sb_1", 1, plan, 0.0, 1000, "hibernate", state)
    sandbox.snapshot = Snapshot("snap_1", "sb_1", 5, 1.0)
    view = sandbox_view(sandbox)
    assert view["status"] == status
    assert ("snapshot_id" in view) is snapshot
    assert "traffic_access_token" not in view
    full = sandbox_view(sandbox, "secret")
    assert full["traffic_access_token"] == "secret"
    assert set(full) | {"snapshot_id"} == set(SANDBOX_FIELDS)
    assert set(SANDBOX_FIELDS) == {field.name for field in fields(SandboxInfo)}


def test_times_are_rfc3339_in_utc() -> None:
    """Microseconds and a Z."""
    assert rfc3339(1_700_000_000.25) == "2023-11-14T22:13:20.250000Z"
    assert rfc3339(None) is None
