"""Files as they are: streamed, whole or not at all, several at once, and by links."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import FormData
from nullspace.types import FileInfo
from service import KEY, PAUSES, Service, until

from edge.appliance.api import transfer as module

HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture
async def sandbox(service: Service) -> str:
    """The id of a fresh sandbox."""
    return await service.create()


@pytest.fixture
def folder(service: Service, tmp_path: Path, sandbox: str) -> Path:
    """Where the sandbox is on disk."""
    [work] = tmp_path.rglob(f"{sandbox}/workspace")
    return work.parent


def _file(sandbox: str, path: str) -> str:
    return f"/v1/sandboxes/{sandbox}/file?path={path}"


async def _read(service: Service, sandbox: str, path: str) -> bytes:
    answer, data = await service.raw("GET", _file(sandbox, path), headers=HEADERS)
    assert answer.status == 200
    return data


def _aside(folder: Path) -> list[Path]:
    return list((folder / "aside").iterdir())


class Upload:
    """A PUT whose body the test sends piece by piece."""

    def __init__(self, service: Service, url: str, length: int, **headers: str) -> None:
        self._service = service
        fields = HEADERS | {"Host": "x", "Content-Length": str(length)} | headers
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._head = f"PUT {url} HTTP/1.1\r\n{head}\r\n".encode()

    async def __aenter__(self) -> Self:
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self._service.plane.port
        )
        await self.send(self._head)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, Any]]:
        """Status and JSON."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length")), 0
        )  # fmt: skip
        body = await self.reader.readexactly(length)
        return int(head.split()[1]), json.loads(body or b"{}")


async def test_half_a_file_is_never_seen(service: Service, sandbox: str, folder: Path) -> None:
    """While it comes the old one is there; when the client leaves, nothing of the new one is left."""
    await service.raw("PUT", _file(sandbox, "f"), data=b"old", headers=HEADERS)
    async with Upload(service, _file(sandbox, "f"), 1 << 20) as upload:
        await upload.send(bytes(1 << 19))
        await until(lambda: any(file.stat().st_size > 0 for file in _aside(folder)))
        assert await _read(service, sandbox, "f") == b"old"
        assert [file.name for file in (folder / "workspace").iterdir()] == ["f"]
    await until(lambda: not _aside(folder))
    assert await _read(service, sandbox, "f") == b"old"
    async with Upload(service, _file(sandbox, "f"), 6) as upload:
        await upload.send(b"new")
        await upload.send(b"new")
        assert await upload.answer() == (204, {})
    assert await _read(service, sandbox, "f") == b"newnew" and not _aside(folder)


async def test_bodies_of_unknown_length(service: Service, sandbox: str) -> None:
    """As the client sends what it does not know the length of; empty ones, too."""

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            yield bytes([number]) * 10_000

    answer, _ = await service.raw("PUT", _file(sandbox, "a/f"), data=pieces(), headers=HEADERS)
    assert answer.status == 204
    data = await _read(service, sandbox, "a/f")
    assert data == b"".join([bytes([number]) * 10_000 for number in range(100)])
    answer, _ = await service.raw("PUT", _file(sandbox, "a/f"), data=b"", headers=HEADERS)
    assert answer.status == 204 and await _read(service, sandbox, "a/f") == b""


async def test_a_body_that_stalls_is_given_up(
    service: Service, sandbox: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an answer that says so, and nothing left over."""
    monkeypatch.setattr(module, "STALLED", 0.05)
    async with Upload(service, _file(sandbox, "f"), 10) as upload:
        await upload.send(b"x")
        status, error = await upload.answer()
        await upload.send(b"too late!")  # The library goes on reading for a while.
    assert (status, error["code"]) == (408, "request_timeout")
    assert not _aside(folder) and not list((folder / "workspace").iterdir())


async def test_sizes_have_an_end(
    service: Service, sandbox: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said in advance or found out on the way, too large a body is 413 and leaves nothing."""
    monkeypatch.setattr(module, "MAX_STREAMED", 1000)

    async def pieces() -> AsyncIterator[bytes]:
        yield bytes(1001)

    for body in (bytes(1001), pieces()):
        answer, data = await service.raw("PUT", _file(sandbox, "f"), data=body, headers=HEADERS)
        assert (answer.status, json.loads(data)["code"]) == (413, "payload_too_large")
    answer, _ = await service.raw("PUT", _file(sandbox, "f"), data=bytes(1000), headers=HEADERS)
    assert answer.status == 204 and not _aside(folder)


async def test_a_sandbox_that_ends_during_an_upload(service: Service, sandbox: str) -> None:
    """Is gone, as any call would be told; no file appears anywhere."""
    async with Upload(service, _file(sandbox, "f"), 6) as upload:
        await upload.send(b"old")
        await until(lambda: service.plane.parts.sandboxes.get(sandbox).calls > 0)
        await service.api("DELETE", f"/v1/sandboxes/{sandbox}")
        await upload.send(b"new")
        status, error = await upload.answer()
    assert (status, error["code"]) == (404, "sandbox_not_found")


async def test_an_upload_outlasts_a_pause(service: Service) -> None:
    """Ordered while the body comes: what resumes by itself is resumed, else nothing changes."""
    for body, wanted in ((PAUSES, 204), ({"timeout_action": "hibernate"}, 409)):
        sandbox = await service.create(**body)
        record = service.plane.parts.sandboxes.get(sandbox)
        async with Upload(service, _file(sandbox, "f"), 6) as upload:
            await upload.send(b"old")
            await until(lambda record=record: record.calls > 0)
            await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
            await upload.send(b"new")
            assert (await upload.answer())[0] == wanted


async def test_a_file_cut_short_is_no_whole_answer(
    service: Service, sandbox: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The length is promised; when the file gets shorter meanwhile, the client sees the end of the connection."""
    (folder / "workspace" / "f").write_bytes(bytes(64 << 20))
    async with service.session.get(_file(sandbox, "f"), headers=HEADERS) as answer:
        assert answer.content_length == 64 << 20
        await answer.content.readany()
        (folder / "workspace" / "f").write_bytes(b"short")
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


async def test_a_download_is_the_file_as_it_was_opened(
    service: Service, sandbox: str, folder: Path
) -> None:
    """Written anew meanwhile, the old one goes on to its end."""
    (folder / "workspace" / "f").write_bytes(b"a" * (16 << 20))
    async with service.session.get(_file(sandbox, "f"), headers=HEADERS) as answer:
        await answer.content.readany()
        await service.raw("PUT", _file(sandbox, "f"), data=b"new", headers=HEADERS)
        rest = await answer.read()
    assert set(rest) == {ord("a")}
    assert await _read(service, sandbox, "f") == b"new"


async def test_a_reader_that_stops_is_given_up(
    service: Service, sandbox: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is held for somebody who takes nothing."""
    (folder / "workspace" / "f").write_bytes(bytes(64 << 20))
    monkeypatch.setattr(module, "STALLED", 0.1)
    async with service.session.get(_file(sandbox, "f"), headers=HEADERS) as answer:
        record = service.plane.parts.sandboxes.get(sandbox)
        await until(lambda: record.calls == 0)
        with pytest.raises(aiohttp.ClientPayloadError):
            await answer.read()


def _batch(*files: tuple[str, str, bytes], manifest: object = None) -> FormData:
    """A body of (path, field, content)."""
    said = manifest or {"files": [{"path": path, "field": field} for path, field, _ in files]}
    form = FormData(default_to_multipart=True)
    form.add_field("manifest", json.dumps(said), filename="manifest.json")
    for _, field, content in files:
        form.add_field(field, content, filename=f"{field}.bin")
    return form


async def _post(service: Service, sandbox: str, form: Any) -> tuple[int, Any]:
    path = f"/v1/sandboxes/{sandbox}/files/batch-write"
    answer, data = await service.raw("POST", path, data=form, headers=HEADERS)
    return answer.status, json.loads(data)


async def test_a_batch_writes_each_file_or_says_why_not(
    service: Service, sandbox: str, folder: Path
) -> None:
    """In the manifest's order, whatever the parts' is; a bad path is a failure of its own."""
    raw = bytes(range(256)) * 3000
    form = _batch(
        ("a/b", "f0", raw), ("../out", "f1", b"x"), ("c", "f2", b""), ("a", "f3", b"dir"),
        manifest={"files": [
            {"path": "c", "field": "f2"}, {"path": "../out", "field": "f1"}, {"path": "a/b", "field": "f0"},
            {"path": "a", "field": "f3"}, {"path": "never", "field": "f4"},
        ], "user": None},
    )  # fmt: skip
    status, answer = await _post(service, sandbox, form)
    assert status == 200
    told = [(result["path"], result["status"]) for result in answer["results"]]
    assert told == [
        ("c", "success"), ("../out", "error"), ("a/b", "success"), ("a", "error"), ("never", "error"),
    ]  # fmt: skip
    assert FileInfo(**answer["results"][2]["info"]).size == len(raw)
    assert "leads out" in answer["results"][1]["error"]
    assert await _read(service, sandbox, "a/b") == raw
    assert not _aside(folder) and not (folder / "out").exists()


async def test_what_is_no_batch(
    service: Service, sandbox: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other bodies, manifests and parts are refused as a whole, and leave nothing beside the tree."""
    one = {"path": "a", "field": "f"}
    bad = [
        b"{}",
        _batch(manifest={"files": "x"}),
        _batch(manifest={"files": [one, one]}),
        _batch(("a", "f", b"1"), ("a", "f", b"2")),
        _batch(("a", "g", b"1"), manifest={"files": [one]}),
        _batch(manifest={"files": [one] * 1001}),
    ]
    without = FormData(default_to_multipart=True)
    without.add_field("f", b"1", filename="f")
    for form in (*bad, without):
        status, error = await _post(service, sandbox, form)
        assert (status, error["code"]) == (400, "invalid_request"), error
    for kind, body in {
        "multipart/form-data": b"x", "multipart/form-data; boundary=b": b"--c\r\n\r\n",
        "multipart/mixed; boundary=b": b"--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n--c--\r\n--b--",
    }.items():  # fmt: skip
        answer, data = await service.raw(
            "POST", f"/v1/sandboxes/{sandbox}/files/batch-write", data=body,
            headers=HEADERS | {"Content-Type": kind},
        )  # fmt: skip
        assert (answer.status, json.loads(data)["code"]) == (400, "invalid_request"), kind
    monkeypatch.setattr(module, "MAX_BATCH", 5)
    status, error = await _post(service, sandbox, _batch(("a", "f", b"123"), ("b", "g", b"456")))
    assert (status, error["code"]) == (413, "payload_too_large")
    assert not (folder / "aside").exists() or not _aside(folder)


async def test_links_need_no_key(service: Service, sandbox: str) -> None:
    """Made for reading or for writing one path; a link for the one does not do the other."""
    base = f"/v1/sandboxes/{sandbox}/files"
    _, up = await service.api("POST", f"{base}/upload-url", {"path": "d/é f", "user": None})
    _, down = await service.api("POST", f"{base}/download-url", {"path": "d/é f", "user": None})
    assert up.keys() == down.keys() == {"url"}
    async with aiohttp.ClientSession() as anybody:
        async with anybody.put(up["url"], data=b"by link") as answer:
            assert answer.status == 204
        async with anybody.get(down["url"]) as answer:
            assert await answer.read() == b"by link"
        for method, url in (
            ("PUT", down["url"]),
            ("GET", up["url"]),
            ("GET", down["url"].replace("d/", "e/")),
            ("GET", down["url"].replace(sandbox, "sb_other000")),
            ("GET", down["url"].replace("/file?", "/files?")),
            ("GET", down["url"].replace("signature", "signatur")),
        ):
            async with anybody.request(
                method, url, data=b"" if method == "PUT" else None
            ) as answer:
                assert answer.status == 401, url
    for kind, status in (("tar", 501), ("zip", 400), (1, 400)):
        wanted = {"path": "x", "archive_format": kind}
        assert (await service.api("POST", f"{base}/download-url", wanted))[0] == status
    assert (await service.api("POST", "/v1/sandboxes/sb_none0000/files/upload-url", {"path": "x"}))[
        0
    ] == 404
