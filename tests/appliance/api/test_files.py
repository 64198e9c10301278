"""Files over HTTP, on a real disk."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from nullspace.types import FileInfo
from service import KEY, Service

from edge.appliance.api import files as module


@pytest.fixture
async def base(service: Service) -> str:
    """The path of a fresh sandbox."""
    return f"/v1/sandboxes/{await service.create()}"


async def test_text_and_bytes_come_back(service: Service, base: str) -> None:
    """Written as text, base64 or a plain body; read as each of them."""
    status, info = await service.api(
        "POST", f"{base}/files/write", {"path": "a/b.txt", "content": "h\u00e9", "encoding": "utf8"}
    )
    assert status == 200
    assert FileInfo(**info).path == "/workspace/a/b.txt" and info["size"] == 3
    raw = bytes(range(256))
    content = base64.b64encode(raw).decode()
    body = {"path": "/workspace/raw", "content": content, "encoding": "base64", "user": None}
    assert (await service.api("POST", f"{base}/files/write", body))[0] == 200
    _, read = await service.api("POST", f"{base}/files/read", {"path": "a/b.txt"})
    assert read["content"] == "h\u00e9"
    _, read = await service.api("POST", f"{base}/files/read", {"path": "raw", "encoding": "base64"})
    assert base64.b64decode(read["content"]) == raw
    headers = {"Authorization": f"Bearer {KEY}"}
    answer, data = await service.raw("GET", f"{base}/file?path=raw", headers=headers)
    assert (answer.content_type, data) == ("application/octet-stream", raw)
    answer, data = await service.raw("PUT", f"{base}/file?path=put", data=raw, headers=headers)
    assert (answer.status, data) == (204, b"")
    _, info = await service.api("POST", f"{base}/files/info", {"path": "put"})
    assert FileInfo(**info).size == 256


async def test_lists(service: Service, base: str) -> None:
    """Entries by depth, with exactly the keys of the client; the root shows the work tree."""
    for path in ("a/b/c", "d"):
        await service.api("POST", f"{base}/files/write", {"path": path, "content": ""})
    _, entries = await service.api("GET", f"{base}/files?path=/workspace&depth=3")
    found = [FileInfo(**entry).path for entry in entries]
    assert sorted(found) == [f"/workspace/{name}" for name in ("a", "a/b", "a/b/c", "d")]
    for query in ("", "?path=/", "?path=.", "?depth=1"):
        _, entries = await service.api("GET", f"{base}/files{query}")
        assert sorted(entry["name"] for entry in entries) == ["a", "d"]


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../x", "link/passwd", "/workspace/../x"]
)
async def test_nothing_escapes(service: Service, base: str, path: str) -> None:
    """Neither dots nor absolute paths nor links lead out, for any call."""
    await service.api("POST", f"{base}/exec", {"command": "ln", "args": ["-s", "/etc", "link"]})
    for call, body in (("read", {}), ("write", {"content": "x"}), ("info", {})):
        status, error = await service.api("POST", f"{base}/files/{call}", {"path": path, **body})
        assert (status, error["code"]) in ((400, "invalid_request"), (404, "file_not_found"))
    status, _ = await service.api("GET", f"{base}/files?path={path}")
    assert status in (400, 404)
    headers = {"Authorization": f"Bearer {KEY}"}
    for method in ("GET", "PUT"):
        answer, _ = await service.raw(method, f"{base}/file?path={path}", headers=headers)
        assert answer.status in (400, 404)


async def _code(service: Service, method: str, path: str, body: Any = None) -> tuple[int, str]:
    status, error = await service.api(method, path, body)
    return status, error["code"]


async def test_what_cannot_be(service: Service, base: str) -> None:
    """Missing files, directories in place of files, wrong encodings and queries have their codes."""
    await service.api("POST", f"{base}/files/write", {"path": "d/f", "content": "x"})
    await service.api(
        "POST", f"{base}/files/write", {"path": "raw", "content": "/w==", "encoding": "base64"}
    )
    read, write = f"{base}/files/read", f"{base}/files/write"
    assert await _code(service, "POST", read, {"path": "none"}) == (404, "file_not_found")
    assert await _code(service, "POST", f"{base}/files/info", {"path": "none"}) == (
        404,
        "file_not_found",
    )
    assert await _code(service, "GET", f"{base}/files?path=none") == (404, "file_not_found")
    assert await _code(service, "GET", f"{base}/files?path=d/f") == (404, "file_not_found")
    assert await _code(service, "POST", read, {"path": "raw"}) == (400, "invalid_request")
    assert (await _code(service, "POST", read, {"path": "d"}))[0] == 400
    assert (await _code(service, "POST", write, {"path": "d", "content": ""}))[0] == 400
    assert (await _code(service, "POST", write, {"path": "d/f/g", "content": ""}))[0] in (400, 404)
    bad = {"path": "x", "content": "no base64!", "encoding": "base64"}
    assert await _code(service, "POST", write, bad) == (400, "invalid_request")
    assert await _code(service, "POST", write, {"path": "x", "content": "\ud800"}) == (
        400,
        "invalid_request",
    )
    for query in (
        "depth=-1",
        "depth=x",
        "depth=33",
        "path=",
        "path=%00",
        "more=1",
        "path=a&path=b",
    ):
        assert await _code(service, "GET", f"{base}/files?{query}") == (400, "invalid_request")
    for query in ("", "path=", "path=%00"):
        assert await _code(service, "GET", f"{base}/file?{query}") == (400, "invalid_request")


async def test_sizes_have_an_end(
    service: Service, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too large a file is 413, written or read."""
    await service.api("POST", f"{base}/files/write", {"path": "f", "content": "x" * 100})
    monkeypatch.setattr(module, "MAX_FILE", 50)
    monkeypatch.setattr(module, "MAX_WRITE", 50)
    for call, body in (("read", {"path": "f"}), ("write", {"path": "g", "content": "x" * 51})):
        assert await _code(service, "POST", f"{base}/files/{call}", body) == (
            413,
            "payload_too_large",
        )
