"""A real Valkey for each test, single, with Sentinels or as a Cluster, and a control plane and edges beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from edge.core.records import GrantRecord, SandboxRecord, State
from edge.core.redis_settings import RedisSettings
from edge.state.port import Change, Heartbeat, ResumeRefused, Unavailable, UsageBatch, WatchEvent
from edge.state.redis import Publisher, RedisStatePort, changes, port, publisher
from tests.state.redis.sets import ClusterSet, SentinelSet
from tests.state.redis.valkey import Valkey

Servers = Valkey | SentinelSet | ClusterSet
KINDS: dict[str, Callable[[Path], Servers]] = {
    "single": Valkey,
    "sentinel": partial(SentinelSet, steady=True),
    "cluster": partial(ClusterSet, steady=True),
}


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[Valkey]:
    """A server of the test's own."""
    async with Valkey(tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Servers]]:
    """What has been started of each kind. A Cluster takes two seconds, so tests share it."""
    made = {kind: make(tmp_path_factory.mktemp(kind)) for kind, make in KINDS.items()}
    yield made
    for servers in made.values():
        servers.end()


@pytest.fixture(params=KINDS)
async def servers(request: pytest.FixtureRequest, standing: dict[str, Servers]) -> Servers:
    """Empty servers of each kind, one kind after the other. They are other tests' as well: none fails over."""
    made = standing[request.param]
    await made.clean()
    return made


only_single = pytest.mark.parametrize("servers", ["single"], indirect=True)
"""For what has nothing to do with the kind."""


@dataclass(frozen=True)
class Pace:
    """Seconds after which things count as late: a command, a proof or a question, the next heartbeat."""

    timeout: float
    believed: float
    silence: float


PATIENT = Pace(timeout=20.0, believed=60.0, silence=60.0)
"""A machine that stands still for seconds does not look like a Redis in trouble."""
hasty = pytest.mark.parametrize(
    "pace", [Pace(timeout=0.5, believed=1.5, silence=1.5)], ids=["hasty"], indirect=True
)
"""For tests of what falls silent or hangs. They must not count what is asked: the machine may be what is late."""


@pytest.fixture(autouse=True)
def pace(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Pace:
    """Heartbeats come faster, for that is what most tests wait for; and what is late is up to the test."""
    chosen: Pace = getattr(request, "param", PATIENT)
    monkeypatch.setattr(publisher, "BEAT", 0.1)
    monkeypatch.setattr(changes, "SILENCE", chosen.silence)
    monkeypatch.setattr(changes, "PROMPT", chosen.believed)
    monkeypatch.setattr(port, "BELIEVED", chosen.believed)
    monkeypatch.setattr(port, "MEMBERSHIP", 60.0)
    return chosen


class Control:
    """A control plane's other door: what edges ask when Redis cannot answer. Counts what is asked."""

    def __init__(self) -> None:
        self.records: dict[str, SandboxRecord | GrantRecord] = {}
        self.asked: list[str] = []
        self.resumed: list[str] = []
        self.reports: list[UsageBatch] = []
        self.refusal: ResumeRefused | Unavailable | None = None
        self.gone = False
        self.events: asyncio.Queue[WatchEvent | Unavailable] | None = None
        """What a watcher is told; None = there is nothing to be followed here."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.publish: Callable[[SandboxRecord], None] = lambda _: None

    async def sandbox(self, sandbox_id: str) -> SandboxRecord | None:
        self.asked.append(sandbox_id)
        found = self.records.get(sandbox_id)
        assert found is None or isinstance(found, SandboxRecord)
        return found

    async def grant(self, grant_id: str) -> GrantRecord | None:
        self.asked.append(grant_id)
        found = self.records.get(grant_id)
        assert found is None or isinstance(found, GrantRecord)
        return found

    async def resume(
        self, sandbox_id: str, paused_incarnation: int, reason: str, timeout: float
    ) -> SandboxRecord:
        self.resumed.append(sandbox_id)
        await self.gate.wait()
        if self.refusal is not None:
            raise self.refusal
        known = self.records[sandbox_id]
        assert isinstance(known, SandboxRecord)
        if known.state is State.PAUSED and known.incarnation == paused_incarnation:
            known = SandboxRecord(
                sandbox_id, State.RUNNING, known.version + 1, known.incarnation + 1
            )
            self.records[sandbox_id] = known
            self.publish(known)
        return known

    async def watch(self, cursor: int | None) -> AsyncIterator[WatchEvent]:
        assert cursor is None
        if self.events is None:
            raise Unavailable("no events here")
        while True:
            event = await self.events.get()
            if isinstance(event, Unavailable):
                raise event
            yield event

    async def report(self, batch: UsageBatch) -> None:
        if self.gone:
            raise Unavailable("gone")
        self.reports.append(batch)

    async def ack(self, sandbox_id: str, version: int, in_flight: int) -> None:
        self.asked.append(f"ack {sandbox_id}")

    async def close(self) -> None:
        pass


class Edge:
    """One edge's port with its watch followed; ``events`` is what it was told."""

    def __init__(self, settings: RedisSettings, control: Control, name: str) -> None:
        self.noted: list[str] = []
        self.reasons: list[str] = []
        self.port = RedisStatePort(settings, control, name, note=self._note)
        self.events: list[WatchEvent] = []
        self.failures = 0
        self._news = asyncio.Event()
        self._following: asyncio.Task[None] | None = None

    def _note(self, event: str, reason: str = "") -> None:
        self.noted.append(event)
        self.reasons += [reason] if reason else []

    async def follow(self) -> None:
        """Follow from now on, as the edge does: again and again."""
        self._following = asyncio.get_running_loop().create_task(self._follow())
        self._following.add_done_callback(lambda _: self._news.set())
        await self.until(lambda: isinstance(self.latest, Heartbeat))
        self.failures = 0  # A slow start has some; tests wait for those that they cause.

    @property
    def latest(self) -> WatchEvent | None:
        """The newest event."""
        return self.events[-1] if self.events else None

    def changes(self) -> list[SandboxRecord | GrantRecord]:
        """The records it was told of."""
        return [event.record for event in self.events if isinstance(event, Change)]

    async def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait for what an event brings."""
        async with asyncio.timeout(seconds):
            while not holds():
                self._news.clear()
                await self._news.wait()
                assert self._following is not None
                if self._following.done():
                    self._following.result()

    async def _follow(self) -> None:
        cursor: int | None = None
        while True:
            try:
                async for event in self.port.watch(cursor):
                    if not isinstance(event, Change):
                        cursor = event.cursor
                    self.events.append(event)
                    self._news.set()
            except Unavailable:
                self.failures += 1
                self._news.set()
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        await self.port.close()


class Fleet:
    """A publisher, a control plane and edges over one server."""

    def __init__(
        self, settings: RedisSettings, stack: AsyncExitStack, pace: Pace = PATIENT
    ) -> None:
        self.settings = settings.model_copy(update={"timeout": pace.timeout})
        self.control = Control()
        self.told: list[str] = []
        self._stack = stack
        self._running: asyncio.Task[None] | None = None
        self.renew()

    def renew(self) -> None:
        """Another process's publisher, which knows nothing of what was published before."""
        self.publisher = Publisher(
            self.settings,
            lambda: list(self.control.records.values()),
            wall=time.time,
            log=lambda event, **_: self.told.append(event),
        )
        self.control.publish = self.publisher.publish

    def put(self, record: SandboxRecord | GrantRecord) -> None:
        """A record as the control plane has it, published."""
        self.control.records[record.id] = record
        self.publisher.publish(record)

    def start(self) -> None:
        """Publish from now on."""
        self._running = asyncio.get_running_loop().create_task(self.publisher.run())
        self._stack.push_async_callback(self.stop)

    async def stop(self) -> None:
        """Publish no more."""
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running

    async def believed(self, edge: Edge, record: SandboxRecord | GrantRecord) -> None:
        """Wait until an edge reads a record from Redis and asks nobody. What it is told until then is right, too."""
        look: Callable[[str], Awaitable[object]] = (
            edge.port.sandbox if isinstance(record, SandboxRecord) else edge.port.grant
        )
        async with asyncio.timeout(20):
            while True:
                asked = len(self.control.asked)
                assert await look(record.id) == record
                if len(self.control.asked) == asked:
                    return
                await asyncio.sleep(0.02)

    async def edge(self, name: str = "edge-1", *, follow: bool = True) -> Edge:
        """An edge that has caught up (or does not follow at all)."""
        edge = Edge(self.settings, self.control, name)
        self._stack.push_async_callback(edge.close)
        if follow:
            await edge.follow()
        return edge


@pytest.fixture
async def fleet(servers: Servers, pace: Pace) -> AsyncIterator[Fleet]:
    """A fleet over servers of each kind, publishing."""
    async with AsyncExitStack() as stack:
        made = Fleet(servers.settings, stack, pace)
        made.start()
        yield made
