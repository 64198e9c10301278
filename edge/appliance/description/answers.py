"""What the public API answers, as JSON Schemas: the views of ``views.py`` and their like, key by key.

Objects that the published client builds from their keys have exactly those; a test holds real answers
against all of this.
"""

from __future__ import annotations

from typing import Final

from edge.appliance import problems
from edge.appliance.description.schemas import (
    ANY,
    BOOL,
    COUNT,
    TEXT,
    TIME,
    Schema,
    closed,
    listed,
    nullable,
    ref,
    words,
)
from edge.appliance.events import Actor, Operation, Status
from edge.appliance.lifecycle import published
from edge.appliance.pools.pool import PoolState
from edge.appliance.views import FORWARDED_HEADERS, PROXY_HEADER, TRAFFIC_HEADER
from edge.core.errors import Problem
from edge.core.records import GrantStatus, State, Transport

CODES: Final = sorted(
    {one.code for one in vars(problems).values() if isinstance(one, Problem)}
    - {"console_host_unknown", "cross_site_request", "form_outdated"}
)
"""What ``code`` of an error may be; three are of the console only."""

_CHECKOUT = closed(
    {"id": TEXT, "mode": words("prefer", "require", "bypass"), "wait_ms": COUNT},
    source=words("ready_instance", "cold_create", "bypassed"),
    hit=BOOL,
)
_SANDBOX = closed(
    {"snapshot_id": TEXT, "traffic_access_token": TEXT},
    id={"type": "string", "pattern": "^sb_[a-z0-9]{8,40}$"},
    status=words(*sorted({published(state) for state in State})),
    config=closed(vcpus=COUNT, memory_mb=COUNT),
    template=TEXT,
    metadata=ANY,
    started_at=nullable(TIME),
    timeout_ms=COUNT,
    timeout_at=nullable(TIME),
    expires_at=nullable(TIME),
    timeout_action=words("destroy", "hibernate"),
    created_at=TIME,
    cwd=TEXT,
    warm_pool_checkout=_CHECKOUT,
)
_PARTIAL = _SANDBOX | {"required": []}
_SNAPSHOT = closed(id=TEXT, sandbox_id=TEXT, size_bytes=COUNT, created_at=TIME, metadata=ANY)
_VOLUME = closed(
    id={"type": "string", "pattern": "^vol_[0-9a-f]{16}$"},
    name=TEXT,
    created_at=TIME,
    **dict.fromkeys(("used_bytes", "inode_count", "mount_count"), COUNT),
    **{key: {"type": "null"} for key in ("max_size_bytes", "max_file_count")},
    max_mounts=COUNT,
    last_reconciled_at=nullable(TIME),
    status=words("available", "attached", "degraded", "error"),
    host_id={"type": "null"},
)
_ATTACHMENT = closed(
    dict.fromkeys(("subpath", "last_error_code", "last_error_message"), TEXT),
    id=TEXT,
    volume_id=TEXT,
    sandbox_id=TEXT,
    mount_path=TEXT,
    read_only=BOOL,
    state=words("mounting", "mounted", "paused", "remounting", "failed", "released", "unmounted"),
    created_at=TIME,
    updated_at=TIME,
)
_GRANT = closed(
    id={"type": "string", "pattern": "^pvg_[0-9a-f]{32}$"},
    sandbox_id=TEXT,
    port=COUNT,
    auth_mode=words("direct", "proxy"),
    bootstrap_transport=words("query", "header"),
    status=words(*GrantStatus),
    token_kinds=listed(words(*Transport)),
    principal_kind=words("user"),
    principal_id=TEXT,
    issued_at=TIME,
    expires_at=TIME,
    **dict.fromkeys(("revoked_at", "first_used_at", "last_used_at"), nullable(TIME)),
    **dict.fromkeys(("use_count", "http_request_count", "websocket_connection_count"), COUNT),
    **dict.fromkeys(("bytes_in_count", "bytes_out_count"), COUNT),
    last_error_code=nullable(TEXT),
    **dict.fromkeys(("last_error_at", "disabled_at"), nullable(TIME)),
    created_at=TIME,
    updated_at=TIME,
)
_URLS = {
    "url": TEXT,
    "websocket_url": TEXT,
    "access_token_expires_at": TIME,
    "access_token_transport": words("query"),
}
_FILE = closed(
    {"modified_time": TIME, "symlink_target": TEXT},
    name=TEXT,
    path=TEXT,
    is_dir=BOOL,
    size=COUNT,
    type=words("file", "dir", "symlink"),
    mode=TEXT,
    permissions=TEXT,
    owner=nullable(TEXT),
    group=nullable(TEXT),
)
_EVENT = closed(
    {
        **dict.fromkeys(("snapshot_id", "source_sandbox_id", "target_sandbox_id"), TEXT),
        **dict.fromkeys(("error_code", "error_message"), TEXT),
        "metadata": ANY,
    },
    id={"type": "string", "format": "uuid"},
    occurred_at=TIME,
    audience=words("customer"),
    operation=words(*Operation),
    status=words(*Status),
    actor_kind=words(*Actor),
    sandbox_id=TEXT,
    reason=TEXT,
)
_UPLOAD = closed(
    upload_id=TEXT,
    kind=words("file", "directory_tar"),
    source_kind=TEXT,
    target_path=TEXT,
    **dict.fromkeys(("content_length", "accepted_bytes", "reserved_staging_bytes"), COUNT),
    **dict.fromkeys(("part_size", "part_count", "max_concurrency"), COUNT),
    status=words("created", "uploading", "staged", "completed", "failed", "aborted", "expired"),
    conflict=words("merge", "replace", "error"),
    checksum_algorithm=words("sha256"),
    limits=closed(
        max_upload_bytes=COUNT,
        max_part_bytes=COUNT,
        max_concurrency=COUNT,
        sandbox_staging_quota_bytes=COUNT,
    ),
    created_at=TIME,
    updated_at=TIME,
    expires_at=TIME,
    user=nullable(TEXT),
    next_part=nullable(COUNT),
    archive_format=nullable(TEXT),
    whole_checksum_sha256=nullable(TEXT),
)
_POOL = closed(
    id=TEXT,
    name=TEXT,
    template_ref=TEXT,
    state=words(*PoolState),
    min_ready=COUNT,
    max_ready=COUNT,
    resources=closed({"disk_mb": COUNT}, vcpus=COUNT, memory_mb=COUNT),
    status=closed(
        **dict.fromkeys(("target", "ready", "warming", "claimed"), COUNT),
        **dict.fromkeys(("draining", "failed", "expired", "unavailable"), COUNT),
    ),
    degraded_reason=nullable(TEXT),
    resolved_template=TEXT,
    resolved_template_build_id={"type": "null"},
    runtime_artifact_id={"type": "null"},
    idle_timeout_seconds=nullable(COUNT),
    stale_after_seconds=nullable(COUNT),
    checkout_policy=words("prefer", "require", "bypass"),
    version_policy=words("pinned_build", "track_tag"),
    track_tag=nullable(TEXT),
    rollout_generation=COUNT,
    labels=ANY | {"additionalProperties": TEXT},
    metadata=ANY,
    created_at=TIME,
    updated_at=TIME,
    **dict.fromkeys(("enabled_at", "disabled_at", "drain_requested_at"), nullable(TIME)),
    **dict.fromkeys(("last_reconciled_at", "deleted_at"), nullable(TIME)),
)

ANSWERS: Final[dict[str, Schema]] = {
    "Error": closed(
        {"details": ANY, "error_detail": ANY},
        error=TEXT,
        code=words(*CODES),
        request_id=TEXT,
        retryable=BOOL,
        suggested_action=TEXT,
    ),
    "Health": closed(status=words("ok"), version=TEXT),
    "KeySet": closed(keys=listed(ANY)),
    "OpenApi": ANY,
    "SandboxObject": _SANDBOX,
    "SandboxFields": _PARTIAL,
    "SandboxList": {
        "description": "Without a query a bare list, with one a page.",
        "oneOf": [
            listed(ref("SandboxObject")),
            closed({"next_token": TEXT}, items=listed(ref("SandboxFields")), has_next=BOOL),
        ],
    },
    "Snapshot": _SNAPSHOT,
    "SnapshotList": listed(ref("Snapshot")),
    "VolumeObject": _VOLUME,
    "VolumeFields": _VOLUME | {"required": []},
    "VolumeList": listed(ref("VolumeFields")),
    "VolumeAttachment": _ATTACHMENT,
    "VolumeAttachmentList": listed(ref("VolumeAttachment")),
    "WarmPoolObject": _POOL,
    "WarmPoolList": closed(items=listed(ref("WarmPoolObject"))),
    "ExecResult": {
        "description": "Of a command in the foreground; of one in the background only its pid.",
        "oneOf": [
            closed(
                {"truncated": BOOL},
                exit_code={"type": "integer"},
                stdout=TEXT,
                stderr=TEXT,
                pid=COUNT,
            ),
            closed(pid=COUNT),
        ],
    },
    "ProcessList": listed(closed(pid=COUNT, command=TEXT, running=BOOL)),
    "ProcessLogs": closed(
        {"exit_code": {"type": "integer"}}, stdout=TEXT, stderr=TEXT, output=TEXT
    ),
    "MetricsList": listed(
        closed(
            timestamp=TIME,
            cpu_percent={"type": "number", "minimum": 0},
            cpu_count=COUNT,
            mem_used_bytes=COUNT,
            mem_total_bytes=COUNT,
            disk_used_bytes=COUNT,
            disk_total_bytes=COUNT,
            network_rx_bytes=nullable(COUNT),
            network_tx_bytes=nullable(COUNT),
        )
    ),
    "Success": closed(success=BOOL),
    "FileInfo": _FILE,
    "FileList": listed(ref("FileInfo")),
    "FileContent": closed(path=TEXT, content=TEXT, encoding=words("utf8", "base64")),
    "FileExists": closed(exists=BOOL),
    "FileMatches": listed(ANY),
    "FileNames": listed(TEXT),
    "FilesReplaced": ANY,
    "BatchResults": closed(results=listed(ANY)),
    "FileUrl": closed(url=TEXT),
    "UploadSession": _UPLOAD,
    "UploadBegun": closed(session=ref("UploadSession")),
    "UploadCompleted": closed(
        session=ref("UploadSession"), published_bytes=COUNT, published_file_count=COUNT
    ),
    "Grant": _GRANT,
    "GrantList": closed(items=listed(ref("Grant"))),
    "GrantRevoked": closed(success=BOOL, grant=ref("Grant")),
    "HostUrls": closed(host=TEXT, **_URLS),
    "PreviewUrl": closed(grant=ref("Grant"), **_URLS),
    "PreviewProxyTarget": closed(
        {
            **dict.fromkeys(("http_url", "websocket_url", "http_token", "websocket_token"), TEXT),
            "traffic_access_required": BOOL,
            "traffic_access_header_name": {"enum": [TRAFFIC_HEADER, None]},
        },
        grant=ref("Grant"),
        sandbox_id=TEXT,
        port=COUNT,
        token_header_name=words(PROXY_HEADER),
        expires_at=TIME,
        token_transport=words("header"),
        required_forwarded_headers=listed(words(*FORWARDED_HEADERS)),
        warnings=listed(TEXT),
    ),
    "ReadinessResult": closed(
        dict.fromkeys(("path", "code", "error", "suggested_action"), TEXT),
        **dict.fromkeys(("ready", "route_ready", "service_ready"), BOOL),
        sandbox_id=TEXT,
        port=COUNT,
        kind=words("tcp", "http"),
        checked_at=TIME,
        elapsed_ms=COUNT,
        attempts=COUNT,
    ),
    "EventPage": closed(events=listed(_EVENT), offset=COUNT, limit=COUNT, has_more=BOOL),
}
