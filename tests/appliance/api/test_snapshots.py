"""Snapshots and forks over HTTP: both kinds of snapshots, keys, events, refusals."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from service import PAUSES, Service


async def _shell(service: Service, sandbox: str, line: str) -> str:
    body = {"command": line, "shell": True}
    status, result = await service.api("POST", f"/v1/sandboxes/{sandbox}/exec", body)
    assert status == 200, result
    return str(result["stdout"])


async def test_a_life(service: Service) -> None:
    """Make one, list it, create from it, delete it; it does not need its sandbox."""
    sandbox = await service.create(metadata={"app": "a"})
    await _shell(service, sandbox, "echo 1 > f; mkdir d; ln -s $PWD/f l")
    status, snapshot = await service.api("POST", f"/v1/sandboxes/{sandbox}/snapshots")
    assert status == 201
    assert snapshot == {
        "id": snapshot["id"], "sandbox_id": sandbox, "size_bytes": 2,
        "created_at": snapshot["created_at"],
        "metadata": {"app": "a", "created_via": "api", "memory": "not_carried"},
    }  # fmt: skip
    await _shell(service, sandbox, "echo 2 > f")
    await service.api("DELETE", f"/v1/sandboxes/{sandbox}")
    here = f"/v1/snapshots/{snapshot['id']}"
    assert (await service.api("GET", here))[1] == snapshot
    made = [await service.create(snapshot_id=snapshot["id"]) for _ in range(2)]
    assert [await _shell(service, one, "cat l; ls") for one in made] == ["1\nd\nf\nl\n"] * 2
    await _shell(service, made[0], "echo 3 > f")
    assert await _shell(service, made[1], "cat f") == "1\n"
    status, error = await service.api("POST", f"/v1/sandboxes/{snapshot['id']}/resume")
    assert (status, error["code"]) == (409, "incompatible_snapshot")
    assert (await service.api("DELETE", here))[0] == 204
    for method in ("GET", "DELETE"):
        status, error = await service.api(method, here)
        assert (status, error["code"]) == (404, "snapshot_not_found")
    status, error = await service.api("POST", "/v1/sandboxes", {"snapshot_id": snapshot["id"]})
    assert (status, error["code"]) == (404, "snapshot_not_found")
    assert list((service.plane.config.data_dir / "snapshots").iterdir()) == []


async def test_lists(service: Service) -> None:
    """Both kinds, oldest first; by sandbox, by metadata, by both."""
    one = await service.create(metadata={"app": "a", "n": 1}, **PAUSES)
    two = await service.create(metadata={"app": "b"})
    made = [
        (await service.api("POST", f"/v1/sandboxes/{sandbox}/{what}"))[1]["id"]
        for sandbox, what in ((two, "snapshots"), (one, "snapshots"), (one, "hibernate"))
    ]

    async def listed(query: str) -> list[str]:
        status, found = await service.api("GET", f"/v1/snapshots{query}")
        assert status == 200
        return [snapshot["id"] for snapshot in found]

    assert await listed("") == made
    assert await listed(f"?sandbox_id={one}") == made[1:]
    assert await listed('?metadata={"app":"a"}') == made[1:]
    assert await listed('?metadata={"app":"a","n":2}') == []
    assert await listed('?metadata={"created_via":"hibernate"}') == made[2:]
    assert await listed('?metadata={"memory":"not_carried"}&sandbox_id=' + two) == made[:1]
    assert await listed("?sandbox_id=sb_none") == []
    for query in ("?metadata=[]", "?metadata={", "?limit=1"):
        assert (await service.api("GET", f"/v1/snapshots{query}"))[0] == 400


async def test_the_snapshot_a_paused_sandbox_needs(service: Service) -> None:
    """Refused while it is paused; an older one, or one that was resumed from, may go, and is gone then."""
    sandbox = await service.create(**PAUSES)
    pauses = []
    for _ in range(2):
        _, pause = await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
        pauses.append(pause["id"])
        if len(pauses) == 1:
            await service.api("POST", f"/v1/sandboxes/{pause['id']}/resume")
    old, current = pauses
    status, error = await service.api("DELETE", f"/v1/snapshots/{current}")
    assert (status, error["code"]) == (409, "snapshot_in_use")
    assert (await service.api("DELETE", f"/v1/snapshots/{old}"))[0] == 204
    assert (await service.api("POST", f"/v1/sandboxes/{old}/resume"))[0] == 404
    assert (await service.api("POST", f"/v1/sandboxes/{current}/resume"))[0] == 200
    assert (await service.api("GET", f"/v1/snapshots/{current}"))[0] == 200
    assert (await service.api("DELETE", f"/v1/snapshots/{current}"))[0] == 204
    assert (await service.api("GET", "/v1/snapshots"))[1] == []
    _, pause = await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
    await service.api("DELETE", f"/v1/sandboxes/{sandbox}")
    assert (await service.api("GET", f"/v1/snapshots/{pause['id']}"))[0] == 404


async def test_a_fork(service: Service) -> None:
    """The same files, plan and variables, nothing of what runs; then both go their own ways."""
    await service.api("POST", "/v1/volumes", {"name": "v"})
    sandbox = await service.create(
        template="t", vcpus=3, envs={"SAID": "yes"}, metadata={"a": 1}, cwd="/workspace/in",
        timeout_ms=77_000, volumes=[{"ref": "v", "mount_path": "/workspace/v"}], **PAUSES,
    )  # fmt: skip
    await _shell(service, sandbox, "echo 1 > f; echo shared > ../v/f; ln -s $PWD abs")
    status, fork = await service.api("POST", f"/v1/sandboxes/{sandbox}/fork")
    assert (status, fork["status"], fork["template"]) == (201, "running", "t")
    assert (fork["config"]["vcpus"], fork["cwd"], fork["timeout_ms"]) == (
        3,
        "/workspace/in",
        77_000,
    )
    assert fork["id"] != sandbox and "traffic_access_token" not in fork
    assert fork["metadata"]["a"] == 1
    (attachment,) = fork["metadata"]["volume_attachments"]
    assert (attachment["sandbox_id"], attachment["state"]) == (fork["id"], "mounted")
    assert await _shell(service, fork["id"], "cat f ../v/f; echo $SAID") == "1\nshared\nyes\n"
    await _shell(service, fork["id"], "echo 2 > abs/f; echo both > ../v/f")
    assert await _shell(service, sandbox, "cat f ../v/f") == "1\nboth\n"
    await service.api("DELETE", f"/v1/sandboxes/{sandbox}")
    assert await _shell(service, fork["id"], "cat f ../v/f") == "2\nboth\n"
    again = (await service.api("POST", f"/v1/sandboxes/{fork['id']}/fork"))[1]
    assert await _shell(service, again["id"], "cat f") == "2\n", "a fork of a fork"


async def test_events(service: Service) -> None:
    """Who came of whom and what was not carried, in the lists of both sandboxes and of the snapshot."""
    sandbox = await service.create()
    _, snapshot = await service.api("POST", f"/v1/sandboxes/{sandbox}/snapshots")
    _, fork = await service.api("POST", f"/v1/sandboxes/{sandbox}/fork")
    made = await service.create(snapshot_id=snapshot["id"])

    async def told(path: str) -> list[tuple[Any, ...]]:
        _, listed = await service.api("GET", f"{path}/lifecycle?order=asc")
        keys = ("operation", "status", "snapshot_id", "source_sandbox_id", "target_sandbox_id")
        return [(*map(event.get, keys), event.get("metadata", {})) for event in listed["events"]]

    lost = {"memory": "not_carried"}
    created = ("snapshot_created", "succeeded", snapshot["id"], sandbox, None)
    created = (*created, {"created_via": "api", "size_bytes": 0} | lost)
    forks = [("fork", "requested", None, sandbox, None, lost)]
    forks += [("fork", "succeeded", None, sandbox, fork["id"], lost)]
    assert (await told(f"/v1/sandboxes/{sandbox}"))[1:] == [created, *forks]
    plain = {"timeout_action": "destroy"} | lost
    (event,) = await told(f"/v1/sandboxes/{fork['id']}")
    assert event == (
        "create",
        "succeeded",
        None,
        sandbox,
        fork["id"],
        plain | {"created_via": "fork"},
    )
    (event,) = await told(f"/v1/sandboxes/{made}")
    assert event == (
        "create", "succeeded", snapshot["id"], sandbox, made, plain | {"created_via": "snapshot"},
    )  # fmt: skip
    assert await told(f"/v1/snapshots/{snapshot['id']}") == [created, event]


@pytest.mark.parametrize("what", ["fork", "snapshots"])
async def test_keys(service: Service, what: str) -> None:
    """A call that comes again with its key, at once or later, is one; with another meaning it is refused."""
    sandbox, other = await service.create(), await service.create()
    path = f"/v1/sandboxes/{sandbox}/{what}"
    calls = [service.api("POST", path, **{"Idempotency-Key": "k"}) for _ in range(5)]
    answers = [
        *await asyncio.gather(*calls),
        await service.api("POST", path, **{"Idempotency-Key": "k"}),
    ]
    assert len({(status, answer["id"]) for status, answer in answers}) == 1
    count = len((await service.api("GET", "/v1/sandboxes"))[1]) - 2
    assert count + len((await service.api("GET", "/v1/snapshots"))[1]) == 1
    another = {"fork": "snapshots", "snapshots": "fork"}[what]
    for path in (
        f"/v1/sandboxes/{other}/{what}",
        f"/v1/sandboxes/{sandbox}/{another}",
        "/v1/sandboxes",
    ):
        status, error = await service.api("POST", path, {}, **{"Idempotency-Key": "k"})
        assert (status, error["code"]) == (409, "idempotency_conflict")
    status, _ = await service.api(
        "POST", f"/v1/sandboxes/{sandbox}/{what}", **{"Idempotency-Key": "k" * 256}
    )
    assert status == 400


async def test_a_fork_whose_volume_is_gone(service: Service) -> None:
    """Refused with the reason, and no sandbox is left; the snapshot does not keep a volume from being deleted."""
    _, volume = await service.api("POST", "/v1/volumes", {"name": "v"})
    sandbox = await service.create(volumes=[{"ref": "v", "mount_path": "/workspace/v"}])
    folder = service.plane.config.data_dir / "volumes" / volume["id"]
    folder.rename(folder.with_name("away"))
    status, error = await service.api("POST", f"/v1/sandboxes/{sandbox}/fork")
    assert (status, error["code"]) == (409, "volume_unavailable")
    assert len((await service.api("GET", "/v1/sandboxes"))[1]) == 1
    folder.with_name("away").rename(folder)
    assert (await service.api("POST", f"/v1/sandboxes/{sandbox}/fork"))[0] == 201
