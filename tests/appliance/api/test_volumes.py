"""Volumes over HTTP: every call, every answer, every refusal, and the edge in front."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from service import PAUSES, Service
from whole import Whole, request


async def _volume(service: Service, name: str = "v") -> Any:
    status, volume = await service.api("POST", "/v1/volumes", {"name": name})
    assert status == 201, volume
    return volume


async def test_a_life(service: Service) -> None:
    """Create, get, list, attach, use, detach, delete; status and count follow."""
    volume = await _volume(service)
    assert volume | {"id": "", "created_at": "", "last_reconciled_at": ""} == {
        "id": "", "name": "v", "created_at": "", "used_bytes": 0, "inode_count": 0, "mount_count": 0,
        "max_size_bytes": None, "max_file_count": None, "max_mounts": 64, "last_reconciled_at": "",
        "status": "available", "host_id": None,
    }  # fmt: skip
    here = f"/v1/volumes/{volume['id']}"
    assert (await service.api("GET", here))[1] == volume
    assert (await service.api("GET", "/v1/volumes/by-name/v"))[1] == volume
    assert (await service.api("GET", "/v1/volumes"))[1] == [volume]
    fields = (await service.api("GET", "/v1/volumes?fields=name,%20status"))[1]
    assert fields == [{"name": "v", "status": "available"}]
    sandbox = await service.create()
    there = f"/v1/sandboxes/{sandbox}/volumes"
    body = {"ref": "v", "mount_path": "/workspace/d/", "read_only": False, "subpath": "p/q"}
    status, attachment = await service.api("POST", there, body)
    assert status == 201
    times = {"created_at": attachment["created_at"], "updated_at": attachment["updated_at"]}
    assert attachment == {
        "id": attachment["id"], "volume_id": volume["id"], "sandbox_id": sandbox,
        "mount_path": "/workspace/d", "read_only": False, "state": "mounted", "subpath": "p/q", **times,
    }  # fmt: skip
    for path in (there, f"{here}/attachments"):
        assert (await service.api("GET", path))[1] == [attachment]
    _, shown = await service.api("GET", f"/v1/sandboxes/{sandbox}")
    assert shown["metadata"] == {"volume_attachments": [attachment]}
    command = {"command": "echo hi > d/f && cat d/f", "shell": True}
    assert (await service.api("POST", f"/v1/sandboxes/{sandbox}/exec", command))[1][
        "stdout"
    ] == "hi\n"
    _, read = await service.api("POST", f"{here}/files/read", {"path": "/p/q/f"})
    assert read["content"] == "hi\n"
    status, busy = await service.api("DELETE", here)
    assert (status, busy["code"], busy["details"]) == (
        409,
        "volume_busy",
        {"sandbox_ids": [sandbox]},
    )
    assert (await service.api("GET", here))[1]["status"] == "attached"
    status, released = await service.api("DELETE", f"{there}/{attachment['id']}")
    assert (status, released["state"]) == (200, "released")
    assert (await service.api("GET", there))[1] == []
    assert (await service.api("DELETE", here))[0] == 204
    for path in (here, "/v1/volumes/by-name/v", f"{here}/attachments"):
        status, error = await service.api("GET", path)
        assert (status, error["code"]) == (404, "not_found"), "which the client looks for by name"
        assert "volumes" in error["suggested_action"], "the row's own action is of addresses"


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"ref": "none", "mount_path": "/workspace/a"}, 404, "not_found"),
        ({"ref": "v", "mount_path": "/data"}, 400, "invalid_request"),
        ({"ref": "v", "mount_path": "/workspace/a", "read_only": True}, 501, "not_implemented"),
        ({"ref": "v", "mount_path": "/workspace/taken"}, 409, "volume_mount_conflict"),
        ({"ref": "v", "mount_path": "/workspace/taken/in"}, 409, "volume_mount_conflict"),
        ({"ref": "v", "mount_path": "/workspace/file"}, 409, "volume_mount_conflict"),
        ({"ref": "v", "mount_path": "/workspace/file/x"}, 409, "volume_mount_conflict"),
        ({"ref": "v", "mount_path": "/workspace/full"}, 409, "volume_mount_conflict"),
        ({"ref": "v", "mount_path": "/workspace/out/x"}, 409, "volume_mount_conflict"),
        ({"ref": "v", "mount_path": "/workspace/a", "subpath": "file"}, 409, "volume_unavailable"),
    ],
)
async def test_what_is_not_attached(
    service: Service, body: dict[str, Any], status: int, code: str
) -> None:
    """A clear code, and nothing has changed."""
    volume = await _volume(service)
    content = {"path": "/file", "content": ""}
    await service.api("POST", f"/v1/volumes/{volume['id']}/files/write", content)
    mounts = [{"ref": "v", "mount_path": "/workspace/taken"}]
    sandbox = await service.create(volumes=mounts)
    line = "touch file; mkdir full; touch full/x; ln -s /tmp out"
    await service.api("POST", f"/v1/sandboxes/{sandbox}/exec", {"command": line, "shell": True})
    got, error = await service.api("POST", f"/v1/sandboxes/{sandbox}/volumes", body)
    assert (got, error["code"]) == (status, code)
    _, attached = await service.api("GET", f"/v1/sandboxes/{sandbox}/volumes")
    assert [one["mount_path"] for one in attached] == ["/workspace/taken"]


async def test_creates_with_volumes(service: Service) -> None:
    """With several, or with one that cannot be had, and then there is no sandbox."""
    for name in ("v", "w"):
        await _volume(service, name)
    mounts = [{"ref": name, "mount_path": f"/workspace/{name}"} for name in ("v", "w")]
    _, made = await service.api(
        "POST", "/v1/sandboxes", {"volumes": mounts, "cwd": "/workspace/v/in"}
    )
    assert [one["mount_path"] for one in made["metadata"]["volume_attachments"]] == [
        "/workspace/v", "/workspace/w",
    ]  # fmt: skip
    where = await service.api("POST", f"/v1/sandboxes/{made['id']}/exec", {"command": "pwd"})
    assert where[1]["stdout"].rstrip().endswith("/files/in"), "a working directory in a volume"
    _, volume = await service.api("GET", "/v1/volumes/by-name/w")
    folder = service.plane.config.data_dir / "volumes" / volume["id"]
    folder.rename(folder.with_name("away"))
    refused = [
        ([*mounts, {"ref": "none", "mount_path": "/workspace/n"}], 404, "not_found"),
        ([*mounts, {"ref": "v", "mount_path": "/workspace/v/x"}], 409, "volume_mount_conflict"),
        (mounts, 409, "volume_unavailable"),
    ]
    for wanted, status, code in refused:
        got, error = await service.api("POST", "/v1/sandboxes", {"volumes": wanted})
        assert (got, error["code"]) == (status, code)
    assert len((await service.api("GET", "/v1/sandboxes"))[1]) == 1
    assert (await service.api("GET", "/v1/volumes/by-name/w"))[1]["status"] == "error"


async def test_health_and_remount(service: Service) -> None:
    """What a process did to the link is told and mended; what is in the way is told and stays."""
    await _volume(service)
    sandbox = await service.create(volumes=[{"ref": "v", "mount_path": "/workspace/v"}])
    path = f"/v1/sandboxes/{sandbox}"
    (attachment,) = (await service.api("GET", f"{path}/volumes"))[1]
    here = f"{path}/volumes/{attachment['id']}"

    async def shell(line: str) -> None:
        await service.api("POST", f"{path}/exec", {"command": line, "shell": True})

    async def health() -> tuple[str, str | None]:
        _, told = await service.api("GET", f"{here}/health")
        return told["state"], told.get("last_error_code")

    assert await health() == ("mounted", None)
    await shell("rm v")
    assert await health() == ("failed", "volume_mount_missing")
    assert (await service.api("GET", "/v1/volumes/by-name/v"))[1]["status"] == "degraded"
    status, told = await service.api("POST", f"{here}/remount")
    assert (status, told["state"]) == (200, "mounted") and "last_error_code" not in told
    await shell("rm v; mkdir v; echo mine > v/mine")
    assert await health() == ("failed", "volume_mount_conflict")
    status, error = await service.api("POST", f"{here}/remount")
    assert (status, error["code"]) == (409, "volume_mount_conflict")
    _, read = await service.api("POST", f"{path}/files/read", {"path": "v/mine"})
    assert read["content"] == "mine\n"
    await shell("rm -r v")
    assert (await service.api("POST", f"{here}/remount"))[0] == 200
    status, error = await service.api("GET", f"{path}/volumes/vat_none/health")
    assert (status, error["code"]) == (404, "volume_attachment_not_found")


async def test_files_of_a_volume(service: Service) -> None:
    """Every file call works on a volume as on a sandbox, links without a key included."""
    volume = await _volume(service)
    here = f"/v1/volumes/{volume['id']}"

    async def call(name: str, **body: Any) -> Any:
        status, answer = await service.api("POST", f"{here}/files/{name}", body)
        assert status == 200, answer
        return answer

    written = await call("write", path="/a/b.txt", content="needle")
    assert (written["path"], written["name"]) == ("/a/b.txt", "b.txt")
    assert (await call("info", path="/"))["path"] == "/"
    assert (await call("exists", path="a/b.txt")) == {"exists": True}
    assert (await call("find", path="/", pattern="needle"))[0]["file"] == "/a/b.txt"
    assert await call("search", path="/", pattern="*.txt") == ["/a/b.txt"]
    assert (await call("rename", old_path="/a/b.txt", new_path="/c"))["path"] == "/c"
    await call("mkdir", path="/d/e")
    await call("permissions", path="/d", permissions="700")
    replaced = await call("replace", files=["/c"], pattern="needle", replacement="pin")
    assert replaced["replacements"] == 1
    url = (await call("download-url", path="/c"))["url"]
    answer, data = await service.raw("GET", url)
    assert (answer.status, data) == (200, b"pin")
    url = (await call("upload-url", path="/up"))["url"]
    answer, _ = await service.raw("PUT", url, data=b"up")
    assert answer.status == 204
    other = await _volume(service, "other")
    answer, _ = await service.raw("PUT", url.replace(volume["id"], other["id"]), data=b"x")
    assert answer.status == 401, "a link is for one volume"
    await call("remove", path="/d")
    _, listed = await service.api("GET", f"{here}/files?path=/&depth=3")
    assert [entry["path"] for entry in listed] == ["/a", "/c", "/up"]
    for path in ("../x", "/../x"):
        status, error = await service.api("POST", f"{here}/files/read", {"path": path})
        assert (status, error["code"]) == (400, "invalid_request")
    status, error = await service.api("POST", "/v1/volumes/vol_x/files/read", {"path": "/c"})
    assert (status, error["code"]) == (404, "not_found")


async def test_a_wake_whose_volume_is_gone(tmp_path: Path) -> None:
    """The edge answers 503 ``sandbox_resume_failed``, the API a code that says why; it stays paused until
    the volume is back, and then the same link wakes it.
    """
    async with Whole(tmp_path, time.time) as whole:
        service = whole.service
        app = await whole.app()
        await _volume(service)
        mounts = [{"ref": "v", "mount_path": "/workspace/v"}]
        made = await whole.api("POST", "", {"volumes": mounts, **PAUSES})
        sandbox = made["id"]
        preview = await whole.api("GET", f"/{sandbox}/ports/{app.port}/preview-url")
        assert (await whole.ask(request(preview["url"]))).status == 200
        pause = await whole.api("POST", f"/{sandbox}/hibernate")
        _, volume = await service.api("GET", "/v1/volumes/by-name/v")
        folder = tmp_path / "volumes" / volume["id"]
        folder.rename(folder.with_name("away"))
        await whole.answered(request(preview["url"]), 503)
        answer = await whole.ask(request(preview["url"]))
        assert b"sandbox_resume_failed" in answer.body
        assert (await whole.api("GET", f"/{sandbox}"))["status"] == "paused"
        status, error = await service.api("POST", f"/v1/sandboxes/{pause['id']}/resume")
        assert (status, error["code"]) == (409, "volume_unavailable")
        assert error["details"]["volume_id"] == volume["id"]
        exec_status, error = await service.api(
            "POST", f"/v1/sandboxes/{sandbox}/exec", {"command": "true"}
        )
        assert (exec_status, error["code"]) == (409, "volume_unavailable")
        folder.with_name("away").rename(folder)
        await whole.answered(request(preview["url"]), 200)
        (attachment,) = (await service.api("GET", f"/v1/sandboxes/{sandbox}/volumes"))[1]
        assert attachment["state"] == "mounted" and "last_error_code" not in attachment
