"""Objects of the API: exactly the keys that the published client takes."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from nullspace.types import (
    LifecycleEvent,
    PreviewGrantInfo,
    PreviewProxyTarget,
    PreviewUrl,
    SandboxHostInfo,
    SandboxInfo,
    SnapshotInfo,
    VolumeAttachment,
    VolumeAttachmentState,
    VolumeInfo,
    VolumeStatus,
)

from edge.appliance.audit import AuditEntry, Deed, Doer
from edge.appliance.events import Actor, EventFilter, EventLog, Operation, Status
from edge.appliance.grant import AuthMode, Grant
from edge.appliance.minter import Preview, ProxyTarget, Way
from edge.appliance.sandbox import Plan, Sandbox, Snapshot
from edge.appliance.store import Store
from edge.appliance.views import (
    SANDBOX_FIELDS,
    VOLUME_FIELDS,
    attachment_view,
    audit_view,
    event_view,
    grant_view,
    host_view,
    preview_view,
    proxy_target_view,
    rfc3339,
    sandbox_view,
    snapshot_view,
    volume_view,
)
from edge.appliance.volumes.volume import Attachment, Volume
from edge.core.records import State, Transport

GRANT = Grant("pvg_1", "sb_1", 80, issued_at=1.0, expires_at=2.0, updated_at=1.0)
PREVIEW = Preview(GRANT, "host", "http://host/", "ws://host/")


def test_grants_have_all_keys_of_the_client_and_no_other() -> None:
    """One unknown key would be a TypeError there."""
    view = grant_view(GRANT, 1.5)
    assert view.keys() == {field.name for field in fields(PreviewGrantInfo)}
    assert PreviewGrantInfo(**view).status == "active"  # type: ignore[arg-type]
    assert grant_view(GRANT, 2.0)["status"] == "expired"


@pytest.mark.parametrize(
    ("private", "required", "header"),
    [
        (None, None, None),
        (False, False, None),
        (True, True, "x-nullspace-traffic-access-token"),
    ],
)
def test_a_proxy_target_fits_the_client(
    private: bool | None, required: bool | None, header: str | None
) -> None:
    """No key the client does not know; what was not asked for has no key at all."""
    grant = Grant("pvg_1", "sb_1", 80, 1.0, 2.0, 1.0, AuthMode.PROXY, (Transport.HTTP,))
    target = ProxyTarget(grant, Way("http://host/", "token"), None)
    view = proxy_target_view(target, 1.5, private=private, warnings=["mind the gap"])
    assert ("traffic_access_required" in view) is (private is not None)
    assert ("traffic_access_header_name" in view) is (private is not None)
    assert not view.keys() & {"websocket_url", "websocket_token"}
    read = PreviewProxyTarget(**view)  # type: ignore[arg-type]
    assert (read.traffic_access_required, read.traffic_access_header_name) == (required, header)
    assert (read.http_url, read.http_token, read.token_transport) == (
        "http://host/", "token", "header",
    )  # fmt: skip
    assert read.token_header_name == "x-nullspace-preview-proxy-token"
    assert read.required_forwarded_headers == [
        "x-forwarded-host", "x-forwarded-proto", "x-forwarded-for",
    ]  # fmt: skip
    assert read.warnings == ["mind the gap"] and read.expires_at == read.grant.expires_at  # type: ignore[union-attr]
    assert (read.grant.auth_mode, read.grant.bootstrap_transport) == ("proxy", "header")  # type: ignore[union-attr]
    assert read.grant.token_kinds == ["http_port"]  # type: ignore[union-attr]
    both = ProxyTarget(grant, Way("a", "b"), Way("c", "d"))
    full = proxy_target_view(both, 1.5, private=True, warnings=[])
    assert full.keys() == {field.name for field in fields(PreviewProxyTarget)}


def test_audit_entries_show_what_applies() -> None:
    """About a grant, and about a whole sandbox."""
    entry = AuditEntry(1, 1.0, Deed.FAILED, Doer.VISITOR, "sb_1", "pvg_1", 80, "direct", "code")
    assert audit_view(entry) == {
        "id": 1,
        "occurred_at": "1970-01-01T00:00:01.000000Z",
        "event": "failed",
        "actor": "visitor",
        "sandbox_id": "sb_1",
        "grant_id": "pvg_1",
        "port": 80,
        "auth_mode": "direct",
        "code": "code",
    }
    entry = AuditEntry(2, 1.0, Deed.DISABLED, Doer.OPERATOR, "sb_1", reason="why")
    assert audit_view(entry).keys() == {
        "id", "occurred_at", "event", "actor", "sandbox_id", "reason",
    }  # fmt: skip


def test_other_objects_fit_the_client(store: Store) -> None:
    """Preview URLs, hosts, snapshots and events are built by the client's own classes."""
    url = PreviewUrl(**preview_view(PREVIEW, 1.5))  # type: ignore[arg-type]
    assert url.access_token_transport == "query"
    host = SandboxHostInfo(**host_view(PREVIEW))  # type: ignore[arg-type]
    assert host.access_token_expires_at == url.access_token_expires_at
    snapshot = snapshot_view(Snapshot("snap_1", "sb_1", 5, 1.0), {"a": 1})
    assert SnapshotInfo(**snapshot).metadata == {"a": 1}  # type: ignore[arg-type]
    log = EventLog(store, lambda: 1.0)
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


def test_volumes_and_attachments_fit_the_client() -> None:
    """Every key of its classes, every state a state of its enumerations."""
    plan = Plan("base", 1, 2, "/workspace", {"a": 1}, True, None, {}, None, None)
    good = Attachment("vat_1", "vol_1", ("a", "b"), (), 1.0, 2.0)
    bad = replace(good, id="vat_2", below=("c",), error_code="code", error_message="text")
    shown = VolumeInfo(**volume_view(Volume("vol_1", "n", 1.0), [], there=True, max_mounts=9))  # type: ignore[arg-type]
    assert [field.name for field in fields(VolumeInfo)] == VOLUME_FIELDS
    assert (shown.status, shown.max_mounts) == (VolumeStatus.AVAILABLE, 9)
    for attachments, there, status in (
        ([good], True, "attached"),
        ([good, bad], True, "degraded"),
        ([good, bad], False, "error"),
    ):
        view = volume_view(Volume("vol_1", "n", 1.0), attachments, there=there, max_mounts=9)
        assert (VolumeStatus(view["status"]).value, view["mount_count"]) == (
            status,
            len(attachments),
        )
    for state in State:
        sandbox = Sandbox("sb_1", 1, plan, 0.0, 1000, "hibernate", state)
        told = VolumeAttachment(**attachment_view(sandbox, good))  # type: ignore[arg-type]
        assert (told.mount_path, told.subpath, told.last_error_code) == (
            "/workspace/a/b",
            None,
            None,
        )
        failed = VolumeAttachment(**attachment_view(sandbox, bad))  # type: ignore[arg-type]
        assert (failed.state, failed.subpath) == (VolumeAttachmentState.FAILED, "c")
        released = VolumeAttachment(**attachment_view(sandbox, bad, "released"))  # type: ignore[arg-type]
        assert released.state is VolumeAttachmentState.RELEASED
        sandbox.attachments.append(good)
        metadata = sandbox_view(sandbox)["metadata"]
        assert metadata == {"a": 1, "volume_attachments": [attachment_view(sandbox, good)]}
