"""A good request for every call of the public API, and the world it is good in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, urlencode

from service import KEY, PAUSES, Service

S = "/v1/sandboxes/{sandbox}"
VOLUME = "/v1/volumes/{volume}"
ATTACHMENT = f"{S}/volumes/{{attachment}}"
POOL = "/v1/template-warm-pools"
PORT = f"{S}/ports/{{port}}"
UPLOAD = f"{S}/uploads/{{upload}}"
BOUNDARY = "gooD"
BATCH = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="manifest"\r\n\r\n'
    '{"files":[{"path":"batch.txt","field":"a"}]}\r\n'
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
    f"text\r\n--{BOUNDARY}--\r\n"
).encode()


@dataclass(frozen=True)
class Request:
    """``call`` is a row of the description; ``ids`` fill its path. ``body``: JSON, or bytes as they are."""

    call: str
    ids: Mapping[str, str]
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    media: str | None = None

    @property
    def method(self) -> str:
        """The method."""
        return self.call.split(" ")[0]

    @property
    def path(self) -> str:
        """The path alone."""
        path = self.call.split(" ")[1]
        for name, value in self.ids.items():
            path = path.replace(f"{{{name}}}", quote(value, safe=""))
        return path

    @property
    def data(self) -> bytes:
        """The bytes of the body."""
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()

    def but(self, **changes: Any) -> Request:
        """The same with something else."""
        return replace(self, **changes)

    def wire(
        self,
        *,
        path: bytes | None = None,
        query: bytes | None = None,
        fields: bytes = b"",
        method: str = "",
    ) -> bytes:
        """As bytes, on a connection of its own. What is given replaces what would be there."""
        asked = urlencode(self.query).encode() if query is None else query
        target = (self.path.encode() if path is None else path) + (b"?" + asked if asked else b"")
        body = self.data
        lines = [
            f"{method or self.method} ".encode() + target + b" HTTP/1.1",
            b"Host: 127.0.0.1",
            b"Connection: close",
        ]
        for name, value in self.headers(body).items():
            if name.lower().encode() + b":" not in fields.lower():
                lines.append(f"{name}: {value}".encode())
        return b"\r\n".join(lines) + b"\r\n" + fields + b"\r\n" + body

    def headers(self, body: bytes) -> dict[str, str]:
        """What every client would send."""
        found = {"Authorization": f"Bearer {KEY}"}
        if body or self.method in ("POST", "PUT", "PATCH"):
            found["Content-Length"] = str(len(body))
        if self.media is not None or body:
            found["Content-Type"] = self.media or "application/json"
        return found


def _files(place: str) -> dict[str, dict[str, Any]]:
    return {
        f"POST {place}/files/write": {"body": {"path": "dir/new.txt", "content": "new"}},
        f"POST {place}/files/read": {"body": {"path": "old.txt"}},
        f"POST {place}/files/info": {"body": {"path": "old.txt", "user": "root"}},
        f"POST {place}/files/exists": {"body": {"path": "old.txt"}},
        f"POST {place}/files/mkdir": {"body": {"path": "made"}},
        f"POST {place}/files/permissions": {"body": {"path": "old.txt", "permissions": "644"}},
        f"POST {place}/files/find": {"body": {"path": ".", "pattern": "old"}},
        f"POST {place}/files/search": {"body": {"path": ".", "pattern": "*.txt"}},
        f"POST {place}/files/replace": {
            "body": {"files": ["old.txt"], "pattern": "old", "replacement": "new", "dry_run": True}
        },
        f"GET {place}/files": {"query": {"path": "/", "depth": "2"}},
        f"PUT {place}/file": {
            "query": {"path": "put.bin"},
            "body": b"\0\xff",
            "media": "text/plain",
        },
        f"GET {place}/file": {"query": {"path": "old.txt"}},
        f"POST {place}/files/download-url": {"body": {"path": "old.txt"}},
        f"POST {place}/files/upload-url": {"body": {"path": "up.txt"}},
    }


GOOD: dict[str, dict[str, Any]] = {
    "GET /healthz": {},
    "GET /.well-known/jwks.json": {},
    "GET /openapi.json": {},
    "POST /v1/sandboxes": {
        "body": {
            "template": "base",
            "metadata": {"a": [1, None]},
            "timeout_ms": 60_000,
            "network": {"allow_public_traffic": False},
        }
    },
    "GET /v1/sandboxes": {"query": {"state": "running,paused", "limit": "1", "metadata": "{}"}},
    f"GET {S}": {"query": {"fields": "id,status"}},
    f"POST {S}/timeout": {"body": {"timeout_ms": 600_000}},
    f"POST {POOL}": {"body": {"template_ref": "base", "name": "p", "min_ready": 0, "max_ready": 1}},
    f"GET {POOL}": {"query": {"state": "enabled", "label": "a=b"}},
    f"GET {POOL}/{{pool}}": {},
    f"PATCH {POOL}/{{pool}}": {"body": {"name": "q", "labels": {"a": "b"}}},
    f"POST {POOL}/{{pool}}/disable": {},
    f"POST {POOL}/{{pool}}/enable": {},
    f"POST {POOL}/{{pool}}/drain": {},
    f"POST {POOL}/{{pool}}/reconcile": {},
    f"GET {POOL}/{{pool}}/status": {},
    f"POST {S}/fork": {},
    f"POST {S}/snapshots": {},
    "GET /v1/snapshots": {"query": {"metadata": '{"memory": "kept"}'}},
    "GET /v1/snapshots/{snapshot}": {},
    "POST /v1/volumes": {"body": {"name": "another"}},
    "GET /v1/volumes": {"query": {"fields": "id,name"}},
    "GET /v1/volumes/by-name/{name}": {},
    f"GET {VOLUME}": {"query": {"fields": "status"}},
    f"GET {VOLUME}/attachments": {},
    **_files(VOLUME),
    f"GET {S}/volumes": {},
    f"POST {S}/volumes": {
        "body": {"ref": "shared", "mount_path": "/workspace/other", "subpath": "a"}
    },
    f"GET {ATTACHMENT}/health": {},
    f"POST {ATTACHMENT}/remount": {},
    f"POST {S}/exec": {"body": {"command": "echo", "args": ["a"], "timeout_secs": 20}},
    f"GET {S}/metrics": {},
    f"GET {S}/processes": {},
    f"GET {S}/processes/{{pid}}/logs": {},
    f"POST {S}/processes/{{pid}}/stdin": {"body": {"data": "a\n"}},
    f"GET {S}/ws": {"query": {"channel": "exec"}},
    **_files(S),
    f"POST {S}/files/batch-write": {
        "body": BATCH,
        "media": f"multipart/form-data; boundary={BOUNDARY}",
    },
    f"POST {S}/uploads": {
        "body": {
            "kind": "file",
            "source_kind": "spooled_stream",
            "target_path": "begun.bin",
            "content_length": 5,
        }
    },
    f"GET {UPLOAD}": {},
    f"PUT {UPLOAD}/parts/{{part}}": {"body": b"abc", "media": "application/octet-stream"},
    f"POST {UPLOAD}/complete": {"body": {}},
    f"DELETE {UPLOAD}": {},
    f"POST {S}/host": {"body": {"port": 8080}},
    f"GET {PORT}/preview-url": {},
    f"POST {PORT}/signed-preview-url": {"body": {"expires_in_seconds": 100}},
    f"POST {PORT}/preview-proxy-target": {"body": {"transports": ["http"]}},
    f"POST {PORT}/readiness": {"body": {"timeout_secs": 1, "interval_ms": 100}},
    f"GET {S}/preview-urls": {"query": {"port": "8080"}},
    "GET /v1/lifecycle/events": {"query": {"limit": "3", "from": "2026-01-01T00:00:00Z"}},
    f"GET {S}/lifecycle": {"query": {"order": "asc"}},
    "GET /v1/snapshots/{snapshot}/lifecycle": {},
    "GET /v1/lifecycle/ws": {},
    f"GET {S}/lifecycle/ws": {},
    # --- What ends something comes last --------------------------------------------------------------
    f"POST {S}/files/rename": {"body": {"old_path": "old.txt", "new_path": "other.txt"}},
    f"POST {S}/files/remove": {"body": {"path": "other.txt"}},
    f"POST {VOLUME}/files/rename": {"body": {"old_path": "old.txt", "new_path": "other.txt"}},
    f"POST {VOLUME}/files/remove": {"body": {"path": "other.txt"}},
    f"DELETE {ATTACHMENT}": {},
    f"DELETE {S}/preview-urls/{{grant}}": {},
    f"POST {S}/processes/{{pid}}/kill": {},
    f"POST {S}/hibernate": {},
    f"POST {S}/resume": {},
    "DELETE /v1/snapshots/{snapshot}": {},
    f"DELETE {POOL}/{{pool}}": {},
    f"DELETE {S}": {},
    f"DELETE {VOLUME}": {},
}
"""By call, in an order in which all of them succeed one after the other in one world."""


class World:
    """A running sandbox with a file, a volume in it, a process that reads, a grant, an upload and a snapshot; a
    pool; and a volume with a file, which is in no sandbox.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.ids: dict[str, str] = {"port": "8080", "part": "0", "name": "shared"}

    async def set_up(self, **body: Any) -> World:
        """Make all of it; ``body`` goes into the create."""
        ids = self.ids
        made = await self._call("POST", "/v1/sandboxes", PAUSES | body)
        ids["sandbox"] = made["id"]
        s = f"/v1/sandboxes/{made['id']}"
        ids["snapshot"] = (await self._call("POST", f"{s}/hibernate"))["id"]
        await self._call("POST", f"/v1/sandboxes/{ids['snapshot']}/resume")
        await self._call("POST", f"{s}/files/write", {"path": "old.txt", "content": "old"})
        await self._call("POST", "/v1/volumes", {"name": f"of-{made['id'][3:]}"})
        mount = {"ref": f"of-{made['id'][3:]}", "mount_path": "/workspace/volume"}
        ids["attachment"] = (await self._call("POST", f"{s}/volumes", mount))["id"]
        status, volume = await self.service.api("POST", "/v1/volumes", {"name": ids["name"]})
        if status == 409:  # Another world's.
            volume = await self._call("GET", f"/v1/volumes/by-name/{ids['name']}")
        ids["volume"] = volume["id"]
        old = {"path": "old.txt", "content": "old"}
        await self._call("POST", f"/v1/volumes/{ids['volume']}/files/write", old)
        cat = {"command": "cat", "background": True}
        ids["pid"] = str((await self._call("POST", f"{s}/exec", cat))["pid"])
        upload = {"kind": "file", "source_kind": "spooled_stream", "content_length": 3}
        begun = await self._call("POST", f"{s}/uploads", upload | {"target_path": "parts.bin"})
        ids["upload"] = begun["session"]["upload_id"]
        ids["grant"] = (await self._call("GET", f"{s}/ports/8080/preview-url"))["grant"]["id"]
        pool = {"template_ref": "base", "name": "n", "min_ready": 0, "max_ready": 1}
        ids["pool"] = (await self._call("POST", POOL, pool))["id"]
        return self

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self.service.api(method, path, body)
        assert status < 300, (method, path, answer)
        return answer

    def request(self, call: str) -> Request:
        """The good request for a call."""
        names = [name for name in self.ids if f"{{{name}}}" in call]
        ids = {name: self.ids[name] for name in names}
        if call == f"POST {S}/resume":
            ids["sandbox"] = self.ids["snapshot"]
        return Request(call, ids, **GOOD[call])
