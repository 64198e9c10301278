"""Uploads in parts over HTTP: in any order, more than once, checked, and gone without a trace."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from nullspace.types import UploadSessionInfo
from service import KEY, Service

from edge.appliance import uploads as model
from edge.appliance.api import uploads as module

HEADERS = {"Authorization": f"Bearer {KEY}"}
DATA = bytes(range(256)) * 10
WANTED = {
    "kind": "file", "source_kind": "restartable_file", "target_path": "d/f", "content_length": len(DATA),
    "conflict": "merge", "archive_format": None, "checksum_algorithm": "sha256", "whole_checksum_sha256": None,
    "metadata": {},
}  # fmt: skip


@pytest.fixture
async def base(service: Service, monkeypatch: pytest.MonkeyPatch) -> str:
    """The uploads of a fresh sandbox, in parts of 1000 bytes."""
    for place in (model, module):
        monkeypatch.setattr(place, "PART_SIZE", 1000)
    return f"/v1/sandboxes/{await service.create()}/uploads"


@pytest.fixture
def folder(tmp_path: Path, base: str) -> Path:
    """Where the sandbox is on disk."""
    return next(tmp_path.rglob("workspace")).parent


async def _begin(service: Service, base: str, **changes: object) -> str:
    status, answer = await service.api("POST", base, WANTED | changes, **{"Idempotency-Key": "k"})
    assert status == 201, answer
    return f"{base}/{answer['session']['upload_id']}"


async def _put(service: Service, url: str, part: object, data: bytes, **headers: str) -> Any:
    answer, body = await service.raw(
        "PUT", f"{url}/parts/{part}", data=data, headers=HEADERS | headers
    )
    return answer.status, json.loads(body)


async def _put_all(service: Service, url: str, data: bytes = DATA) -> None:
    for part in range(-(-len(data) // 1000)):
        piece = data[part * 1000 :][:1000]
        checksum = hashlib.sha256(piece).hexdigest()
        status, answer = await _put(service, url, part, piece, **{module.CHECKSUM: checksum})
        assert status == 200, answer


def _reason(answer: Any) -> str:
    assert answer["code"] == "file_upload_error" and answer["request_id"]
    return str(answer["error_detail"]["reason"])


async def test_parts_in_any_order(service: Service, base: str, folder: Path) -> None:
    """At once, out of order, twice; nothing in the tree until it is complete; the answer again is the same."""
    url = await _begin(service, base)
    status, session = await _put(service, url, 2, DATA[2000:])
    info = UploadSessionInfo(**session)
    assert (status, info.accepted_bytes, info.next_part, info.part_count) == (200, 560, 0, 3)
    assert not list((folder / "workspace").iterdir())
    await asyncio.gather(
        *(_put(service, url, part, DATA[part * 1000 :][:1000]) for part in (1, 0, 1))
    )
    _, session = await service.api("GET", url)
    info = UploadSessionInfo(**session)
    assert (info.status.value, info.next_part, info.accepted_bytes) == ("staged", None, len(DATA))
    checksum = {"whole_checksum_sha256": hashlib.sha256(DATA).hexdigest()}
    first = await service.api("POST", f"{url}/complete", checksum)
    assert first[0] == 200 and first == await service.api("POST", f"{url}/complete")
    assert first[1]["published_bytes"] == len(DATA) and first[1]["published_file_count"] == 1
    assert first[1]["session"]["status"] == "completed"
    assert (folder / "workspace/d/f").read_bytes() == DATA
    assert not list((folder / "aside").iterdir())
    status, answer = await _put(service, url, 0, DATA[:1000])
    assert (status, _reason(answer)) == (409, "upload_already_completed")


async def test_an_empty_file_has_no_parts(service: Service, base: str, folder: Path) -> None:
    """It is complete at once."""
    url = await _begin(service, base, content_length=0)
    assert (await service.api("POST", f"{url}/complete"))[0] == 200
    assert (folder / "workspace/d/f").read_bytes() == b""


async def test_what_is_wrong_with_a_part(service: Service, base: str) -> None:
    """Its number, its length, its checksum: each has the client's word, and the right one may follow."""
    url = await _begin(service, base)
    cases = [
        (3, b"", {}, "part_out_of_range"),
        ("x", b"", {}, "part_out_of_range"),
        (0, DATA[:999], {}, "part_size_mismatch"),
        (2, DATA[:1000], {}, "part_size_mismatch"),
        (0, DATA[:1000], {module.CHECKSUM: "0" * 64}, "invalid_part_checksum"),
    ]
    for part, data, headers, reason in cases:
        status, answer = await _put(service, url, part, data, **headers)
        assert (status, _reason(answer)) == (409, reason)
        assert answer["error_detail"]["upload_id"] and answer["error_detail"]["path"] == "d/f"
    assert (await _put(service, url, 0, DATA[:1001]))[1]["code"] == "payload_too_large"
    status, answer = await service.api("POST", f"{url}/complete")
    assert (status, _reason(answer)) == (409, "missing_parts")
    await _put_all(service, url)
    assert (await service.api("POST", f"{url}/complete"))[0] == 200


async def test_the_whole_is_checked(service: Service, base: str, folder: Path) -> None:
    """Against what was said first or last; a wrong one ends the upload and leaves nothing."""
    for first, last in (
        ("0" * 64, None),
        (None, "0" * 64),
        ("0" * 64, hashlib.sha256(DATA).hexdigest()),
    ):
        url = await _begin(service, base, whole_checksum_sha256=first)
        await _put_all(service, url)
        status, answer = await service.api(
            "POST", f"{url}/complete", {"whole_checksum_sha256": last}
        )
        assert (status, _reason(answer)) == (409, "whole_checksum_mismatch")
        assert (await service.api("GET", url))[1]["status"] == "failed"
    assert not list((folder / "aside").iterdir()) and not list((folder / "workspace").iterdir())


async def test_an_aborted_upload_is_gone(service: Service, base: str, folder: Path) -> None:
    """Its bytes at once; it goes on being told as aborted."""
    url = await _begin(service, base)
    await _put(service, url, 0, DATA[:1000])
    assert len(list((folder / "aside").iterdir())) == 1
    for _ in range(2):
        assert await service.api("DELETE", url) == (204, None)
    assert not list((folder / "aside").iterdir())
    assert (await service.api("GET", url))[1]["status"] == "aborted"
    status, answer = await service.api("POST", f"{url}/complete")
    assert (status, _reason(answer)) == (409, "upload_aborted")


async def test_an_upload_that_is_forgotten_is_removed(
    service: Service, base: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When its time is over, the next one to begin clears it away."""
    old = await _begin(service, base)
    monkeypatch.setattr(model, "LIFETIME", -1.0)
    await _begin(service, base)
    assert len(list((folder / "aside").iterdir())) == 1
    assert (await service.api("GET", old))[1]["status"] == "expired"


async def test_where_it_cannot_go(service: Service, base: str) -> None:
    """Is told before the first part: outside, over a directory, over what must not be replaced."""
    sandbox = base.removesuffix("/uploads")
    await service.api("POST", f"{sandbox}/files/write", {"path": "d/x", "content": ""})
    for changes in ({"target_path": "../x"}, {"target_path": "d"}, {"content_length": -1}):
        status, answer = await service.api("POST", base, WANTED | changes)
        assert (status, answer["code"]) == (400, "invalid_request")
    tar = {"kind": "directory_tar", "archive_format": "tar", "source_kind": "directory_archive"}
    assert (await service.api("POST", base, WANTED | tar | {"target_path": "../x"}))[0] == 400
    for kind in ({}, tar):
        said = WANTED | kind | {"target_path": "d/x", "conflict": "error"}
        status, answer = await service.api("POST", base, said)
        assert (status, _reason(answer)) == (409, "target_conflict")
    status, answer = await service.api("POST", base, WANTED | {"content_length": 1 << 50})
    assert (status, _reason(answer)) == (409, "size_limit_exceeded")
    for method, path in (("GET", "/upl_x"), ("PUT", "/upl_x/parts/0"), ("DELETE", "/upl_x")):
        status, answer = await service.api(method, base + path, b"" if method == "PUT" else None)
        assert (status, answer["code"]) == (404, "upload_not_found")


async def test_a_bad_archive_ends_the_upload(service: Service, base: str, folder: Path) -> None:
    """With the reason; nothing of it is in the tree."""
    url = await _begin(
        service, base, kind="directory_tar", archive_format="tar", source_kind="directory_archive"
    )
    await _put_all(service, url)
    status, answer = await service.api("POST", f"{url}/complete")
    assert (status, _reason(answer)) == (409, "directory_extract_unsupported_entry")
    assert not list((folder / "workspace").iterdir())


async def test_a_paused_sandbox_takes_parts_and_completes_when_it_runs(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without auto_resume completing is refused, and can be tried again after a resume."""
    monkeypatch.setattr(model, "PART_SIZE", 1000)
    monkeypatch.setattr(module, "PART_SIZE", 1000)
    sandbox = await service.create(timeout_action="hibernate")
    url = await _begin(service, f"/v1/sandboxes/{sandbox}/uploads")
    _, snapshot = await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
    await _put_all(service, url)
    status, answer = await service.api("POST", f"{url}/complete")
    assert (status, answer["code"]) == (409, "sandbox_not_ready")
    await service.api("POST", f"/v1/sandboxes/{snapshot['id']}/resume")
    assert (await service.api("POST", f"{url}/complete"))[0] == 200
    await service.api("DELETE", f"/v1/sandboxes/{sandbox}")
    assert (await service.api("GET", url))[1]["code"] == "sandbox_not_found"
