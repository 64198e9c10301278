"""Two hundred calls at once on real sandboxes, in a random order: whatever the answers, there is an order of
the calls that explains them, by the table of states; and nothing is left behind.

The histories are made by a seed; ``make fuzz`` tries other ones.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import aiohttp
from hypothesis import given
from hypothesis import strategies as st
from orders import Call, Sight, explained
from service import KEY, Service, until

from edge.appliance.lifecycle import TABLE
from edge.core.records import SandboxRecord, State
from tests.core.wires import examples

CALLS = 200
SANDBOXES = 14
KINDS = {"pause": 5, "resume": 5, "exec": 5, "timeout": 3, "get": 2, "kill": 0.6, "create": 2}
TIME = 6
"""Seconds of a command; one that is frozen until then is over."""


class Storm:
    """Clients of one control plane, and what they were answered, by sandbox."""

    def __init__(self, service: Service, seed: int) -> None:
        self.dice = random.Random(seed)
        self.service = service
        self.calls: dict[str, list[Call]] = {}
        self.first: dict[str, Sight] = {}
        self.snapshots: dict[str, str] = {}
        self.auto: dict[str, bool] = {}
        self.records: list[SandboxRecord] = []
        service.plane.parts.feed.listen(self._hear)

    def _hear(self, record: object) -> None:
        if isinstance(record, SandboxRecord):
            self.records.append(record)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            f"http://127.0.0.1:{self.service.plane.port}",
            connector=aiohttp.TCPConnector(limit=0),
            headers={"Authorization": f"Bearer {KEY}"},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """One call."""
        async with self._session.request(method, f"/v1/sandboxes{path}", json=body) as answer:
            data = await answer.read()
        return answer.status, json.loads(data) if data else None

    async def create(self) -> str:
        """A new sandbox; nobody else knows of it yet."""
        auto = self.dice.random() < 0.5
        status, made = await self.ask(
            "POST", "", {"timeout_action": "hibernate", "auto_resume": auto}
        )
        assert status == 201, made
        self.auto[made["id"]], self.calls[made["id"]] = auto, []
        self.first[made["id"]] = Sight(State.RUNNING, 1)
        return str(made["id"])

    async def ready(self) -> None:
        """One that has a snapshot and is paused, or runs again."""
        again = self.dice.random() < 0.5
        sandbox = await self.create()
        # A process that stays, so that there is something to freeze, and something that a kill may leave behind.
        stays = {"command": "sleep", "args": ["600"], "background": True}
        assert (await self.ask("POST", f"/{sandbox}/exec", stays))[0] == 200
        _, snapshot = await self.ask("POST", f"/{sandbox}/hibernate")
        self.snapshots[sandbox] = snapshot["id"]
        self.first[sandbox] = Sight(State.PAUSED, 1, snapshot["id"])
        if again:
            assert (await self.ask("POST", f"/{snapshot['id']}/resume"))[0] == 200
            self.first[sandbox] = Sight(State.RUNNING, 2)

    async def call(self, kind: str, sandbox: str) -> None:
        """One call of a kind, kept with its answer."""
        if kind == "create":
            await self.create()
            return
        command = {"command": "true", "timeout_secs": TIME}
        method, path, body = {
            "pause": ("POST", f"/{sandbox}/hibernate", None),
            "resume": ("POST", f"/{self.snapshots.get(sandbox)}/resume", None),
            "exec": ("POST", f"/{sandbox}/exec", command),
            "timeout": ("POST", f"/{sandbox}/timeout", {"timeout_ms": 60_000}),
            "get": ("GET", f"/{sandbox}", None),
            "kill": ("DELETE", f"/{sandbox}", None),
        }[kind]
        begun = time.monotonic()
        status, answer = await self.ask(method, path, body)
        ended = time.monotonic()
        call = Call(kind, begun, ended, status, answer, self.auto[sandbox])
        self.calls[sandbox].append(call)


@given(st.integers(0, 1 << 32))
@examples(4)
async def test_some_order_explains_every_answer(service: Service, seed: int) -> None:
    """Answers, states, incarnations and what is left, after two hundred calls that were under way together."""
    before = _children()
    async with Storm(service, seed) as storm:
        await asyncio.gather(*(storm.ready() for _ in range(SANDBOXES)))
        old = list(storm.snapshots)
        kinds = storm.dice.choices(list(KINDS), list(KINDS.values()), k=CALLS)
        async with asyncio.timeout(60):
            await asyncio.gather(*(storm.call(kind, storm.dice.choice(old)) for kind in kinds))
        everybody = list(storm.calls)
        await asyncio.gather(*(storm.call("get", sandbox) for sandbox in everybody))
        records = {sandbox: service.plane.parts.sandboxes.record(sandbox) for sandbox in everybody}
        for sandbox, calls in storm.calls.items():
            record = records[sandbox]
            assert record is not None
            end = (record.state, record.incarnation)
            told = "\n".join(str(call) for call in sorted(calls, key=lambda call: call.ended))
            assert explained(
                calls,
                storm.first[sandbox],
                lambda now, end=end: (now.state, now.incarnation) == end,
            ), f"nothing explains {storm.first[sandbox]} to {end}:\n{told}"
            _legal([one for one in storm.records if one.id == sandbox])
            await _one_event_for_each_resume(storm, record)
        await asyncio.gather(*(storm.ask("DELETE", f"/{sandbox}") for sandbox in everybody))
    await _nothing_is_left(service, before)


def _legal(records: list[SandboxRecord]) -> None:
    """What edges were told is a way through the table, and a new incarnation is a start or a resume."""
    ways = {(state, then) for (state, _), then in TABLE.items()}
    for one, two in pairwise(records):
        assert two.version > one.version
        assert one.state is two.state or (one.state, two.state) in ways, (one, two)
        begins = one.state in (State.CREATING, State.RESUMING) and two.state is State.RUNNING
        assert two.incarnation == one.incarnation + begins, (one, two)


async def _one_event_for_each_resume(storm: Storm, record: SandboxRecord) -> None:
    query = "operation=resume_from_snapshot&status=succeeded&limit=1000"
    _, page = await storm.ask("GET", f"/{record.id}/lifecycle?{query}")
    assert len(page["events"]) == record.incarnation - 1


async def _nothing_is_left(service: Service, before: set[str]) -> None:
    parts = service.plane.parts
    folder = str(parts.config.data_dir / "sandboxes")
    assert parts.sandboxes.living() == []
    assert [one.calls for one in parts.sandboxes._registry.all() if one.calls] == []
    assert len(parts.sandboxes._expiry._timers) == 0
    assert list(Path(folder).glob("sb_*")) == []
    await until(lambda: _processes_in(folder) == [], 20)
    await until(lambda: _children() <= before, 20)


def _children() -> set[str]:
    """Our own: supervisors, which stand nowhere and tell no folder, and what other tests share. (Threads start processes, too.)"""
    tasks = Path("/proc/self/task").glob("*/children")
    return {pid for task in tasks for pid in task.read_text().split()}


def _processes_in(folder: str) -> list[str]:
    """Processes that stand in the folder, or were started with it, except for ourselves."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        try:
            where = str((process / "cwd").readlink())
            line = (process / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if where.startswith(folder) or folder in line:
            found.append(f"{process.name} {line}")
    return found
