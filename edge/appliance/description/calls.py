"""One row per route of the public API: what it takes besides its path, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel

from edge.appliance import file_requests as of_files
from edge.appliance import requests as of
from edge.appliance.api.http import MAX_LIMIT
from edge.appliance.api.sandboxes import MAX_PAGE
from edge.appliance.description.schemas import TEXT, TIME, Schema, words
from edge.appliance.events import Operation, Status
from edge.appliance.pools.definition import Definition
from edge.appliance.pools.pool import PoolState, PoolStatus
from edge.appliance.subscription import Subscription
from edge.appliance.volumes.requests import VolumeCreate, VolumeMount

Query = dict[str, Schema]


class DefinitionUpdate(Definition):
    """``PATCH /v1/template-warm-pools/{id}``: what is named changes; null takes a limit or a tag away."""


@dataclass(frozen=True, slots=True)
class Call:
    """``body``: a model of a JSON object, or the media type of something else. ``answer``: of
    ``answers.py``; None without a body. ``needed``: of the query.
    """

    answer: str | None
    status: int = 200
    body: type[BaseModel] | str | None = None
    query: Query = field(default_factory=dict)
    needed: tuple[str, ...] = ()
    sockets: Mapping[str, tuple[type[BaseModel], ...]] = field(default_factory=dict)
    """What the client may say on a WebSocket, by the channel of the query; '' without one."""


BYTES: Final = "application/octet-stream"
PARTS: Final = "multipart/form-data"

_S: Final = "/v1/sandboxes/{sandbox}"
_VOLUME: Final = "/v1/volumes/{volume}"
_ATTACHMENT: Final = f"{_S}/volumes/{{attachment}}"
_POOL: Final = "/v1/template-warm-pools"
_PORT: Final = f"{_S}/ports/{{port}}"
_UPLOAD: Final = f"{_S}/uploads/{{upload}}"


def _number(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


_FIELDS: Query = {"fields": TEXT | {"description": "Names of keys, separated by commas."}}
_METADATA: Schema = TEXT | {"description": "A JSON object; all its pairs have to be there."}
_FILE: Query = {"path": TEXT | {"minLength": 1}, "user": TEXT}
_SIGNED: Query = {"expires": TEXT, "signature": TEXT}
_EVENTS: Query = {
    "offset": _number(0, 1_000_000),
    "limit": _number(1, MAX_LIMIT),
    "order": words("asc", "desc"),
    "operation": words(*Operation),
    "status": words(*Status),
    "from": TIME,
    "to": TIME,
    "audience": words("customer"),
}
_IDS: Query = dict.fromkeys(
    ("sandbox_id", "snapshot_id", "source_sandbox_id", "target_sandbox_id"), TEXT
)


def _files(place: str) -> dict[str, Call]:
    """What sandboxes and volumes have in common."""
    return {
        f"POST {place}/files/write": Call("FileInfo", body=of_files.FileWrite),
        f"POST {place}/files/read": Call("FileContent", body=of_files.FileRead),
        f"POST {place}/files/info": Call("FileInfo", body=of_files.FilePath),
        f"POST {place}/files/exists": Call("FileExists", body=of_files.FilePath),
        f"POST {place}/files/remove": Call("Success", body=of_files.FilePath),
        f"POST {place}/files/rename": Call("FileInfo", body=of_files.FileRename),
        f"POST {place}/files/mkdir": Call("Success", body=of_files.FilePath),
        f"POST {place}/files/permissions": Call("Success", body=of_files.FilePermissions),
        f"POST {place}/files/find": Call("FileMatches", body=of_files.FilePattern),
        f"POST {place}/files/search": Call("FileNames", body=of_files.FilePattern),
        f"POST {place}/files/replace": Call("FilesReplaced", body=of_files.FileReplace),
        f"GET {place}/files": Call(
            "FileList", query={"path": TEXT, "depth": _number(0, 32), "user": TEXT}
        ),
        f"PUT {place}/file": Call(None, 204, BYTES, query=_FILE | _SIGNED, needed=("path",)),
        f"GET {place}/file": Call(BYTES, query=_FILE | _SIGNED, needed=("path",)),
        f"POST {place}/files/download-url": Call("FileUrl", body=of_files.FileLink),
        f"POST {place}/files/upload-url": Call("FileUrl", body=of_files.FileLink),
    }


CALLS: Final[dict[str, Call]] = {
    "GET /healthz": Call("Health"),
    "GET /.well-known/jwks.json": Call("KeySet"),
    "GET /openapi.json": Call("OpenApi"),
    # --- Sandboxes -----------------------------------------------------------------------------------
    "POST /v1/sandboxes": Call("SandboxObject", 201, of.Create),
    "GET /v1/sandboxes": Call(
        "SandboxList",
        query={
            "state": TEXT | {"description": "States, separated by commas."},
            "template": TEXT,
            "metadata": _METADATA,
            "limit": _number(1, MAX_PAGE),
            "next_token": TEXT,
            **_FIELDS,
        },
    ),
    f"GET {_S}": Call("SandboxFields", query=_FIELDS),
    f"DELETE {_S}": Call(None, 204),
    f"POST {_S}/hibernate": Call("Snapshot"),
    f"POST {_S}/resume": Call("SandboxObject"),
    f"POST {_S}/timeout": Call("SandboxObject", body=of.SetTimeout),
    f"GET {_S}/metrics": Call("MetricsList"),
    # --- Snapshots and forks -------------------------------------------------------------------------
    f"POST {_S}/fork": Call("SandboxObject", 201),
    f"POST {_S}/snapshots": Call("Snapshot", 201),
    "GET /v1/snapshots": Call("SnapshotList", query={"sandbox_id": TEXT, "metadata": _METADATA}),
    "GET /v1/snapshots/{snapshot}": Call("Snapshot"),
    "DELETE /v1/snapshots/{snapshot}": Call(None, 204),
    # --- Volumes -------------------------------------------------------------------------------------
    "POST /v1/volumes": Call("VolumeObject", 201, VolumeCreate),
    "GET /v1/volumes": Call("VolumeList", query=_FIELDS),
    "GET /v1/volumes/by-name/{name}": Call("VolumeFields", query=_FIELDS),
    f"GET {_VOLUME}": Call("VolumeFields", query=_FIELDS),
    f"DELETE {_VOLUME}": Call(None, 204),
    f"GET {_VOLUME}/attachments": Call("VolumeAttachmentList"),
    **_files(_VOLUME),
    f"GET {_S}/volumes": Call("VolumeAttachmentList"),
    f"POST {_S}/volumes": Call("VolumeAttachment", 201, VolumeMount),
    f"DELETE {_ATTACHMENT}": Call("VolumeAttachment"),
    f"GET {_ATTACHMENT}/health": Call("VolumeAttachment"),
    f"POST {_ATTACHMENT}/remount": Call("VolumeAttachment"),
    # --- Warm pools ----------------------------------------------------------------------------------
    f"POST {_POOL}": Call("WarmPoolObject", 201, Definition),
    f"GET {_POOL}": Call(
        "WarmPoolList",
        query={
            "template": TEXT,
            "state": words(*PoolState),
            "status": words(*PoolStatus),
            "limit": _number(1, 1000),
            "label": TEXT | {"description": "KEY=VALUE; may be there several times."},
        },
    ),
    f"GET {_POOL}/{{pool}}": Call("WarmPoolObject"),
    f"PATCH {_POOL}/{{pool}}": Call("WarmPoolObject", body=DefinitionUpdate),
    f"DELETE {_POOL}/{{pool}}": Call("WarmPoolObject"),
    f"POST {_POOL}/{{pool}}/enable": Call("WarmPoolObject"),
    f"POST {_POOL}/{{pool}}/disable": Call("WarmPoolObject"),
    f"POST {_POOL}/{{pool}}/drain": Call("WarmPoolObject"),
    f"POST {_POOL}/{{pool}}/reconcile": Call("WarmPoolObject"),
    f"GET {_POOL}/{{pool}}/status": Call("WarmPoolObject"),
    # --- Commands ------------------------------------------------------------------------------------
    f"POST {_S}/exec": Call("ExecResult", body=of.Exec),
    f"GET {_S}/processes": Call("ProcessList"),
    f"GET {_S}/processes/{{pid}}/logs": Call("ProcessLogs"),
    f"POST {_S}/processes/{{pid}}/kill": Call("Success"),
    f"POST {_S}/processes/{{pid}}/stdin": Call("Success", body=of.Stdin),
    f"GET {_S}/ws": Call(
        None,
        101,
        query={"channel": words("exec")},
        sockets={
            "": (of_files.FileWatch,),
            "exec": (of.ExecStart, of.ExecConnect, of.Frame, of.Stdin),
        },
    ),
    # --- Files ---------------------------------------------------------------------------------------
    **_files(_S),
    f"POST {_S}/files/batch-write": Call("BatchResults", body=PARTS),
    # --- Uploads in parts ----------------------------------------------------------------------------
    f"POST {_S}/uploads": Call("UploadBegun", 201, of_files.UploadCreate),
    f"GET {_UPLOAD}": Call("UploadSession"),
    f"PUT {_UPLOAD}/parts/{{part}}": Call("UploadSession", body=BYTES),
    f"POST {_UPLOAD}/complete": Call("UploadCompleted", body=of_files.UploadComplete),
    f"DELETE {_UPLOAD}": Call(None, 204),
    # --- Previews ------------------------------------------------------------------------------------
    f"POST {_S}/host": Call("HostUrls", body=of.Host),
    f"GET {_PORT}/preview-url": Call("PreviewUrl"),
    f"POST {_PORT}/signed-preview-url": Call("PreviewUrl", body=of.Signed),
    f"POST {_PORT}/preview-proxy-target": Call("PreviewProxyTarget", body=of.ProxyTarget),
    f"POST {_PORT}/readiness": Call("ReadinessResult", body=of.Readiness),
    f"GET {_S}/preview-urls": Call("GrantList", query={"port": _number(0, 999_999_999)}),
    f"DELETE {_S}/preview-urls/{{grant}}": Call("GrantRevoked"),
    # --- Lifecycle -----------------------------------------------------------------------------------
    "GET /v1/lifecycle/events": Call("EventPage", query=_EVENTS | _IDS),
    f"GET {_S}/lifecycle": Call("EventPage", query=_EVENTS),
    "GET /v1/snapshots/{snapshot}/lifecycle": Call("EventPage", query=_EVENTS),
    "GET /v1/lifecycle/ws": Call(None, 101, sockets={"": (Subscription,)}),
    f"GET {_S}/lifecycle/ws": Call(None, 101, sockets={"": (Subscription,)}),
}
