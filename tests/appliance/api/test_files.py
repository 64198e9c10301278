"""Files over HTTP, on a real disk."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData
from nullspace.types import FileInfo
from service import KEY, PAUSES, Service

from edge.appliance.api import files as module
from edge.appliance.api import http
from edge.appliance.api.http import LARGE


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


@pytest.mark.parametrize(("size", "aside"), [(1000, False), (LARGE, True)])
@pytest.mark.parametrize("encoding", ["utf8", "base64"])
async def test_others_do_not_wait_for_large_ones(
    service: Service,
    base: str,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    aside: bool,
    encoding: str,
) -> None:
    """What takes long with a large file is done beside the loop: reading JSON, decoding, and writing both."""
    where: list[tuple[str, bool]] = []

    def watched(of: Any, name: str) -> None:
        call = getattr(of, name)

        def noted(*given: Any) -> Any:
            where.append((name, threading.current_thread() is not threading.main_thread()))
            return call(*given)

        monkeypatch.setattr(of, name, noted)

    watched(http, "parse")
    watched(module, "_decoded")
    watched(module, "_told")
    body = {"path": "f", "content": "abcd" * (size // 4), "encoding": encoding}
    assert (await service.api("POST", f"{base}/files/write", body))[0] == 200
    assert where == [("parse", aside), ("_decoded", aside)]
    where.clear()
    # Of base64 there is less when it is decoded.
    asked = {"path": "f", "encoding": "utf8" if encoding == "utf8" else "base64"}
    _, read = await service.api("POST", f"{base}/files/read", asked)
    assert read["content"] == body["content"]
    assert where == [("parse", False), ("_told", aside and encoding == "utf8")]


async def test_base64_longer_than_a_piece(
    service: Service, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded in pieces it is what it is in one; padding stands at the end of all, and nowhere else."""
    monkeypatch.setattr(module, "PIECE", 8)
    for length in range(20):
        raw = bytes(range(length))
        content = base64.b64encode(raw).decode()
        body = {"path": "f", "content": content, "encoding": "base64"}
        assert (await service.api("POST", f"{base}/files/write", body))[0] == 200
        _, read = await service.api(
            "POST", f"{base}/files/read", {"path": "f", "encoding": "base64"}
        )
        assert read["content"] == content
    for wrong in (
        "AAAAAA==AAAA",
        "AAAAAAAA=",
        "AAAAAAAAA",
        "AAAAAAA=AAAA",
        "AAAAAAAA-AAA",
        "é" * 8,
    ):
        body = {"path": "f", "content": wrong, "encoding": "base64"}
        assert await _code(service, "POST", f"{base}/files/write", body) == (400, "invalid_request")


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


async def test_moving_and_removing(service: Service, base: str) -> None:
    """Rename, make, ask for, set permissions, remove: each with the answer the client reads."""

    async def call(name: str, **body: Any) -> Any:
        status, answer = await service.api("POST", f"{base}/files/{name}", body | {"user": None})
        assert status == 200, answer
        return answer

    made = await call("write", path="a/f", content="x")
    assert FileInfo(**made).permissions == "-rw-r--r--" and made["owner"] and made["group"]
    await call("mkdir", path="b/c")
    moved = await call("rename", old_path="a/f", new_path="/workspace/b/c/g")
    assert FileInfo(**moved).path == "/workspace/b/c/g"
    await call("permissions", path="b/c/g", permissions="4750")
    assert (await call("info", path="b/c/g"))["mode"] == "0750"
    for path, there in {
        "b/c/g": True,
        "a/f": False,
        "b": True,
        "/": True,
        "b/c/g/h": False,
    }.items():
        assert await call("exists", path=path) == {"exists": there}
    assert (await call("info", path="/"))["path"] == "/workspace"
    await call("remove", path="b")
    assert await call("exists", path="b") == {"exists": False}
    await call("write", path="w/\n odd", content="needle\n")
    assert await call("find", path="/", pattern="needle") == [
        {"file": "/workspace/w/\n odd", "line": 1, "content": "needle"}
    ]
    assert await call("search", path="/", pattern="* odd") == ["/workspace/w/\n odd"]
    replaced = await call(
        "replace", files=["w/\n odd"], pattern="needle", replacement="", dry_run=True
    )
    assert replaced == {
        "replacements": 1, "files_modified": 1, "files_skipped": 0, "binary_files_skipped": 0, "dry_run": True,
    }  # fmt: skip
    assert (await call("replace", files=["w/\n odd"], pattern="needle", replacement="pin"))[
        "replacements"
    ] == 1


async def test_what_is_in_the_way_has_a_code(service: Service, base: str) -> None:
    """Conflicts, missing things, roots and malformed bodies: nothing is a 500."""
    for path in ("f", "d/x", "e/x"):
        await service.api("POST", f"{base}/files/write", {"path": path, "content": ""})
    cases: list[tuple[str, dict[str, Any], tuple[int, str]]] = [
        ("rename", {"old_path": "d", "new_path": "e"}, (409, "file_conflict")),
        ("rename", {"old_path": "f", "new_path": "d"}, (409, "file_conflict")),
        ("rename", {"old_path": "none", "new_path": "g"}, (404, "file_not_found")),
        ("rename", {"old_path": "f", "new_path": "none/g"}, (404, "file_not_found")),
        ("rename", {"old_path": "d", "new_path": "d/in"}, (400, "invalid_request")),
        ("rename", {"old_path": "f"}, (400, "invalid_request")),
        ("mkdir", {"path": "f"}, (409, "file_conflict")),
        ("remove", {"path": "none"}, (404, "file_not_found")),
        ("remove", {"path": "/workspace"}, (400, "invalid_request")),
        ("permissions", {"path": "f", "permissions": "rwx"}, (400, "invalid_request")),
        ("permissions", {"path": "f", "permissions": "888"}, (400, "invalid_request")),
        ("permissions", {"path": "f", "permissions": "644\n"}, (400, "invalid_request")),
        ("permissions", {"path": "none", "permissions": "644"}, (404, "file_not_found")),
        ("find", {"path": "none", "pattern": "x"}, (404, "file_not_found")),
        ("find", {"path": "d", "pattern": ""}, (400, "invalid_request")),
        ("search", {"path": "f", "pattern": "x"}, (404, "file_not_found")),
        ("search", {"path": "d", "pattern": "x" * 2000}, (400, "invalid_request")),
        ("replace", {"files": ["none"], "pattern": "x", "replacement": ""}, (404, "file_not_found")),
        ("replace", {"files": ["f"] * 1001, "pattern": "x", "replacement": ""}, (400, "invalid_request")),
        ("exists", {"path": "../x"}, (400, "invalid_request")),
        ("exists", {"path": "a" * 5000}, (400, "invalid_request")),
    ]  # fmt: skip
    for name, body, wanted in cases:
        assert await _code(service, "POST", f"{base}/files/{name}", body) == wanted, (name, body)


JSON_CALLS: dict[str, dict[str, Any]] = {
    "write": {"path": "f", "content": ""}, "read": {"path": "f"}, "info": {"path": "f"}, "exists": {"path": "f"},
    "rename": {"old_path": "f", "new_path": "f"}, "mkdir": {"path": "d"}, "find": {"path": "/", "pattern": "x"},
    "permissions": {"path": "f", "permissions": "644"}, "search": {"path": "/", "pattern": "x"},
    "replace": {"files": ["f"], "pattern": "x", "replacement": "y"}, "remove": {"path": "d"},
}  # fmt: skip


async def test_a_call_wakes_what_resumes_by_itself(service: Service) -> None:
    """Each one of them; without auto_resume each is refused, and the sandbox stays paused."""
    for body, wanted in ((PAUSES, 200), ({"timeout_action": "hibernate"}, 409)):
        sandbox = f"/v1/sandboxes/{await service.create(**body)}"
        for path in ("f", "d/x"):
            await service.api("POST", f"{sandbox}/files/write", {"path": path, "content": ""})
        calls = [("POST", f"{sandbox}/files/{name}", said) for name, said in JSON_CALLS.items()]
        calls += [("GET", f"{sandbox}/files", None)]
        for method, path, said in calls:
            await service.api("POST", f"{sandbox}/hibernate")
            status, answer = await service.api(method, path, said)
            assert status == wanted, (path, answer)
            _, info = await service.api("GET", sandbox)
            assert info["status"] == ("running" if wanted == 200 else "paused")
            assert wanted == 200 or answer["code"] == "sandbox_not_ready"


READING = {"read", "info", "exists", "find", "search"}


async def test_what_a_restart_left_can_be_read_and_not_changed(tmp_path: Path) -> None:
    """Every call of the kind; nothing of an upload that was under way is left."""
    async with Service(tmp_path) as before:
        sandbox = f"/v1/sandboxes/{await before.create()}"
        await before.api("POST", f"{sandbox}/files/write", {"path": "f", "content": "kept"})
        [work] = tmp_path.rglob("workspace")
        (work.parent / "aside" / "half").write_bytes(b"")
    async with Service(tmp_path) as after:
        assert not (work.parent / "aside").exists()
        for name, said in JSON_CALLS.items():
            status, answer = await after.api("POST", f"{sandbox}/files/{name}", said)
            assert (status == 200) is (name in READING), (name, answer)
            assert name in READING or answer["code"] == "sandbox_not_ready"
        assert (await after.api("GET", f"{sandbox}/files"))[0] == 200
        headers = {"Authorization": f"Bearer {KEY}"}
        _, data = await after.raw("GET", f"{sandbox}/file?path=f", headers=headers)
        assert data == b"kept"
        form = FormData(default_to_multipart=True)
        form.add_field("manifest", '{"files": []}', filename="manifest.json")
        upload = {
            "kind": "file", "source_kind": "spooled_stream", "target_path": "x", "content_length": 0,
        }  # fmt: skip
        for method, path, body in (
            ("PUT", "file?path=f", b"new"),
            ("POST", "files/batch-write", form),
            ("POST", "uploads", json.dumps(upload)),
            ("GET", "ws", None),
        ):
            media = {"Content-Type": "application/json"} if path == "uploads" else {}
            refused, _ = await after.raw(
                method, f"{sandbox}/{path}", data=body, headers=headers | media
            )
            assert refused.status == 409, path
        assert [path.name for path in work.parent.rglob("*")] == ["workspace", "f"]


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
