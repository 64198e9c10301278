"""Nothing acknowledged is lost at kill -9: clients at work, killed at any moment, asked again afterwards.

``KILL_ROUNDS`` says how often (``make soak`` sets it), ``KILL_SEED`` brings a history back.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from restarting import GONE, Plane

ROUNDS = int(os.environ.get("KILL_ROUNDS", "4"))
SEED = int(os.environ.get("KILL_SEED", "0")) or (random.randrange(10**9) if ROUNDS > 4 else 1)
CLIENTS = 3
MOST = 12
"""Sandboxes of one client at once; beyond, it kills more than it makes."""


@dataclass
class Grant:
    """What was acknowledged about a grant."""

    status: str = "active"
    requests: int = 0


@dataclass
class Sandbox:
    """What was acknowledged about a sandbox."""

    timeout_ms: int
    grants: dict[str, Grant] = field(default_factory=dict)


class Client:
    """One client with sandboxes, keys and (as an edge) usage of its own.

    ``pending`` is the call under way: when the control plane is killed meanwhile, it may have happened or
    not. It is then made once more, and has happened once.
    """

    def __init__(self, plane: Plane, name: str, acknowledged: Callable[[], None]) -> None:
        self.plane = plane
        self.name = name
        self.random = random.Random(f"{SEED} {name}")
        self.sandboxes: dict[str, Sandbox] = {}
        self.killed: set[str] = set()
        self.created: dict[str, str] = {}
        self.pending: Callable[[], Awaitable[None]] | None = None
        self.settling = False
        self.fresh: set[str] = set()
        self._acknowledged = acknowledged
        self._count = 0

    async def work(self) -> None:
        """Call after call, until the control plane is gone."""
        try:
            while True:
                self.pending = self._next()
                await self.pending()
                self.pending = None
                self._acknowledged()
        except GONE:
            pass

    async def settle(self) -> None:
        """Make the call under way once more; ``fresh`` is what that made."""
        before, self.settling = self.sandboxes.keys() | set(), True
        if self.pending is not None:
            await self.pending()
            self.pending = None
        self.fresh, self.settling = self.sandboxes.keys() - before, False

    def _next(self) -> Callable[[], Awaitable[None]]:
        self._count += 1
        choices = [self._create] * 3
        if self.sandboxes:
            choices += [self._grant] * 4 + [self._timeout] * 2 + [self._kill] * 2
            choices += [self._kill] * 8 if len(self.sandboxes) > MOST else []
        if any(sandbox.grants for sandbox in self.sandboxes.values()):
            choices += [self._revoke, self._disable] + [self._use] * 4
        return self.random.choice(choices)()

    def _create(self) -> Callable[[], Awaitable[None]]:
        key, timeout = f"{self.name}-{self._count}", self.random.randrange(600_000, 9_000_000)
        body = {"timeout_ms": timeout, "metadata": {"key": key}}

        async def create() -> None:
            made = await self.plane.api("POST", "", body, **{"Idempotency-Key": key})
            self.sandboxes[made["id"]] = Sandbox(timeout)
            self.created[key] = made["id"]

        return create

    def _timeout(self) -> Callable[[], Awaitable[None]]:
        name, timeout = self._any(), self.random.randrange(600_000, 9_000_000)

        async def set_timeout() -> None:
            await self.plane.api("POST", f"/{name}/timeout", {"timeout_ms": timeout})
            self.sandboxes[name].timeout_ms = timeout

        return set_timeout

    def _kill(self) -> Callable[[], Awaitable[None]]:
        name = self._any()

        async def kill() -> None:
            status, answer = await self.plane.call("DELETE", f"/v1/sandboxes/{name}")
            assert status == 204 or (status == 404 and self.settling), answer
            del self.sandboxes[name]
            self.killed.add(name)

        return kill

    def _grant(self) -> Callable[[], Awaitable[None]]:
        name, port = self._any(), self.random.randrange(10_000, 60_000)

        async def grant() -> None:
            # It has no key: one that was made and not heard of is found by its port.
            found = await self._grants(name)
            ids = [one["id"] for one in found if one["port"] == port]
            if not ids:
                made = await self.plane.api("POST", f"/{name}/ports/{port}/signed-preview-url", {})
                ids = [made["grant"]["id"]]
            (made_id,) = ids
            self.sandboxes[name].grants[made_id] = Grant()

        return grant

    def _revoke(self) -> Callable[[], Awaitable[None]]:
        name, grant = self._any_grant()

        async def revoke() -> None:
            await self.plane.api("DELETE", f"/{name}/preview-urls/{grant}")
            self.sandboxes[name].grants[grant].status = "revoked"

        return revoke

    def _disable(self) -> Callable[[], Awaitable[None]]:
        name, grant = self._any_grant()

        async def disable() -> None:
            await self.plane.operator("POST", f"grants/{grant}/disable", {})
            known = self.sandboxes[name].grants[grant]
            known.status = "disabled" if known.status == "active" else known.status

        return disable

    def _use(self) -> Callable[[], Awaitable[None]]:
        used = [self._any_grant() for _ in range(3)]
        items = [
            {"sandbox_id": s, "grant_id": g, "requests": 1 + n} for n, (s, g) in enumerate(used)
        ]
        batch = {"edge": self.name, "sequence": self._count, "items": items}

        async def use() -> None:
            await self.plane.edge("POST", "usage", batch)
            for number, (sandbox, grant) in enumerate(used):
                self.sandboxes[sandbox].grants[grant].requests += 1 + number

        return use

    def _any(self) -> str:
        return self.random.choice(sorted(self.sandboxes))

    def _any_grant(self) -> tuple[str, str]:
        pairs = [(s, g) for s, sandbox in sorted(self.sandboxes.items()) for g in sandbox.grants]
        return self.random.choice(pairs)

    async def _grants(self, name: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.plane.api("GET", f"/{name}/preview-urls"))[
            "items"
        ]
        return items

    async def check(self, living: dict[str, dict[str, Any]]) -> None:
        """Whether everything that was acknowledged is so; ``living`` is what the API lists of ours."""
        assert living.keys() == self.sandboxes.keys()
        for name, known in self.sandboxes.items():
            made_now = name in self.fresh and living[name]["status"] == "running"
            assert living[name]["status"] == "error" or made_now
            assert living[name]["timeout_ms"] == known.timeout_ms
            grants = {one["id"]: one for one in await self._grants(name)}
            assert grants.keys() == known.grants.keys()
            for grant, state in known.grants.items():
                assert grants[grant]["status"] == state.status
                assert grants[grant]["use_count"] == state.requests
        for name in self.killed:
            assert (await self.plane.call("GET", f"/v1/sandboxes/{name}"))[0] == 404


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    """A control plane that can be killed."""
    async with Plane(tmp_path) as running:
        yield running


class Acknowledged:
    """Counts down to the moment that a test waits for."""

    def __init__(self) -> None:
        self.left = 0
        self.enough = asyncio.Event()

    def expect(self, calls: int) -> None:
        """So many are awaited."""
        self.left = calls
        self.enough.clear()

    def one(self) -> None:
        """One more."""
        self.left -= 1
        if self.left <= 0:
            self.enough.set()


async def _round(plane: Plane, clients: list[Client], heard: Acknowledged, after: float) -> None:
    """All at work at once; killed some time after enough calls were acknowledged."""
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.work())
        await heard.enough.wait()
        await asyncio.sleep(after)
        plane.strike()
    await plane.kill()


async def test_nothing_acknowledged_is_lost(plane: Plane) -> None:
    """Creates, grants, revocations, switches, timeouts, kills and usage; each key has made one sandbox."""
    print(f"KILL_SEED={SEED} KILL_ROUNDS={ROUNDS}")
    chance = random.Random(SEED)
    heard = Acknowledged()
    clients = [Client(plane, f"client-{number}", heard.one) for number in range(CLIENTS)]
    for _ in range(ROUNDS):
        heard.expect(chance.randrange(10, 150))
        await _round(plane, clients, heard, chance.uniform(0, 0.005))
        await plane.start()
        for client in clients:
            await client.settle()
        listed = await plane.api("GET")
        keys = [one["metadata"]["key"] for one in listed]
        assert len(keys) == len(set(keys)), "a key has made two sandboxes"
        folders = {path.name for path in (plane.data / "sandboxes").iterdir()}
        assert folders == {one["id"] for one in listed}
        for client in clients:
            ours = {
                one["id"]: one
                for one in listed
                if one["metadata"]["key"].startswith(f"{client.name}-")
            }
            await client.check(ours)
