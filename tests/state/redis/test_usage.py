"""Batches that waited in Redis: each reaches the counter, and goes only when it has been taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from edge.appliance.sequences import Sequences
from edge.state import wire
from edge.state.port import Unavailable, Usage, UsageBatch
from edge.state.redis import LeftUsage, usage
from edge.state.redis import port as port_module
from edge.state.redis.layout import Layout
from tests.state.redis.conftest import Fleet, Servers, only_single

STREAM = Layout("edge").batches


class Counter:
    """A control plane that counts each number once."""

    def __init__(self) -> None:
        self.known = Sequences()
        self.counted: list[int] = []
        self.failures = 0
        self.told: list[str] = []
        self.reasons: list[str] = []
        self._news = asyncio.Event()

    def take(self, batch: UsageBatch) -> None:
        """Count a batch, or fail."""
        self._news.set()
        if self.failures:
            self.failures -= 1
            raise OSError("disk full")
        if (known := self.known.take(batch.sequence)) is not None:
            self.known = known
            self.counted.append(batch.sequence)

    def log(self, event: str, *, reason: str) -> None:
        """Remember what is told."""
        self.told.append(event)
        self.reasons.append(reason)
        self._news.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what a batch or an event brings."""
        async with asyncio.timeout(20):
            while not holds():
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def reading(servers: Servers, counter: Counter) -> AsyncIterator[None]:
    """With the reader at work."""
    reader = LeftUsage(servers.settings, counter.take, log=counter.log)
    task = asyncio.get_running_loop().create_task(reader.run())
    yield
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come faster."""
    monkeypatch.setattr(usage, "LOOK", 0.05)


async def emptied(servers: Servers) -> None:
    """Wait until nothing waits any more."""
    async with asyncio.timeout(20), servers.client() as client:
        while await client.xlen(STREAM):  # noqa: ASYNC110 - a stream that gets shorter tells nobody
            await asyncio.sleep(0.02)


async def test_what_was_left_is_counted_once(fleet: Fleet, servers: Servers) -> None:
    """What waited from before the start, what comes later, what came directly as well; in any order."""
    edge = await fleet.edge(follow=False)
    fleet.control.gone = True
    for number in (5, 6, 6, 7):
        await edge.port.report(UsageBatch("edge-1", number, ()))
    counter = Counter()
    counter.take(UsageBatch("edge-1", 8, ()))
    counter.take(UsageBatch("edge-1", 7, ()))
    async with reading(servers, counter):
        await counter.until(lambda: 6 in counter.counted)
        await edge.port.report(UsageBatch("edge-1", 9, ()))
        await counter.until(lambda: 9 in counter.counted)
        await emptied(servers)
    assert counter.counted == [8, 7, 5, 6, 9]


@only_single
async def test_what_cannot_be_taken_stays(fleet: Fleet, servers: Servers) -> None:
    """A batch that the counter refuses is tried again until it is taken, and the trouble is told once."""
    edge = await fleet.edge(follow=False)
    fleet.control.gone = True
    await edge.port.report(UsageBatch("edge-1", 5, ()))
    counter = Counter()
    counter.failures = 3
    async with reading(servers, counter):
        await counter.until(lambda: counter.counted == [5])
        await emptied(servers)
    assert counter.told == ["usage_not_taken"]


@only_single
async def test_what_cannot_be_read_goes(fleet: Fleet, servers: Servers) -> None:
    """A batch of nonsense is deleted and told of, so that it is not in the way of the others."""
    async with servers.client() as client:
        for fields in ({"x": "y"}, {"u": b"\xff"}, {"u": "{}"}):
            await client.xadd(STREAM, fields)
    edge = await fleet.edge(follow=False)
    fleet.control.gone = True
    await edge.port.report(UsageBatch("edge-1", 5, ()))
    counter = Counter()
    async with reading(servers, counter):
        await counter.until(lambda: counter.counted == [5])
        await emptied(servers)
    assert counter.told == ["usage_unreadable"], "one line a look"


@only_single
async def test_redis_may_come_later(servers: Servers, fleet: Fleet) -> None:
    """The reader waits for a Redis that is not there yet, and takes what waits then."""
    servers.kill()
    counter = Counter()
    async with reading(servers, counter):
        await servers.start()
        edge = await fleet.edge(follow=False)
        fleet.control.gone = True
        await edge.port.report(UsageBatch("edge-1", 5, ()))
        await counter.until(lambda: counter.counted == [5])


@only_single
async def test_when_too_much_waits_the_edge_keeps_it(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that waits is trimmed away; the edge merges what it keeps."""
    monkeypatch.setattr(port_module, "KEPT_BATCHES", 2)
    edge = await fleet.edge(follow=False)
    fleet.control.gone = True
    for number in (1, 2):
        await edge.port.report(UsageBatch("edge-1", number, ()))
    with pytest.raises(Unavailable):
        await edge.port.report(UsageBatch("edge-1", 3, ()))


@only_single
async def test_a_batch_too_long_is_not_fetched(
    fleet: Fleet, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor left: it would be in the way of the others for as long as it takes longer than a command may."""
    monkeypatch.setattr(usage, "MAX_BATCH", 1000)
    monkeypatch.setattr(port_module, "MAX_BATCH", 1000)
    batches = [UsageBatch("edge-1", n, (Usage("sb_a", "x" * n, requests=1),)) for n in (700, 1)]
    async with servers.client() as client:
        for batch in batches:
            await client.xadd(STREAM, {"u": wire.usage_to_json(batch) + b" " * batch.sequence})
    counter = Counter()
    async with reading(servers, counter):
        await counter.until(lambda: counter.counted == [1])
        await emptied(servers)
    assert counter.told == ["usage_unreadable"]
    edge = await fleet.edge(follow=False)
    fleet.control.gone = True
    await edge.port.report(batches[1])
    with pytest.raises(Unavailable):
        await edge.port.report(UsageBatch("edge-1", 2, (Usage("sb_a", "x" * 1000),)))


@only_single
@pytest.mark.parametrize("kind", ["string", "list", "zset"])
async def test_another_type_of_key_is_told_once(fleet: Fleet, servers: Servers, kind: str) -> None:
    """What is wrong, where, and what to do; once that is done, all goes on."""
    edge = await fleet.edge(follow=False)
    fleet.control.gone = True
    await fleet.stop()  # whose looks would be counted as well
    counter = Counter()
    async with servers.client() as client:
        match kind:
            case "string":
                await client.set(STREAM, "x")
            case "list":
                await client.lpush(STREAM, "x")
            case _:
                await client.zadd(STREAM, {"x": 1})
        with pytest.raises(Unavailable):
            await edge.port.report(UsageBatch("edge-1", 5, ()))
        async with reading(servers, counter):
            await counter.until(lambda: bool(counter.told))
            before = (await client.info("commandstats"))["cmdstat_type"]["calls"]
            async with asyncio.timeout(20):
                while (await client.info("commandstats"))["cmdstat_type"]["calls"] < before + 3:  # noqa: ASYNC110 - a look has no event
                    await asyncio.sleep(0.02)
            await client.delete(STREAM)
            await edge.port.report(UsageBatch("edge-1", 5, ()))
            await counter.until(lambda: counter.counted == [5])
    assert counter.told == ["usage_unreadable"]
    assert counter.reasons == [f"{STREAM} is a {kind} and should be a stream: delete it"]


@only_single
async def test_a_redis_that_refuses_just_this_is_told(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rights that are missing, say: nobody else would notice. Once, and not at once: it may be gone as a whole."""
    monkeypatch.setattr(usage, "LAST_LOOK", 0.2)
    counter = Counter()
    async with servers.client() as client:
        await client.execute_command("ACL", "SETUSER", "default", "-xrange")
        try:
            await client.xadd(STREAM, {"u": wire.usage_to_json(UsageBatch("edge-1", 5, ()))})
            async with reading(servers, counter):
                await counter.until(lambda: bool(counter.told))
                await client.execute_command("ACL", "SETUSER", "default", "+xrange")
                await counter.until(lambda: counter.counted == [5])
        finally:
            await client.execute_command("ACL", "SETUSER", "default", "+xrange")
    assert counter.told == ["usage_not_taken"]
