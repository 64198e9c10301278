"""Copying sandboxes at work: of one point in time, without anybody noticing, and not at all when it fails."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from service import PAUSES, Service, until

from edge.appliance.runtime import DiskFull, FileDenied, FileTooLarge, FreezeFailed
from edge.appliance.sandbox import API
from edge.appliance.snapshots import copier as module
from edge.core.records import State


async def _shell(service: Service, sandbox: str, line: str, **more: Any) -> Any:
    body = {"command": line, "shell": True} | more
    status, result = await service.api("POST", f"/v1/sandboxes/{sandbox}/exec", body)
    assert status == 200, result
    return result


class Held:
    """Copying that waits in the middle until it may go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go = asyncio.Event(), asyncio.Event()
        copied = module._copied

        async def held(*args: Any) -> int:
            self.begun.set()
            await self.go.wait()
            return await copied(*args)

        monkeypatch.setattr(module, "_copied", held)


async def test_nothing_moves_while_it_is_copied(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Processes stand still, file calls and commands wait for its end, nobody is refused; then all go on."""
    sandbox = await service.create()
    await _shell(service, sandbox, "i=0; while i=$((i+1)); do echo $i > n; done", background=True)
    place = service.plane.config.data_dir / "sandboxes" / sandbox / "workspace"
    await until(lambda: (place / "n").exists() and (place / "n").read_text() != "")
    held = Held(monkeypatch)
    path = f"/v1/sandboxes/{sandbox}"
    snapshot = asyncio.create_task(service.api("POST", f"{path}/snapshots"))
    await held.begun.wait()
    before = (place / "n").read_bytes()
    write = {"path": "late", "content": ""}
    waiting = [
        asyncio.create_task(service.api("POST", f"{path}/files/write", write)),
        asyncio.create_task(service.api("POST", f"{path}/exec", {"command": "true"})),
    ]
    assert (await service.api("GET", path))[1]["status"] == "running"
    assert (place / "n").read_bytes() == before and not any(task.done() for task in waiting)
    held.go.set()
    status, copy = await snapshot
    assert status == 201
    assert [status for status, _ in await asyncio.gather(*waiting)] == [200, 200]
    kept = service.plane.config.data_dir / "snapshots" / copy["id"]
    assert (kept / "n").read_bytes() == before and not (kept / "late").exists()
    await until(lambda: (place / "n").read_bytes() not in (before, b""))


async def test_a_file_call_that_has_begun_is_waited_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy has all of what was written before, and nothing of half a call."""
    sandbox = await service.create()
    runtime = service.plane.parts.runtime
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()
    go = threading.Event()

    def write(tree: Any) -> None:
        tree.write("one", b"")
        loop.call_soon_threadsafe(begun.set)
        assert go.wait(10)
        tree.write("two", b"")

    writing = asyncio.create_task(runtime.files(sandbox, write))
    await begun.wait()
    still = runtime._sandbox(sandbox).stillness
    snapshot = asyncio.create_task(service.api("POST", f"/v1/sandboxes/{sandbox}/snapshots"))
    await until(lambda: not still._open.is_set())
    go.set()
    await writing
    _, copy = await snapshot
    folder = service.plane.config.data_dir / "snapshots" / copy["id"]
    assert {path.name for path in folder.iterdir()} == {"one", "two"}


async def test_a_paused_one_stays_paused(service: Service) -> None:
    """Snapshot and fork of it; the fork runs, without processes; the other goes on when it is resumed."""
    sandbox = await service.create(envs={"SAID": "yes"}, **PAUSES)
    pid = (await _shell(service, sandbox, "echo 1 > f; sleep 600", background=True))["pid"]
    await until(
        lambda: (service.plane.config.data_dir / "sandboxes" / sandbox / "workspace" / "f").exists()
    )
    path = f"/v1/sandboxes/{sandbox}"
    _, pause = await service.api("POST", f"{path}/hibernate")
    status, _ = await service.api("POST", f"{path}/snapshots")
    assert status == 201
    status, fork = await service.api("POST", f"{path}/fork")
    assert (status, fork["status"], fork["timeout_action"]) == (201, "running", "hibernate")
    assert (await service.api("GET", path))[1]["status"] == "paused"
    assert (await service.api("GET", f"/v1/sandboxes/{fork['id']}/processes"))[1] == []
    assert (await _shell(service, fork["id"], "cat f; echo $SAID"))["stdout"] == "1\nyes\n"
    await service.api("POST", f"/v1/sandboxes/{pause['id']}/resume")
    (process,) = (await service.api("GET", f"{path}/processes"))[1]
    assert (process["pid"], process["running"]) == (pid, True)


@pytest.mark.parametrize("what", ["snapshots", "fork"])
@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DiskFull("full"), 507, "insufficient_storage"),
        (FileTooLarge("much"), 413, "payload_too_large"),
        (FileDenied("no"), 403, "permission_denied"),
        (FreezeFailed("no"), 503, None),
    ],
)
async def test_what_fails_leaves_everything_as_it_was(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    error: Exception,
    status: int,
    code: str | None,
) -> None:
    """A code that says what is wrong, an event, no half copy, no half sandbox; it can be tried again."""
    sandbox = await service.create()
    data = service.plane.config.data_dir

    async def fail(source: Path, target: Path, *_: object) -> int:
        (target / "half").write_text("")
        raise error

    monkeypatch.setattr(module, "_copied", fail)
    path = f"/v1/sandboxes/{sandbox}/{what}"
    code = code or {"snapshots": "snapshot_failed", "fork": "fork_failed"}[what]
    got, answer = await service.api("POST", path, **{"Idempotency-Key": "k"})
    assert (got, answer["code"]) == (status, code)
    _, listed = await service.api("GET", f"/v1/sandboxes/{sandbox}/lifecycle?status=failed")
    operation = {"snapshots": "snapshot_created", "fork": "fork"}[what]
    (event,) = listed["events"]
    assert (event["operation"], event["error_code"]) == (operation, code)
    assert list((data / "snapshots").iterdir()) == []
    assert [path.name for path in (data / "sandboxes").iterdir()] == [sandbox]
    assert (await _shell(service, sandbox, "echo on"))["stdout"] == "on\n"
    monkeypatch.undo()
    assert (await service.api("POST", path, **{"Idempotency-Key": "k"}))[0] == 201


async def test_a_store_that_cannot_be_written(service: Service) -> None:
    """No snapshot and no fork: they would be gone after a restart."""
    sandbox = await service.create()
    store = service.plane.parts.store
    store.write("PRAGMA query_only = ON")
    for what, code in (("snapshots", "state_unwritable"), ("fork", "fork_failed")):
        status, error = await service.api("POST", f"/v1/sandboxes/{sandbox}/{what}")
        assert (status, error["code"]) == (503, code)
    store.write("PRAGMA query_only = OFF")
    assert (await service.api("GET", "/v1/snapshots"))[1] == []
    assert len((await service.api("GET", "/v1/sandboxes"))[1]) == 1


async def test_a_snapshot_of_a_pause(service: Service) -> None:
    """A sandbox can be created from its files as long as it is paused with it, and not afterwards."""
    sandbox = await service.create(cwd="/workspace/in", vcpus=7, **PAUSES)
    await _shell(service, sandbox, "echo 1 > f")
    _, pause = await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
    status, made = await service.api("POST", "/v1/sandboxes", {"snapshot_id": pause["id"]})
    assert (status, made["cwd"], made["config"]["vcpus"]) == (201, "/workspace/in", 7)
    assert (await _shell(service, made["id"], "cat f"))["stdout"] == "1\n"
    assert (await service.api("GET", f"/v1/sandboxes/{sandbox}"))[1]["status"] == "paused"
    await service.api("POST", f"/v1/sandboxes/{pause['id']}/resume")
    status, error = await service.api("POST", "/v1/sandboxes", {"snapshot_id": pause["id"]})
    assert (status, error["code"]) == (409, "incompatible_snapshot")


async def test_what_is_said_at_create_wins(service: Service) -> None:
    """Over what the snapshot's sandbox was; its volumes come along unless others are named."""
    await service.api("POST", "/v1/volumes", {"name": "v"})
    _, volume = await service.api("GET", "/v1/volumes/by-name/v")
    mounts = [{"ref": "v", "mount_path": "/workspace/v"}]
    sandbox = await service.create(template="t", vcpus=7, memory_mb=9, volumes=mounts)
    _, copy = await service.api("POST", f"/v1/sandboxes/{sandbox}/snapshots")
    said = {"snapshot_id": copy["id"], "vcpus": 1, "metadata": {"a": 1}, "timeout_ms": 5000}
    _, made = await service.api("POST", "/v1/sandboxes", said)
    assert (made["template"], made["config"]) == ("t", {"vcpus": 1, "memory_mb": 9})
    assert made["metadata"]["a"] == 1 and made["timeout_ms"] == 5000
    assert [one["volume_id"] for one in made["metadata"]["volume_attachments"]] == [volume["id"]]
    _, made = await service.api("POST", "/v1/sandboxes", said | {"volumes": []})
    assert made["metadata"] == {"a": 1}
    for other in (await service.api("GET", "/v1/sandboxes"))[1]:
        await service.api("DELETE", f"/v1/sandboxes/{other['id']}")
    await service.api("DELETE", f"/v1/volumes/{volume['id']}")
    status, error = await service.api("POST", "/v1/sandboxes", said)
    assert (status, error["code"]) == (409, "volume_unavailable")
    assert (await service.api("POST", "/v1/sandboxes", said | {"volumes": []}))[0] == 201


async def test_a_private_fork_has_a_token_of_its_own(service: Service) -> None:
    """It is as private as the other, and an operator's switch holds for it, too."""
    sandbox = await service.create(network={"allow_public_traffic": False})
    the_sandbox = service.plane.parts.sandboxes.get(sandbox)
    service.plane.parts.sandboxes.switch_previews(the_sandbox, disabled=True)
    _, fork = await service.api("POST", f"/v1/sandboxes/{sandbox}/fork")
    assert len(fork["traffic_access_token"]) > 20
    _, old = await service.edge("GET", f"sandboxes/{sandbox}")
    _, new = await service.edge("GET", f"sandboxes/{fork['id']}")
    assert new["traffic_token_sha256"] not in (None, old["traffic_token_sha256"])
    assert new["previews_disabled"] is True


@pytest.mark.parametrize("what", ["snapshots", "fork"])
async def test_one_in_error_has_nothing_to_copy(service: Service, what: str) -> None:
    """Nor one that is not there."""
    sandbox = await service.create()
    service.plane.parts.sandboxes.get(sandbox).state = State.ERROR
    status, error = await service.api("POST", f"/v1/sandboxes/{sandbox}/{what}")
    assert (status, error["code"]) == (409, "sandbox_not_ready")
    assert (await service.api("POST", f"/v1/sandboxes/sb_none/{what}"))[0] == 404


async def test_a_stop_ends_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control plane does not wait for it, and nothing of it is left after the next start."""
    async with Service(tmp_path) as service:
        sandbox = await service.create()
        held = Held(monkeypatch)
        copying = asyncio.create_task(service.api("POST", f"/v1/sandboxes/{sandbox}/snapshots"))
        await held.begun.wait()
    with pytest.raises(Exception):  # noqa: B017 - whatever the client makes of it
        await copying
    async with Service(tmp_path) as service:
        assert (await service.api("GET", "/v1/snapshots"))[1] == []
        assert list((tmp_path / "snapshots").iterdir()) == []


async def test_what_comes_of_a_private_one_is_private(service: Service) -> None:
    """Unless the create says otherwise; with a token of its own."""
    network = {"allow_public_traffic": False, "mask_request_host": "localhost:${PORT}"}
    sandbox = await service.create(network=network)
    _, copy = await service.api("POST", f"/v1/sandboxes/{sandbox}/snapshots")
    said = [None, {"allow_public_traffic": None}, {"allow_public_traffic": True}]
    for network, private in zip(said, [True, True, False], strict=True):
        body = {"snapshot_id": copy["id"], "network": network}
        _, made = await service.api("POST", "/v1/sandboxes", body)
        assert ("traffic_access_token" in made) is private
        _, record = await service.edge("GET", f"sandboxes/{made['id']}")
        assert (record.get("traffic_token_sha256") is not None) is private
        assert record["mask_request_host"] == "localhost:${PORT}"


async def test_a_pause_that_ends_before_it_is_copied(service: Service) -> None:
    """Its files are not those of the snapshot any more: nothing is created."""
    sandbox = await service.create(**PAUSES)
    _, pause = await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
    sandboxes = service.plane.parts.sandboxes
    the_sandbox = sandboxes.get(sandbox)
    async with the_sandbox.lock:
        creating = asyncio.create_task(
            service.api("POST", "/v1/sandboxes", {"snapshot_id": pause["id"]})
        )
        await until(lambda: len(sandboxes.living()) == 2)
        await sandboxes._transitions.thaw(the_sandbox, API)
    status, error = await creating
    assert (status, error["code"]) == (409, "incompatible_snapshot")
    assert [one.id for one in sandboxes.living()] == [sandbox]
