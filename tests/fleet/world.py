"""A fleet as processes: a Redis, a control plane, three edges, each of which a test may stop or kill.

The app and the clients are played by the test itself. A client that is refused for now (503 with ``Retry-After``),
or whose edge died, asks again, at the next edge: so in the end everybody has an answer, and `Tally` says at what price.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import aiohttp
from redis.asyncio import Redis

from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State, Transport, Upstream
from edge.state import wire
from edge.state.redis.layout import Layout
from tests.flows.controlplane import TOKEN
from tests.flows.mint import LIFETIME, Mint
from tests.flows.rawclient import Answer, RawClient
from tests.flows.scriptedapp import ScriptedApp
from tests.flows.stage import LONG_AGO, PORT, Preview
from tests.ops.programs import MODULE, Program, toml
from tests.state.redis.valkey import Valkey, free_port

EDGES = ("edge-1", "edge-2", "edge-3")
PATIENCE = 60.0
"""Seconds after which a request that got nothing but refusals counts as lost."""
AWAY = float(os.environ.get("CHAOS_AWAY", "1.2"))
"""Seconds somebody is away: longer than a command to Redis may take, and than a record is fresh."""
STOPPED = float(os.environ.get("CHAOS_AWAY", "4"))
"""The same for whoever is stopped: longer than a lease."""
AGAIN = 0.1
"""Seconds before a client asks again."""
_FRESH = re.compile(rb'preview_edge_catalog_trust\{trust="fresh"\} 1\.0')


class World:
    """Redis, control plane and edges. Used by the tests of a module one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mint = Mint()
        self.redis = Valkey(folder)
        self.journal = folder / "journal"
        self._backstage, self._port = free_port(), free_port()
        self._ports = {name: (free_port(), free_port()) for name in EDGES}
        self._programs: dict[str, Program] = {}
        self._numbers = itertools.count(1)

    # --- Life: of processes, so without a loop -----------------------------------------------------------

    def __enter__(self) -> Self:
        asyncio.run(self.redis.start())
        (self.folder / "jwks.json").write_text(json.dumps(self.mint.jwks))
        told = {"port": self._port, "backstage": self._backstage, "redis": self.redis.url}
        (self.folder / "plane.json").write_text(json.dumps(told))
        for name in ("plane", *EDGES):
            self.begin(name)
        for name in ("plane", *EDGES):
            self.up(name)
        return self

    def __exit__(self, *_: object) -> None:
        for program in self._programs.values():
            program.__exit__()
        self.redis.kill()

    def begin(self, name: str) -> None:
        """Start the control plane or an edge, where it was before."""
        folder = self.folder / f"{name}-{next(self._numbers)}"
        if name == "plane":
            command = (sys.executable, "-m", "tests.fleet.plane")
            self._programs[name] = Program(folder, str(self.folder), command=command)
            return
        file = self.folder / f"{name}.toml"
        file.write_text(toml(self._settings(name)))
        self._programs[name] = Program(folder, "serve", "--config", str(file), command=MODULE)

    def up(self, name: str) -> None:
        """Wait until it listens."""
        program = self._programs[name]
        program.until(lambda: "listening" in program.out)

    def kill(self, name: str) -> None:
        """As by a power cut."""
        if name == "redis":
            self.redis.kill()
        else:
            self._programs[name].__exit__()

    async def strike(self, victim: str, how: str) -> None:
        """Somebody is ``killed`` or ``stopped``, or Redis is ``flushed``."""
        if how == "flushed":
            async with self.redis.client() as client:
                await client.flushall()
        elif how == "killed":
            await asyncio.to_thread(self.kill, victim)
        else:
            self.freeze(victim)

    async def undo(self, victim: str, how: str) -> None:
        """What was killed is begun again, what was stopped goes on."""
        if how == "killed":
            await self.again(victim)
        elif how == "stopped":
            self.thaw(victim)

    async def again(self, name: str) -> None:
        """What was killed is begun again."""
        if name == "redis":
            await self.redis.start()
        else:
            await asyncio.to_thread(self.begin, name)
            await asyncio.to_thread(self.up, name)

    def freeze(self, name: str) -> None:
        """It hangs (SIGSTOP): its sockets take what comes, and nobody answers."""
        if name == "redis":
            self.redis.freeze()
        else:
            self._programs[name].signal(signal.SIGSTOP)

    def thaw(self, name: str) -> None:
        """It goes on (SIGCONT)."""
        if name == "redis":
            self.redis.thaw()
        else:
            self._programs[name].signal(signal.SIGCONT)

    def _settings(self, name: str) -> dict[str, Any]:
        port, admin_port = self._ports[name]
        return {
            "public_hostname": self.mint.site,
            "listen": {"port": port, "admin_port": admin_port},
            "control_plane": {
                "url": f"http://127.0.0.1:{self._port}",
                "token": TOKEN,
                "edge_id": name,
                "timeout": 2.0,
            },
            "redis": {"url": self.redis.url},
            "tokens": {"jwks_file": self.folder / "jwks.json"},
            "cookie": {"keys": [{"kid": "fleet", "secret": self.mint.fleet}]},
            "log": {"access": "", "level": "warning"},
            "drain": {"timeout": 0, "waiters": 0, "tunnels": 0},
        }

    # --- What the control plane was told, and asked ------------------------------------------------------

    async def tell(self, **what: Any) -> None:
        """The control plane shall do something."""
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{self._backstage}/", json=what) as answer,
        ):
            assert answer.status == 204, await answer.text()

    async def sandbox(self, app: ScriptedApp, state: State = State.PAUSED) -> Preview:
        """A new sandbox with the app on its port, and a preview of it."""
        number = next(self._numbers)
        sandbox_id, grant = f"sb_fleet{number:08d}", f"pvg_{number:032x}"
        running = state is State.RUNNING
        record = SandboxRecord(
            sandbox_id, state, 1, 1,
            auto_resume=True,
            running_since=time.time() - LONG_AGO if running else None,
            upstream=Upstream("127.0.0.1", {PORT: app.port}) if running else None,
        )  # fmt: skip
        right = GrantRecord(
            grant, sandbox_id, PORT, frozenset(Transport), GrantStatus.ACTIVE,
            time.time() + LIFETIME, 1,
        )  # fmt: skip
        await self.tell(upstream=sandbox_id, port=PORT, at=app.port)
        await self.tell(sandbox=wire.sandbox_to_json(record).decode())
        await self.tell(grant=wire.grant_to_json(right).decode())
        return Preview(self, sandbox_id, PORT, grant)  # type: ignore[arg-type]

    def notes(self, since: int = 0) -> list[dict[str, Any]]:
        """The journal, from a place in it on."""
        return [json.loads(line) for line in self.journal.read_bytes()[since:].splitlines()]

    @property
    def place(self) -> int:
        """Where the journal ends."""
        return self.journal.stat().st_size

    def calls(self, since: int = 0, sandbox_id: str | None = None) -> Counter[str]:
        """Calls of edges by kind."""
        return Counter(
            note["call"]
            for note in self.notes(since)
            if "call" in note and sandbox_id in (None, note["id"])
        )

    def incarnations(self, box: Preview) -> int:
        """New ones since the sandbox was made."""
        records = [wire.sandbox_from_json(n["sandbox"]) for n in self.notes() if "sandbox" in n]
        return max(record.incarnation for record in records if record.id == box.id) - 1

    def begun(self) -> int:
        """New incarnations of all sandboxes."""
        newest: dict[str, int] = {}
        for note in self.notes():
            if "sandbox" in note:
                record = wire.sandbox_from_json(note["sandbox"])
                newest[record.id] = max(record.incarnation, newest.get(record.id, 1))
        return sum(newest.values()) - len(newest)

    async def until(self, holds: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait for what other processes do."""
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 - other processes
                await asyncio.sleep(0.01)

    async def resuming(self, box: Preview, calls: int = 1) -> None:
        """The control plane has been asked that often to resume it."""
        await self.until(lambda: self.calls(sandbox_id=box.id)["resume"] >= calls)

    # --- Clients -----------------------------------------------------------------------------------------

    def port(self, name: str) -> int:
        """Where an edge takes traffic."""
        return self._ports[name][0]

    async def page(self, name: str, path: str) -> Answer:
        """A page of an edge's admin listener."""
        get = f"GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n".encode()
        async with await RawClient.open(self._ports[name][1]) as client:
            return await client.ask(get)

    async def whole(self, seconds: float = 60.0) -> None:
        """Wait until every edge is caught up, and a member."""
        async with asyncio.timeout(seconds), self.redis.client() as client:
            while not await self._is_whole(client):  # noqa: ASYNC110 - other processes
                await asyncio.sleep(0.02)

    async def _is_whole(self, client: Redis) -> bool:
        pages = [await self.page(name, "/metrics") for name in EDGES]
        members = await client.zrangebyscore(Layout("edge").members, _now(), "+inf")
        return len(members) == len(EDGES) and all(_FRESH.search(page.body) for page in pages)


def _now() -> float:
    return time.time() * 1000


@dataclass
class Tally:
    """What became of requests. ``refused`` were asked again, and so were those whose edge ``broke`` off."""

    sent: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    broke: Counter[str] = field(default_factory=Counter)
    cut_by_pauses: bool = False
    """Whether sandboxes are paused by order meanwhile, which may cut what is under way."""

    def asked_again(self, answer: Answer) -> bool:
        """Whether this answer is none yet."""
        if answer.status == 503:
            assert answer.value("retry-after") == "5"
            return True
        return (
            self.cut_by_pauses and answer.status == 502 and answer.code == "preview_upstream_closed"
        )

    def line(self, what: str, incarnations: int, healed: float) -> str:
        """For the report."""
        again = sum(self.refused.values()), sum(self.broke.values())
        return (
            f"{what:<52} sent {self.sent:>5}, answered {self.right + len(self.wrong):>5}, right {self.right:>5}, wrong {len(self.wrong)}, lost {self.lost}, "
            f"refused and asked again {again[0]:>3}, cut and asked again {again[1]:>3}, "
            f"incarnations {incarnations}, healed {healed:.1f} s after"
            f"{''.join(f', {code}' for code in self.refused)}"
        )


class Front(Protocol):
    """Where a fleet takes traffic."""

    def port(self, name: str) -> int:
        """Of an edge."""
        ...


async def ask(
    world: Front, box: Preview, path: str, names: tuple[str, ...], tally: Tally, token: str
) -> None:
    """One request, asked again until it has its own answer."""
    tally.sent += 1
    ends = time.monotonic() + PATIENCE
    for name in itertools.cycle(names):
        if time.monotonic() > ends:
            break
        try:
            async with await RawClient.open(world.port(name)) as client:
                answer = await client.ask(box.get(path, token=token))
        except (OSError, asyncio.IncompleteReadError):
            tally.broke[name] += 1
        except TimeoutError:
            break
        else:
            if not tally.asked_again(answer):
                if (answer.status, answer.body) == (200, f"GET {path} HTTP/1.1\n".encode()):
                    tally.right += 1
                else:
                    tally.wrong.append(f"{name} {path}: {answer.status} {answer.body!r}")
                return
            tally.refused[answer.code] += 1
        await asyncio.sleep(AGAIN)
    tally.lost += 1


async def herd(
    world: World, box: Preview, count: int, tally: Tally, *, first: str = "edge-1"
) -> Awaitable[Any]:
    """Requests spread over the edges, the first of which leads the wake; what ends with the last answer."""
    token = box.token()
    place = EDGES.index(first)
    order = EDGES[place:] + EDGES[:place]
    tasks = []
    for number in range(count):
        turn = number % len(order)
        names = order[turn:] + order[:turn]
        path = f"/{next(world._numbers)}"
        tasks.append(asyncio.create_task(ask(world, box, path, names, tally, token)))
        if not number:
            await world.resuming(box)
    return asyncio.gather(*tasks)
