"""The objects of the public API, key by key as published: clients build theirs from exactly these."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from edge.appliance.audit import AuditEntry
from edge.appliance.events import LifecycleEvent
from edge.appliance.grant import PRINCIPAL, Grant
from edge.appliance.lifecycle import published
from edge.appliance.minter import Preview, ProxyTarget
from edge.appliance.runtime import Usage
from edge.appliance.runtime.paths import WORKSPACE
from edge.appliance.sandbox import Sandbox, Snapshot
from edge.appliance.volumes.volume import Attachment, Volume
from edge.core.records import State

Json = dict[str, object]

PROXY_HEADER = "x-nullspace-preview-proxy-token"
TRAFFIC_HEADER = "x-nullspace-traffic-access-token"
FORWARDED_HEADERS = ["x-forwarded-host", "x-forwarded-proto", "x-forwarded-for"]
"""What a customer's proxy says about its visitor; the edge passes it on as it is."""

SANDBOX_FIELDS = (
    "id status config template metadata started_at timeout_ms timeout_at expires_at timeout_action "
    "created_at cwd snapshot_id traffic_access_token warm_pool_checkout"
).split()
"""What ``fields`` may name; two of them are not always there."""


VOLUME_FIELDS = (
    "id name created_at used_bytes inode_count mount_count max_size_bytes max_file_count max_mounts "
    "last_reconciled_at status host_id"
).split()
"""The same for volumes."""


def rfc3339(time: float | None) -> str | None:
    """Unix time in seconds as RFC 3339 in UTC."""
    if time is None:
        return None
    return (
        datetime.fromtimestamp(time, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    )


def metrics_view(usage: Usage, now: float) -> Json:
    """One sample, exactly these keys; without a network of its own the last two are null."""
    received, sent = usage.network or (None, None)
    return {
        "timestamp": rfc3339(now),
        "cpu_percent": usage.cpu_percent,
        "cpu_count": usage.cpu_count,
        "mem_used_bytes": usage.memory,
        "mem_total_bytes": usage.memory_total,
        "disk_used_bytes": usage.disk,
        "disk_total_bytes": usage.disk_total,
        "network_rx_bytes": received,
        "network_tx_bytes": sent,
    }


def sandbox_view(sandbox: Sandbox, traffic_access_token: str | None = None) -> Json:
    """A sandbox object. The traffic access token is known at create only."""
    plan = sandbox.plan
    timeout_at = rfc3339(sandbox.timeout_at)
    view: Json = {
        "id": sandbox.id,
        "status": published(sandbox.state),
        "config": {"vcpus": plan.vcpus, "memory_mb": plan.memory_mb},
        "template": plan.template,
        "metadata": _metadata(sandbox),
        "started_at": rfc3339(sandbox.started_at),
        "timeout_ms": sandbox.timeout_ms,
        "timeout_at": timeout_at,
        "expires_at": timeout_at,
        "timeout_action": sandbox.timeout_action,
        "created_at": rfc3339(sandbox.created_at),
        "cwd": plan.cwd,
        "warm_pool_checkout": plan.checkout,
    }
    if sandbox.snapshot is not None and sandbox.state in (State.PAUSED, State.RESUMING):
        view["snapshot_id"] = sandbox.snapshot.id
    if traffic_access_token is not None:
        view["traffic_access_token"] = traffic_access_token
    return view


def _metadata(sandbox: Sandbox) -> Json:
    """What was given, and where the client looks for the volumes."""
    metadata = dict(sandbox.plan.metadata)
    if sandbox.attachments:
        metadata["volume_attachments"] = [
            attachment_view(sandbox, attachment) for attachment in sandbox.attachments
        ]
    return metadata


def snapshot_view(snapshot: Snapshot, metadata: Mapping[str, object]) -> Json:
    """A snapshot; one more key would break the client. ``metadata`` is its sandbox's."""
    return {
        "id": snapshot.id,
        "sandbox_id": snapshot.sandbox_id,
        "size_bytes": snapshot.size_bytes,
        "created_at": rfc3339(snapshot.created_at),
        "metadata": dict(metadata),
    }


def pause_view(sandbox: Sandbox, snapshot: Snapshot) -> Json:
    """The snapshot of a pause: a name for memory and files where they are."""
    told = {"created_via": "hibernate", "memory": "kept"}
    return snapshot_view(snapshot, {**sandbox.plan.metadata, **told})


def volume_view(
    volume: Volume, attachments: list[Attachment], *, there: bool, max_mounts: int
) -> Json:
    """A volume. ``there``: whether its directory is."""
    status = "attached" if attachments else "available"
    if any(attachment.error_code is not None for attachment in attachments):
        status = "degraded"
    return {
        "id": volume.id,
        "name": volume.name,
        "created_at": rfc3339(volume.created_at),
        "used_bytes": volume.used_bytes,
        "inode_count": volume.inode_count,
        "mount_count": len(attachments),
        "max_size_bytes": None,
        "max_file_count": None,
        "max_mounts": max_mounts,
        "last_reconciled_at": rfc3339(volume.measured_at),
        "status": status if there else "error",
        "host_id": None,
    }


_ATTACHED = {
    State.RUNNING: "mounted",
    State.PAUSING: "mounted",
    State.PAUSED: "paused",
    State.RESUMING: "remounting",
    State.CREATING: "mounting",
}


def attachment_view(sandbox: Sandbox, attachment: Attachment, state: str | None = None) -> Json:
    """A volume's place in a sandbox. ``state`` replaces what follows from the sandbox's."""
    failed = attachment.error_code is not None
    view: Json = {
        "id": attachment.id,
        "volume_id": attachment.volume_id,
        "sandbox_id": sandbox.id,
        "mount_path": "/".join([WORKSPACE, *attachment.names]),
        "read_only": attachment.read_only,
        "state": state or ("failed" if failed else _ATTACHED.get(sandbox.state, "unmounted")),
        "created_at": rfc3339(attachment.created_at),
        "updated_at": rfc3339(attachment.updated_at),
    }
    if attachment.below:
        view["subpath"] = "/".join(attachment.below)
    if failed:
        view["last_error_code"] = attachment.error_code
        view["last_error_message"] = attachment.error_message
    return view


def grant_view(grant: Grant, now: float) -> Json:
    """A grant, exactly these keys."""
    return {
        "id": grant.id,
        "sandbox_id": grant.sandbox_id,
        "port": grant.port,
        "auth_mode": grant.mode.value,
        "bootstrap_transport": grant.mode.transport,
        "status": grant.status(now).value,
        "token_kinds": [kind.value for kind in grant.kinds],
        "principal_kind": "user",
        "principal_id": PRINCIPAL,
        "issued_at": rfc3339(grant.issued_at),
        "expires_at": rfc3339(grant.expires_at),
        "revoked_at": rfc3339(grant.revoked_at),
        "first_used_at": rfc3339(grant.first_used_at),
        "last_used_at": rfc3339(grant.last_used_at),
        "use_count": grant.requests + grant.websockets,
        "http_request_count": grant.requests,
        "websocket_connection_count": grant.websockets,
        "bytes_in_count": grant.bytes_in,
        "bytes_out_count": grant.bytes_out,
        "last_error_code": grant.last_error_code,
        "last_error_at": rfc3339(grant.last_error_at),
        "disabled_at": rfc3339(grant.disabled_at),
        "created_at": rfc3339(grant.issued_at),
        "updated_at": rfc3339(grant.updated_at),
    }


def preview_view(preview: Preview, now: float) -> Json:
    """A preview URL with its grant."""
    return {
        "grant": grant_view(preview.grant, now),
        "url": preview.url,
        "websocket_url": preview.websocket_url,
        "access_token_expires_at": rfc3339(preview.grant.expires_at),
        "access_token_transport": "query",
    }


def proxy_target_view(
    target: ProxyTarget, now: float, *, private: bool | None, warnings: list[str]
) -> Json:
    """What a customer's proxy needs. ``private``: is a traffic access token wanted, too; None = unsaid."""
    grant = target.grant
    view: Json = {
        "grant": grant_view(grant, now),
        "sandbox_id": grant.sandbox_id,
        "port": grant.port,
        "token_header_name": PROXY_HEADER,
        "expires_at": rfc3339(grant.expires_at),
        "token_transport": grant.mode.transport,
        "required_forwarded_headers": FORWARDED_HEADERS,
        "warnings": warnings,
    }
    if target.http is not None:
        view |= {"http_url": target.http.url, "http_token": target.http.token}
    if target.websocket is not None:
        view |= {"websocket_url": target.websocket.url, "websocket_token": target.websocket.token}
    if private is not None:
        view["traffic_access_required"] = private
        view["traffic_access_header_name"] = TRAFFIC_HEADER if private else None
    return view


def host_view(preview: Preview) -> Json:
    """A host with its URLs."""
    return {
        "host": preview.host,
        "url": preview.url,
        "websocket_url": preview.websocket_url,
        "access_token_expires_at": rfc3339(preview.grant.expires_at),
        "access_token_transport": "query",
    }


def audit_view(entry: AuditEntry) -> Json:
    """An entry of the audit trail; what does not apply is left out."""
    view: Json = {
        "id": entry.id,
        "occurred_at": rfc3339(entry.occurred_at),
        "event": entry.deed.value,
        "actor": entry.doer.value,
        "sandbox_id": entry.sandbox_id,
    }
    optional: Json = {
        "grant_id": entry.grant_id,
        "port": entry.port,
        "auth_mode": entry.auth_mode,
        "code": entry.code,
        "reason": entry.reason,
    }
    return view | {key: value for key, value in optional.items() if value is not None}


def event_view(event: LifecycleEvent) -> Json:
    """A lifecycle event; what does not apply is left out."""
    view: Json = {
        "id": event.id,
        "occurred_at": rfc3339(event.occurred_at),
        "audience": "customer",
        "operation": event.operation.value,
        "status": event.status.value,
        "actor_kind": event.actor.value,
        "sandbox_id": event.sandbox_id,
        "reason": event.reason,
    }
    optional: Json = {
        "snapshot_id": event.snapshot_id,
        "source_sandbox_id": event.source_sandbox_id,
        "target_sandbox_id": event.target_sandbox_id,
        "error_code": event.error_code,
        "error_message": event.error_message,
        "metadata": event.metadata or None,
    }
    return view | {key: value for key, value in optional.items() if value is not None}
