"""Following the changes: nothing is missed without a doubt, and only a prompt heartbeat proves anything."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace
from typing import Self

import pytest

from edge.core.records import SandboxRecord, State
from edge.core.redis_settings import RedisSettings
from edge.state import wire
from edge.state.port import Change, Heartbeat, Resync, Unavailable, WatchEvent
from edge.state.redis import changes as module
from edge.state.redis import scripts
from edge.state.redis.changes import Changes, Shard
from edge.state.redis.connect import Connection, RedisGone
from edge.state.redis.layout import SHARDS, Layout, shard_of
from tests.state.redis.valkey import Valkey

BOX = SandboxRecord("sb_aaaaaaaa", State.RUNNING, 1, 1)
LAYOUT = Layout("edge")
STREAM = LAYOUT.changes(shard_of(BOX.id))
SERVER = {LAYOUT.changes(number): LAYOUT.server(number) for number in range(SHARDS)}
STREAMS = [LAYOUT.changes(number) for number in range(SHARDS)]


class Following:
    """One round of following, step by step, with a clock that a test can move."""

    def __init__(self, valkey: Valkey) -> None:
        self.ahead = 0.0
        settings = RedisSettings(url=valkey.url)
        self.connection = Connection(settings)
        self.changes = Changes(self.connection, LAYOUT, clock=lambda: time.monotonic() + self.ahead)
        self.client = valkey.client()
        self._events = self.changes.follow(again=True)
        self._begun: dict[str, bytes] = {}

    async def __aenter__(self) -> Self:
        first = asyncio.ensure_future(self.next())
        await self.asked()
        await self.beat()
        assert isinstance(await first, Resync)
        assert isinstance(await self.next(), Heartbeat)
        return self

    async def asked(self) -> None:
        """Until a question waits at the server for news."""
        async with asyncio.timeout(20):
            while (await self.client.info("clients"))["blocked_clients"] == 0:  # noqa: ASYNC110
                await asyncio.sleep(0.005)

    async def __aexit__(self, *_: object) -> None:
        await self._events.aclose()
        await self.connection.close()
        await self.client.aclose()

    async def next(self) -> WatchEvent:
        """The next event."""
        async with asyncio.timeout(20):
            return await anext(self._events)

    async def until(self, kind: type[WatchEvent]) -> list[WatchEvent]:
        """Events up to one of this kind, heartbeats being sent all the while."""
        found = []
        while not (found and isinstance(found[-1], kind)):
            found.append(await self.next())
        return found

    async def beat(self, *streams: str) -> None:
        """A heartbeat of every shard, or of these."""
        pipeline = self.client.pipeline(transaction=True)
        for stream in streams or STREAMS:
            pipeline.eval(scripts.BEAT, 2, stream, SERVER[stream], 1000, *await self.known(stream))
        await pipeline.execute()

    async def known(self, stream: str) -> list[bytes]:
        """Epoch and number of the newest entry; the stream is begun if it is not there, or was by somebody else."""
        before = self._begun.get(stream, b"0-0").split(b"-")
        entry_id = await self.client.eval(scripts.BEGIN, 2, stream, SERVER[stream], *before)
        self._begun[stream] = entry_id
        return entry_id.split(b"-")

    async def publish(self, record: SandboxRecord) -> bytes:
        """A change, as the publisher makes it."""
        stream = LAYOUT.changes(shard_of(record.id))
        return await self.client.eval(
            scripts.PUBLISH, 2, LAYOUT.record("sandbox", record.id), stream,
            "sandbox", record.version, wire.sandbox_to_json(record), 0, 1000, *await self.known(stream),
        )  # fmt: skip


async def test_changes_come_in_order_and_then_a_heartbeat(valkey: Valkey) -> None:
    """And the heartbeat stands where the changes have led."""
    async with Following(valkey) as following:
        reading = asyncio.ensure_future(following.until(Heartbeat))
        await asyncio.sleep(0)
        versions = [replace(BOX, version=n) for n in range(2, 5)]
        for record in versions:
            await following.publish(record)
        await following.beat()
        events = await reading
        assert [event.record for event in events if isinstance(event, Change)] == versions
        assert not any(isinstance(event, Resync) for event in events)
        assert events[-1].cursor == events[-2].cursor
        assert following.changes.beaten_at is not None


async def test_it_takes_a_heartbeat_of_every_shard(valkey: Valkey) -> None:
    """One shard's silence is no proof of anything, whatever the others say."""
    async with Following(valkey) as following:
        reading = asyncio.ensure_future(following.next())
        before = following.changes.beaten_at
        await asyncio.sleep(0)
        for _ in range(3):
            await following.beat(*STREAMS[1:])
        done, _ = await asyncio.wait([reading], timeout=0.2)
        assert not done and following.changes.beaten_at == before
        await following.beat(STREAMS[0])
        assert isinstance(await reading, Heartbeat)


@pytest.mark.parametrize("how", ["trimmed", "begun anew", "nonsense"])
async def test_a_gap_is_a_doubt(valkey: Valkey, how: str) -> None:
    """Entries that were never seen, a stream that was flushed, an entry that cannot be read."""
    async with Following(valkey) as following:
        pipeline = following.client.pipeline(transaction=True)
        match how:
            case "trimmed":
                pipeline.xadd(STREAM, {"b": ""}, id=await _next(following))
                pipeline.xtrim(STREAM, maxlen=0, approximate=False)
                pipeline.xadd(STREAM, {"b": ""}, id=await _next(following, 2))
            case "begun anew":
                pipeline.delete(STREAM)
                pipeline.eval(scripts.BEGIN, 2, STREAM, SERVER[STREAM], 0, 0)
            case _:
                pipeline.xadd(STREAM, {"k": "sandbox", "r": "{}"}, id=await _next(following))
        reading = asyncio.ensure_future(following.until(Resync))
        await asyncio.sleep(0)
        await pipeline.execute()
        done, _ = await asyncio.wait([reading], timeout=0.1)
        assert not done, "it can wait for the next proof, and the questions it raises can wait"
        await following.beat()
        events = await reading
        assert not any(isinstance(event, Heartbeat) for event in events)
        assert isinstance(await following.next(), Heartbeat)


async def _next(following: Following, after: int = 1) -> str:
    """The id an entry would get."""
    epoch, number = (await following.connection.last(STREAM)).split(b"-")
    return f"{int(epoch)}-{int(number) + after}"


async def test_a_doubt_ends_with_a_heartbeat_of_every_shard(valkey: Valkey) -> None:
    """Those from before it count no more: until then no server is known to have everything."""
    async with Following(valkey) as following:
        reading = asyncio.ensure_future(following.until(Heartbeat))
        await following.beat()
        await reading
        last = await following.connection.last(STREAM)
        assert following.changes.beaten_at is not None and following.changes.reached(STREAM, last)
        await following.beat(*STREAMS[1:])
        reading = asyncio.ensure_future(following.next())
        await following.client.delete(STREAM)
        await following.known(STREAM)
        async with asyncio.timeout(20):
            while following.changes.beaten_at is not None:  # noqa: ASYNC110 - a doubt is silent
                await asyncio.sleep(0.005)
        assert not following.changes.reached(STREAM, last)
        await following.beat(*STREAMS[1:])
        done, _ = await asyncio.wait([reading], timeout=0.2)
        assert not done and following.changes.beaten_at is None
        await following.beat()
        assert isinstance(await reading, Resync)
        assert isinstance(await following.next(), Heartbeat)


@pytest.mark.parametrize(
    ("newest", "reached"),
    [(b"7-4", True), (b"7-10", True), (b"7-3", False), (b"8-9", False)],
)  # fmt: skip
def test_another_server_has_to_have_it_all(newest: bytes, reached: bool) -> None:
    """Its newest entry has to be of the same epoch, and as far as we are at least."""
    assert Shard(b"7-4").within(newest) is reached


async def test_an_old_answer_proves_nothing(
    valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process was stopped between question and answer: the heartbeat in it is of before."""
    monkeypatch.setattr(module, "BLOCK", 20.0)
    monkeypatch.setattr(module, "PROMPT", 20.0)
    async with Following(valkey) as following:
        reading = asyncio.ensure_future(following.next())
        before = following.changes.beaten_at
        await following.asked()
        following.ahead += module.PROMPT
        await following.beat()
        done, _ = await asyncio.wait([reading], timeout=0.3)
        assert not done and following.changes.beaten_at == before
        await following.beat()
        assert isinstance(await reading, Heartbeat)


async def test_silence_ends_it(valkey: Valkey, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connected, and nothing comes: the streams are looked at anew, from another connection perhaps."""
    monkeypatch.setattr(module, "SILENCE", 0.3)
    async with Following(valkey) as following:
        with pytest.raises(Unavailable, match="no heartbeat"):
            await following.next()
        assert following.changes.beaten_at is None


async def test_it_starts_at_the_end(valkey: Valkey) -> None:
    """What was there before is looked up where it is asked for."""
    async with valkey.client() as client:
        await client.xadd(STREAM, {"k": "sandbox", "r": wire.sandbox_to_json(BOX)}, id="5-0")
    connection = Connection(RedisSettings(url=valkey.url))
    changes = Changes(connection, LAYOUT, clock=time.monotonic)
    async with aclosing(changes.follow(again=False)) as events:
        reading = asyncio.ensure_future(anext(events))
        async with valkey.client() as client:
            done, _ = await asyncio.wait([reading], timeout=0.1)
            assert not done
            newer = replace(BOX, version=2)
            await client.xadd(STREAM, {"k": "sandbox", "r": wire.sandbox_to_json(newer)}, id="5-1")
        assert (await reading).record == newer
    await connection.close()


@pytest.mark.parametrize(
    ("before", "entry", "next_one"),
    [
        (b"7-3", b"7-4", True), (b"7-3", b"7-5", False), (b"7-3", b"8-0", False), (b"7-3", b"8-4", False),
        (b"0-0", b"7-0", False), (b"7-9", b"7-10", True),
    ],
)  # fmt: skip
def test_the_next_number_is_the_next_entry(before: bytes, entry: bytes, next_one: bool) -> None:
    """Within the same epoch."""
    shard = Shard(before)
    assert shard.step(entry) is next_one
    assert shard.position == entry


@pytest.mark.parametrize("nonsense", [b"7-", b"x", b"8-%d" % (2**64 - 1)])
def test_an_id_that_no_publisher_makes_is_no_place(nonsense: bytes) -> None:
    """Not to begin at, not to go on to, and not another server's."""
    shard = Shard(b"7-4")
    for use in (Shard, shard.step, shard.within):
        with pytest.raises(RedisGone):
            use(nonsense)
    assert shard.position == b"7-4"
