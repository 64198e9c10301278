"""nullspace-sdk 0.1.9, unchanged: volumes, snapshots and forks; synchronous, asynchronous, command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nullspace import (
    AsyncSandbox,
    AsyncSnapshot,
    AsyncVolume,
    Sandbox,
    Snapshot,
    Volume,
    VolumeMount,
)
from nullspace.errors import (
    ConflictError,
    NotFoundError,
    SandboxError,
)
from nullspace.errors import (
    NotImplementedError as Missing,
)
from nullspace.types import VolumeAttachmentState, VolumeStatus

Login = dict[str, Any]
PAUSES: dict[str, Any] = {"timeout_action": "hibernate", "auto_resume": True}


@pytest.fixture
def volume(login: Login) -> Iterator[Volume]:
    """A volume; the sandboxes that have it are killed, and it is deleted, after the test."""
    made = Volume.create("shared", **login)
    yield made
    for attachment in made.attachments():
        assert attachment.sandbox_id is not None
        Sandbox.kill_by_id(attachment.sandbox_id, **login)
    made.delete()


def _told(sandbox: Sandbox, code: str) -> str:
    return str(sandbox.commands.run(code, shell=True).stdout)


def test_volumes(login: Login) -> None:
    """Create, find by id and by name, list, fields, delete; what is not there, and what is there already."""
    made = Volume.create("one", **login)
    assert made.status is VolumeStatus.AVAILABLE and made.used_bytes == 0
    for found in (
        Volume.get(made.id, **login),
        Volume.get_by_name("one", **login),
        Volume.from_id(made.id, **login),
        Volume.from_name("one", **login),
        Volume.from_name("one", create_if_missing=True, **login),
    ):
        assert isinstance(found, Volume) and (found.id, found.name) == (made.id, "one")
    assert Volume.get(made.id, fields=["name", "status"], **login) == {
        "name": "one",
        "status": "available",
    }
    assert [info.id for info in Volume.list(**login)] == [made.id]  # type: ignore[union-attr]
    with pytest.raises(ConflictError):
        Volume.create("one", **login)
    with pytest.raises(NotFoundError):
        Volume.from_name("two", **login)
    two = Volume.from_name("two", create_if_missing=True, **login)
    two.delete()
    made.delete()
    with pytest.raises(NotFoundError):
        made.get_info()


def test_attachments(login: Login, volume: Volume) -> None:
    """At create and later, by name, id and `mount`; health, remount, detach; the data is shared and stays."""
    mounts: list[Any] = [VolumeMount(ref="shared", mount_path="/workspace/v")]
    with Sandbox.create(volumes=mounts, **login) as first, Sandbox.create(**login) as second:
        (attached,) = first.volumes
        assert (attached.volume_id, attached.state) == (volume.id, VolumeAttachmentState.MOUNTED)
        other = second.attach_volume(volume.mount("/workspace/deep/v"))
        assert second.volumes == [other]
        assert second.list_volumes() == [other]
        part = second.attach_volume("shared", "/workspace/part", subpath="a")
        _told(first, "mkdir -p v/a; echo hello > v/a/f")
        assert second.files.read("/workspace/deep/v/a/f") == "hello\n"
        assert second.files.read("/workspace/part/f") == "hello\n"
        assert {one.id for one in volume.attachments()} == {attached.id, other.id, part.id}
        info = volume.get_info()
        assert (volume.status, volume.mount_count) == (VolumeStatus.ATTACHED, 3) and info
        with pytest.raises(ConflictError) as busy:
            volume.delete()
        assert busy.value.code == "volume_busy"
        assert busy.value.details == {"sandbox_ids": [first.id, second.id]}, "each once"
        assert other.id is not None and part.id is not None and attached.id is not None
        _told(second, "rm deep/v")
        failed = second.get_volume_health(other.id)
        assert failed.state is VolumeAttachmentState.FAILED
        assert failed.last_error_code == "volume_mount_missing"
        assert second.remount_volume(other.id).state is VolumeAttachmentState.MOUNTED
        assert second.detach_volume(part.id).state is VolumeAttachmentState.RELEASED
        assert [one.id for one in second.list_volumes()] == [other.id]
        with pytest.raises(NotFoundError):
            second.get_volume_health(part.id)
        with pytest.raises(Missing):
            second.attach_volume("shared", "/workspace/ro", read_only=True)
        with pytest.raises(SandboxError, match="below /workspace"):
            second.attach_volume("shared", "/data")
        with pytest.raises(ConflictError):
            second.attach_volume("shared", "/workspace/deep/v")
    with Sandbox.create(
        volumes=[{"ref": volume.id, "mount_path": "/workspace/x"}], **login
    ) as third:
        assert third.files.read("x/a/f") == "hello\n", "it outlives the sandboxes"


def test_pause_and_connect(login: Login, volume: Volume) -> None:
    """Volumes are there again after a resume, and a fork has them, too."""
    sandbox = Sandbox.create(volumes=[volume.mount("/workspace/v")], **PAUSES, **login)
    _told(sandbox, "echo 1 > v/f")
    pause = sandbox.pause()
    assert pause.metadata == {"created_via": "hibernate", "memory": "kept"}
    assert sandbox.list_volumes()[0].state is VolumeAttachmentState.PAUSED
    fork = sandbox.fork()
    assert fork.id != sandbox.id and fork.files.read("v/f") == "1\n"
    (attached,) = fork.volumes
    assert attached.sandbox_id == fork.id
    again = Sandbox.resume(pause.id, **login)
    assert again.id == sandbox.id and again.files.read("v/f") == "1\n"
    for one in (again, fork):
        one.kill()


def test_snapshots(login: Login) -> None:
    """Of a running sandbox: get, list, create from it, delete; refused where it is needed."""
    sandbox = Sandbox.create(metadata={"app": "a"}, **PAUSES, **login)
    _told(sandbox, "echo 1 > f")
    snapshot = sandbox.create_snapshot()
    assert sandbox.create_snapshot(idempotency_key="k") == sandbox.create_snapshot("k")
    _told(sandbox, "echo 2 > f")
    assert Snapshot.get(snapshot.id, **login) == snapshot
    assert len(Snapshot.list(sandbox_id=sandbox.id, **login)) == 2
    assert Snapshot.list(metadata={"app": "b"}, **login) == []
    with Sandbox.create(snapshot_id=snapshot.id, **login) as made:
        assert made.files.read("f") == "1\n"
    pause = sandbox.hibernate()
    with pytest.raises(ConflictError) as needed:
        Snapshot.delete(pause.id, **login)
    assert needed.value.code == "snapshot_in_use"
    with pytest.raises(ConflictError) as wrong:
        Sandbox.resume(snapshot.id, **login)
    assert wrong.value.code == "incompatible_snapshot"
    sandbox.kill()
    for one in Snapshot.list(metadata={"app": "a"}, **login):
        Snapshot.delete(one.id, **login)
    with pytest.raises(NotFoundError):
        Snapshot.get(snapshot.id, **login)
    with pytest.raises(NotFoundError):
        Sandbox.create(snapshot_id=snapshot.id, **login)


def test_lifecycle_of_a_fork(login: Login) -> None:
    """The client reads who came of whom, and that memory was not carried."""
    sandbox = Sandbox.create(**login)
    fork = sandbox.fork(idempotency_key="key")
    assert sandbox.fork("key").id == fork.id
    told = sandbox.list_lifecycle(operation="fork", status="succeeded").events
    (event,) = told
    assert (event.source_sandbox_id, event.target_sandbox_id) == (sandbox.id, fork.id)
    assert event.metadata == {"memory": "not_carried"}
    (created,) = fork.list_lifecycle().events
    assert created.metadata is not None and created.metadata["created_via"] == "fork"
    fork.kill()
    sandbox.kill()


def test_files_of_a_volume(login: Login, volume: Volume, tmp_path: Path) -> None:
    """Without any sandbox: text, bytes, streams, listings, moving, searching, downloads; not in parts."""
    files = volume.files
    assert files.write("/a/t.txt", "needle").path == "/a/t.txt"
    files.write("/b", b"\xff\0")
    files.write("/s", iter([b"stre", b"am"]))
    assert files.read("/a/t.txt") == "needle"
    assert files.read("/b", format="bytes") == b"\xff\0"
    assert [info.path for info in files.write_files([("/w1", "1"), ("/w2", "2")])] == ["/w1", "/w2"]
    assert {info.path for info in files.list("/", depth=2)} >= {"/a", "/a/t.txt", "/b", "/s"}
    assert files.exists("/b") and not files.exists("/none")
    assert files.rename("/b", "/c").path == "/c" and files.info("/a").is_dir
    assert files.make_dir("/d") and files.find_files("/", "needle")[0].file == "/a/t.txt"
    files.set_permissions("/c", "600")
    assert files.search_files("/", "*.txt") == ["/a/t.txt"]
    assert files.replace_in_files(["/a/t.txt"], "needle", "pin").replacements == 1
    files.download("/a/t.txt", tmp_path / "t")
    assert (tmp_path / "t").read_text() == "pin"
    (tmp_path / "up").write_text("up")
    files.upload(tmp_path / "up", "/up")
    assert files.read("/up") == "up"
    files.remove("/a")
    assert not files.exists("/a")
    with pytest.raises(Missing):
        files.upload_dir(tmp_path, "/dir")
    with pytest.raises(NotFoundError):
        files.read("/a/t.txt")


async def test_async(login: Login) -> None:
    """The same calls of the asynchronous client."""
    volume = await AsyncVolume.from_name("async", create_if_missing=True, **login)
    found = await AsyncVolume.get(volume.id, **login)
    assert isinstance(found, AsyncVolume) and found.name == "async"
    await found._client.close()
    # Without fields the client leaves its connection open.
    assert {"name": "async"} in await AsyncVolume.list(fields="name", **login)
    sandbox = await AsyncSandbox.create(volumes=[volume.mount("/workspace/v")], **PAUSES, **login)
    (attached,) = sandbox.volumes
    assert attached.id is not None
    await sandbox.files.write("v/f", "data")
    await sandbox.files.write("own", "1")
    other = await sandbox.attach_volume(volume.id, "/workspace/w", subpath="sub")
    assert other.id is not None
    assert (await sandbox.get_volume_health(other.id)).state is VolumeAttachmentState.MOUNTED
    assert (await sandbox.remount_volume(other.id)).state is VolumeAttachmentState.MOUNTED
    assert len(await sandbox.list_volumes()) == len(await volume.attachments()) == 2
    await sandbox.detach_volume(other.id)
    snapshot = await sandbox.create_snapshot()
    assert await AsyncSnapshot.get(snapshot.id, **login) == snapshot
    assert await AsyncSnapshot.list(sandbox_id=sandbox.id, **login) == [snapshot]
    fork = await sandbox.fork()
    made = await AsyncSandbox.create(snapshot_id=snapshot.id, **login)
    for one in (fork, made):
        assert await one.files.read("own") == "1" and await one.files.read("v/f") == "data"
        await one.kill()
        await one.close()
    await AsyncSnapshot.delete(snapshot.id, **login)
    pause = await sandbox.pause()
    again = await AsyncSandbox.resume(pause.id, **login)
    assert again.id == sandbox.id
    await sandbox.kill()
    for one in (again, sandbox):
        await one.close()
    await volume.files.write("/g", b"bytes")
    assert await volume.files.read("/g", format="bytes") == b"bytes"
    assert await volume.files.read("/f") == "data"
    await volume.delete()
    await volume._client.close()


@pytest.fixture
def cli(login: Login, tmp_path: Path) -> Callable[..., Any]:
    """Runs the program and gives its standard output; it has to succeed unless ``code`` says otherwise."""
    program = str(Path(sys.executable).with_name("nullspace"))
    environment = {
        **os.environ,
        "NULLSPACE_API_URL": login["base_url"],
        "NULLSPACE_API_KEY": login["api_key"],
        "HOME": str(tmp_path),
    }

    def run(*words: str, stdin: str = "", code: int = 0) -> str:
        ran = subprocess.run(
            [program, *words], input=stdin, capture_output=True, text=True, env=environment, timeout=60, check=False
        )  # fmt: skip
        assert ran.returncode == code, (words, ran.stdout, ran.stderr)
        return ran.stdout

    return run


def test_command_line(cli: Callable[..., Any]) -> None:
    """Volumes, their files, snapshots and forks, as programs of their own."""
    volume = json.loads(cli("volume", "create", "cli"))
    assert volume["status"] == "available"
    assert json.loads(cli("volume", "get", "cli"))["id"] == volume["id"]
    assert json.loads(cli("volume", "get", volume["id"], "--fields", "name")) == {"name": "cli"}
    assert volume["id"] in [one["id"] for one in json.loads(cli("volume", "list", "--json"))]
    cli("volume", "write", "cli", "/f", stdin="text")
    assert cli("volume", "cat", "cli", "/f").strip() == "text"
    spec = "ref=cli,mount=/workspace/v"
    sandbox = json.loads(cli("sandbox", "create", "--volume", spec))
    assert sandbox["volumes"][0]["mount_path"] == "/workspace/v"
    assert cli("volume", "delete", volume["id"], code=7) == "", "a conflict"
    fork = json.loads(cli("sandbox", "fork", sandbox["id"]))
    assert fork["volumes"][0]["sandbox_id"] == fork["id"]
    snapshot = json.loads(cli("snapshot", "create", sandbox["id"]))
    assert json.loads(cli("sandbox", "snapshot", "list", sandbox["id"])) == [snapshot]
    assert json.loads(cli("snapshot", "get", snapshot["id"])) == snapshot
    made = json.loads(cli("sandbox", "create", "--snapshot-id", snapshot["id"]))
    assert made["volumes"][0]["volume_id"] == volume["id"]
    for one in (sandbox, fork, made):
        cli("sandbox", "kill", one["id"])
    cli("snapshot", "delete", snapshot["id"])
    cli("snapshot", "get", snapshot["id"], code=3)
    cli("volume", "delete", volume["id"])
    cli("volume", "get", "cli", code=3)
