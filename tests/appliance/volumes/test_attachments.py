"""Attachments: with a real control plane, and what goes wrong in the middle."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from service import PAUSES, Service

from edge.appliance.volumes import attachments as module


async def _volume(service: Service, name: str = "v") -> str:
    status, volume = await service.api("POST", "/v1/volumes", {"name": name})
    assert status == 201, volume
    return str(volume["id"])


async def _attach(
    service: Service, sandbox: str, path: str = "/workspace/v", ref: str = "v"
) -> tuple[int, Any]:
    body = {"ref": ref, "mount_path": path}
    return await service.api("POST", f"/v1/sandboxes/{sandbox}/volumes", body)


async def test_many_sandboxes_at_once(service: Service) -> None:
    """All of them get it and see each other's files; what one writes outlives them all."""
    volume = await _volume(service)
    sandboxes = [await service.create() for _ in range(5)]
    answers = await asyncio.gather(*(_attach(service, sandbox) for sandbox in sandboxes))
    assert [status for status, _ in answers] == [201] * 5
    for sandbox in sandboxes:
        await service.api(
            "POST",
            f"/v1/sandboxes/{sandbox}/files/write",
            {"path": f"v/{sandbox}", "content": sandbox},
        )
    for sandbox in sandboxes:
        status, listed = await service.api("GET", f"/v1/sandboxes/{sandbox}/files?path=v")
        assert status == 200 and {entry["name"] for entry in listed} == set(sandboxes)
        await service.api("DELETE", f"/v1/sandboxes/{sandbox}")
    status, listed = await service.api("GET", f"/v1/volumes/{volume}/files?path=/")
    assert {entry["path"] for entry in listed} == {f"/{sandbox}" for sandbox in sandboxes}
    assert (await service.api("GET", f"/v1/volumes/{volume}"))[1]["mount_count"] == 0


async def test_at_one_place_at_once(service: Service) -> None:
    """One of many that ask at the same time gets the place."""
    for number in range(4):
        await _volume(service, f"v{number}")
    sandbox = await service.create()
    answers = await asyncio.gather(
        *(_attach(service, sandbox, "/workspace/p", f"v{number}") for number in range(4))
    )
    assert sorted(status for status, _ in answers) == [201, 409, 409, 409]
    refused = [error["code"] for status, error in answers if status == 409]
    assert refused == ["volume_mount_conflict"] * 3


async def test_limits(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sandbox, of a volume, and of a volume whose sandboxes are just being made."""
    monkeypatch.setattr(module, "MAX_OF_SANDBOX", 1)
    await _volume(service)
    await _volume(service, "other")
    first, second = await service.create(), await service.create()
    assert (await _attach(service, first))[0] == 201
    status, error = await _attach(service, first, "/workspace/w", "other")
    assert (status, error["code"], error["details"]) == (409, "volume_limit_exceeded", {"limit": 1})
    monkeypatch.setattr(module, "MAX_OF_VOLUME", 2)
    volumes = [{"ref": "v", "mount_path": "/workspace/v"}]
    made = await asyncio.gather(
        *(service.api("POST", "/v1/sandboxes", {"volumes": volumes}) for _ in range(4))
    )
    assert sorted(status for status, _ in made) == [201, 409, 409, 409]
    assert (await _attach(service, second))[1]["code"] == "volume_limit_exceeded"


async def test_what_cannot_be_written_is_not_attached(service: Service) -> None:
    """The link goes again; and detaching that cannot be written leaves everything in its place."""
    await _volume(service)
    sandbox = await service.create()
    store = service.plane.parts.store
    store.write("PRAGMA query_only = ON")
    status, error = await _attach(service, sandbox)
    assert (status, error["code"]) == (503, "state_unwritable")
    path = service.plane.config.data_dir / "sandboxes" / sandbox / "workspace" / "v"
    assert not path.is_symlink()
    store.write("PRAGMA query_only = OFF")
    _, attachment = await _attach(service, sandbox)
    store.write("PRAGMA query_only = ON")
    detach = f"/v1/sandboxes/{sandbox}/volumes/{attachment['id']}"
    assert (await service.api("DELETE", detach))[0] == 503
    assert path.is_symlink()
    store.write("PRAGMA query_only = OFF")
    assert (await service.api("GET", f"{detach}/health"))[1]["state"] == "mounted"


async def test_a_paused_sandbox(service: Service) -> None:
    """Attached and detached without being woken; there after the resume, or not."""
    await _volume(service)
    await _volume(service, "other")
    sandbox = await service.create(**PAUSES)
    path = f"/v1/sandboxes/{sandbox}"
    _, old = await _attach(service, sandbox)
    _, snapshot = await service.api("POST", f"{path}/hibernate")
    status, attachment = await _attach(service, sandbox, "/workspace/o", "other")
    assert (status, attachment["state"]) == (201, "paused")
    status, released = await service.api("DELETE", f"{path}/volumes/{old['id']}")
    assert (status, released["state"]) == (200, "released")
    assert (await service.api("GET", path))[1]["status"] == "paused"
    status, resumed = await service.api("POST", f"/v1/sandboxes/{snapshot['id']}/resume")
    (told,) = resumed["metadata"]["volume_attachments"]
    assert (told["mount_path"], told["state"]) == ("/workspace/o", "mounted")
    _, listed = await service.api("GET", f"{path}/files")
    assert [entry["name"] for entry in listed] == ["o"]


async def test_a_resume_puts_back_what_is_missing(service: Service, tmp_path: Path) -> None:
    """A link that somebody removed while it was paused is made again, a part of the volume too."""
    volume = await _volume(service)
    body = {"ref": "v", "mount_path": "/workspace/d/v", "subpath": "p"}
    sandbox = await service.create(volumes=[body], **PAUSES)
    _, snapshot = await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
    data = service.plane.config.data_dir
    (data / "sandboxes" / sandbox / "workspace" / "d" / "v").unlink()
    (data / "volumes" / volume / "files" / "p").rmdir()
    status, _ = await service.api("POST", f"/v1/sandboxes/{snapshot['id']}/resume")
    assert status == 200
    written = {"path": "d/v/f", "content": "1"}
    assert (await service.api("POST", f"/v1/sandboxes/{sandbox}/files/write", written))[0] == 200
    assert (data / "volumes" / volume / "files" / "p" / "f").exists()


async def test_a_volume_cannot_be_deleted_while_it_is_being_attached(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes second is refused, in both orders."""
    volume = await _volume(service)
    sandbox = await service.create()
    runtime = service.plane.parts.runtime
    mounting, go = asyncio.Event(), asyncio.Event()
    files = runtime.files

    async def slow(*args: Any) -> Any:
        mounting.set()
        await go.wait()
        return await files(*args)

    monkeypatch.setattr(runtime, "files", slow)
    attaching = asyncio.create_task(_attach(service, sandbox))
    await mounting.wait()
    status, error = await service.api("DELETE", f"/v1/volumes/{volume}")
    assert (status, error["code"]) == (409, "volume_busy")
    go.set()
    assert (await attaching)[0] == 201
    await service.api("DELETE", f"/v1/sandboxes/{sandbox}")
    assert (await service.api("DELETE", f"/v1/volumes/{volume}"))[0] == 204
    sandbox = await service.create()
    status, error = await _attach(service, sandbox)
    assert (status, error["code"]) == (404, "not_found")
