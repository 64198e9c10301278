"""Kill -9 while volumes, attachments, snapshots and forks come and go: what was acknowledged is there.

``KILL_ROUNDS`` says how often (``make soak`` sets it), ``KILL_SEED`` brings a history back.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from restarting import GONE, Plane
from service import PAUSES

ROUNDS = int(os.environ.get("KILL_ROUNDS", "3"))
SEED = int(os.environ.get("KILL_SEED", "0")) or (random.randrange(10**9) if ROUNDS > 3 else 1)
CALLS = 25
"""Acknowledged calls of a round, at most."""


async def test_a_restart(tmp_path: Path) -> None:
    """Volumes with data and attachments, snapshots of both kinds; sandboxes are in error, their volumes not."""
    async with Plane(tmp_path) as plane:
        _, volume = await plane.call("POST", "/v1/volumes", {"name": "v"})
        mounts = [{"ref": "v", "mount_path": "/workspace/v", "subpath": "p"}]
        sandbox = (await plane.api("POST", "", {"volumes": mounts, **PAUSES}))["id"]
        line = {"command": "echo 1 > f; echo data > v/f", "shell": True}
        await plane.api("POST", f"/{sandbox}/exec", line)
        key = {"Idempotency-Key": "k"}
        copy = await plane.api("POST", f"/{sandbox}/snapshots", **key)
        pause = await plane.api("POST", f"/{sandbox}/hibernate")
        _, attached = await plane.call("GET", f"/v1/sandboxes/{sandbox}/volumes")
        await plane.kill()
        await plane.start()
        (again,) = await plane.api("GET", f"/{sandbox}/volumes")
        assert again == attached[0] | {"state": "unmounted"}
        read = await plane.api("POST", f"/{sandbox}/files/read", {"path": "v/f"})
        assert read["content"] == "data\n", "the files of one in error have their volumes"
        _, error = await plane.call("DELETE", f"/v1/volumes/{volume['id']}")
        assert error["code"] == "volume_busy"
        _, listed = await plane.call("GET", "/v1/snapshots")
        assert [one["id"] for one in listed] == [copy["id"], pause["id"]]
        assert await plane.api("POST", f"/{sandbox}/snapshots", **key) == copy
        for what in ("fork", "snapshots", "volumes"):
            status, error = await plane.call("POST", f"/v1/sandboxes/{sandbox}/{what}", mounts[0])
            assert (status, error["code"]) == (409, "sandbox_not_ready")
        made = await plane.api("POST", "", {"snapshot_id": copy["id"]})
        ran = await plane.api("POST", f"/{made['id']}/exec", line | {"command": "cat f v/f"})
        assert ran["stdout"] == "1\ndata\n"
        # What a pause was is lost with its processes; its name can go now.
        status, error = await plane.call("POST", "/v1/sandboxes", {"snapshot_id": pause["id"]})
        assert (status, error["code"]) == (409, "incompatible_snapshot")
        assert (await plane.call("DELETE", f"/v1/snapshots/{pause['id']}"))[0] == 204
        await plane.api("DELETE", f"/{sandbox}/volumes/{again['id']}")
        await plane.api("DELETE", f"/{made['id']}")
        assert (await plane.call("DELETE", f"/v1/volumes/{volume['id']}"))[0] == 204
        assert list((plane.data / "volumes").iterdir()) == []


class History:
    """One client, and what it was told. ``pending`` is the call under way, which may have happened or not."""

    def __init__(self, plane: Plane) -> None:
        self.plane = plane
        self.random = random.Random(SEED)
        self.volumes: dict[str, dict[str, str]] = {}
        self.sandboxes: dict[str, dict[str, str]] = {}
        self.alive: set[str] = set()
        self.snapshots: set[str] = set()
        self.pending: Callable[[], Awaitable[None]] | None = None
        self.due = asyncio.Event()
        self._count = 0

    async def work(self, calls: int) -> None:
        """Call after call, until the control plane is gone; ``due`` is set after so many."""
        self.due.clear()
        try:
            while True:
                if not calls:
                    self.due.set()
                calls -= 1
                self.pending = self._next()
                await self.pending()
                self.pending = None
        except GONE:
            self.due.set()

    def _next(self) -> Callable[[], Awaitable[None]]:
        self._count += 1
        choices = [self._create_volume] * 2 + [self._create] * 2
        if self.volumes:
            choices += [self._write] * 4 + [self._delete_volume]
        if self.alive:
            choices += [self._snapshot] * 2 + [self._fork] * 2
            choices += [self._attach] * 4 if self.volumes else []
        if any(self.sandboxes.values()):
            choices += [self._detach] * 2
        if self.snapshots:
            choices += [self._delete_snapshot]
        if len(self.sandboxes) > 8:
            choices += [self._kill] * 8
        return self.random.choice(choices)()

    def _any(self, things: Any) -> Any:
        return self.random.choice(sorted(things))

    async def _call(self, method: str, path: str, *may: int, body: Any = None, **more: str) -> Any:
        status, answer = await self.plane.call(method, f"/v1{path}", body, **more)
        assert status < 300 or status in may, (method, path, status, answer)
        return answer if status < 300 else None

    def _create_volume(self) -> Callable[[], Awaitable[None]]:
        name = f"v{self._count}"

        async def create() -> None:
            await self._call("POST", "/volumes", 409, body={"name": name})
            self.volumes.setdefault(name, {})

        return create

    def _write(self) -> Callable[[], Awaitable[None]]:
        name, text = self._any(self.volumes), str(self._count)

        async def write() -> None:
            found = await self._call("GET", f"/volumes/by-name/{name}")
            body = {"path": f"/{text}", "content": text}
            await self._call("POST", f"/volumes/{found['id']}/files/write", body=body)
            self.volumes[name][text] = text

        return write

    def _delete_volume(self) -> Callable[[], Awaitable[None]]:
        name = self._any(self.volumes)
        used = any(name in places.values() for places in self.sandboxes.values())

        async def delete() -> None:
            found = await self._call("GET", f"/volumes/by-name/{name}", 404)
            if found is not None:
                status, _ = await self.plane.call("DELETE", f"/v1/volumes/{found['id']}")
                assert status == (409 if used else 204)
            if not used:
                self.volumes.pop(name)

        return delete

    def _made(self, made: Any) -> None:
        names = {one["id"]: one["name"] for one in self._known}
        places = made["metadata"].get("volume_attachments", ())
        self.sandboxes[made["id"]] = {one["id"]: names[one["volume_id"]] for one in places}

    async def _learn(self) -> None:
        self._known = await self._call("GET", "/volumes")

    def _create(self) -> Callable[[], Awaitable[None]]:
        key, mounts = f"c{self._count}", []
        if self.volumes:
            mounts = [{"ref": self._any(self.volumes), "mount_path": "/workspace/v"}]

        async def create() -> None:
            await self._learn()
            body = {"volumes": mounts}
            made = await self._call("POST", "/sandboxes", body=body, **{"Idempotency-Key": key})
            self._made(made)
            self.alive.add(made["id"])

        return create

    def _fork(self) -> Callable[[], Awaitable[None]]:
        sandbox, key = self._any(self.alive), f"f{self._count}"

        async def fork() -> None:
            await self._learn()
            path = f"/sandboxes/{sandbox}/fork"
            # After a restart the source is in error; a fork that was made is answered all the same.
            made = await self._call("POST", path, 409, **{"Idempotency-Key": key})
            if made is not None:
                self._made(made)
                self.alive.add(made["id"])

        return fork

    def _snapshot(self) -> Callable[[], Awaitable[None]]:
        sandbox, key = self._any(self.alive), f"s{self._count}"

        async def snapshot() -> None:
            path = f"/sandboxes/{sandbox}/snapshots"
            made = await self._call("POST", path, 409, **{"Idempotency-Key": key})
            if made is not None:
                self.snapshots.add(made["id"])

        return snapshot

    def _delete_snapshot(self) -> Callable[[], Awaitable[None]]:
        snapshot = self._any(self.snapshots)

        async def delete() -> None:
            await self._call("DELETE", f"/snapshots/{snapshot}", 404)
            self.snapshots.discard(snapshot)

        return delete

    def _attach(self) -> Callable[[], Awaitable[None]]:
        sandbox, name = self._any(self.alive), self._any(self.volumes)
        path = f"/workspace/a/{self._count}"

        async def attach() -> None:
            here = f"/sandboxes/{sandbox}/volumes"
            made = await self._call("POST", here, 409, body={"ref": name, "mount_path": path})
            if made is None:  # In error by now, or there already.
                found = [one for one in await self._call("GET", here) if one["mount_path"] == path]
                made = found[0] if found else None
            if made is not None:
                self.sandboxes[sandbox][made["id"]] = name

        return attach

    def _detach(self) -> Callable[[], Awaitable[None]]:
        sandbox = self._any(name for name, places in self.sandboxes.items() if places)
        attachment = self._any(self.sandboxes[sandbox])

        async def detach() -> None:
            await self._call("DELETE", f"/sandboxes/{sandbox}/volumes/{attachment}", 404)
            self.sandboxes[sandbox].pop(attachment, None)

        return detach

    def _kill(self) -> Callable[[], Awaitable[None]]:
        sandbox = self._any(self.sandboxes)

        async def kill() -> None:
            await self._call("DELETE", f"/sandboxes/{sandbox}", 404)
            self.sandboxes.pop(sandbox, None)
            self.alive.discard(sandbox)

        return kill

    async def settle(self) -> None:
        """After a restart: all are in error, and the call under way is made once more."""
        self.alive.clear()
        if self.pending is not None:
            await self.pending()
            self.pending = None
        # What a create or fork made once more is running; a repeated answer is of one in error.
        listed = await self._call("GET", "/sandboxes")
        self.alive = {one["id"] for one in listed if one["status"] == "running"}

    async def check(self) -> None:
        """What there is is what was acknowledged, on disk, too."""
        volumes = {one["name"]: one for one in await self._call("GET", "/volumes")}
        assert volumes.keys() == self.volumes.keys()
        for name, files in self.volumes.items():
            folder = self.plane.data / "volumes" / volumes[name]["id"] / "files"
            assert {path.name: path.read_text() for path in folder.iterdir()} == files
            count = sum(name in places.values() and list(places.values()).count(name)
                        for places in self.sandboxes.values())  # fmt: skip
            assert volumes[name]["mount_count"] == count
        assert self._names("volumes") == {one["id"] for one in volumes.values()}
        listed = {one["id"] for one in await self._call("GET", "/sandboxes")}
        assert listed == self.sandboxes.keys() == self._names("sandboxes")
        for sandbox, places in self.sandboxes.items():
            attached = await self._call("GET", f"/sandboxes/{sandbox}/volumes")
            assert {one["id"] for one in attached} == places.keys()
            root = self.plane.data / "sandboxes" / sandbox / "workspace"
            for one in attached:
                link = root / one["mount_path"].removeprefix("/workspace/")
                assert link.readlink() == (self.plane.data / "volumes" / one["volume_id"] / "files")
            # A link whose attachment was not written yet, or not any more, may be left: it is nothing.
            assert sum(path.is_symlink() for path in root.rglob("*")) >= len(attached)
        snapshots = {one["id"] for one in await self._call("GET", "/snapshots")}
        assert snapshots == self.snapshots == self._names("snapshots")

    def _names(self, folder: str) -> set[str]:
        return {path.name for path in (self.plane.data / folder).iterdir()}


@pytest.mark.timeout(120 if ROUNDS <= 3 else 0)
async def test_any_history(tmp_path: Path) -> None:
    """Killed after so many calls, or in the middle of one, again and again: nothing is lost, nothing is left."""
    async with Plane(tmp_path) as plane:
        history = History(plane)
        for number in range(ROUNDS):
            print(f"round {number} of seed {SEED}")
            working = asyncio.create_task(history.work(history.random.randrange(CALLS)))
            await asyncio.wait([working, due := asyncio.create_task(history.due.wait())],
                               return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
            due.cancel()
            await asyncio.sleep(history.random.random() * 0.02)
            plane.strike()
            await working
            await plane.kill()
            await plane.start()
            await history.settle()
            await history.check()
