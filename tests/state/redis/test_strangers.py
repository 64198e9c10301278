"""What somebody else writes into Redis holds up nothing for long, and stops nobody."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from edge.core.records import SandboxRecord, State
from edge.state.port import Heartbeat, Resync
from edge.state.redis.ids import MOST
from edge.state.redis.kinds import SANDBOX
from edge.state.redis.layout import SHARDS, Layout, shard_of
from tests.state.redis.conftest import Edge, Fleet, Servers, hasty, only_single

LAYOUT = Layout("edge")
BOX = SandboxRecord("sb_aaaaaaaa", State.PAUSED, 1, 1, auto_resume=True)
RECORD = LAYOUT.record("sandbox", BOX.id)


async def begun_anew(fleet: Fleet, edge: Edge) -> None:
    """Another process publishes from now on, and the edge has caught up with it."""
    await fleet.stop()
    seen = len(edge.events)
    fleet.renew()
    fleet.start()
    await edge.until(lambda: Resync in map(type, edge.events[seen:]))
    await edge.until(lambda: isinstance(edge.latest, Heartbeat))


@only_single
@pytest.mark.parametrize("value", ["failed:x", "failed:not_found", "done", "0123456789abcdef"])
async def test_a_lease_for_ever_holds_up_no_wake(
    fleet: Fleet, servers: Servers, value: str
) -> None:
    """Neither is its failure believed, nor is anybody waited for: one call, at once."""
    fleet.put(BOX)
    # So long that nobody takes over from a holder who falls silent.
    fleet.settings = fleet.settings.model_copy(update={"lease": 600.0})
    edge = await fleet.edge()
    async with servers.client() as client:
        await client.set(LAYOUT.lease(BOX.id, 1), value)
    assert (await edge.port.resume(BOX.id, 1, "preview", 60)).incarnation == 2
    assert fleet.control.resumed == [BOX.id]


@only_single
@pytest.mark.parametrize("version", ["9000000000000000", "9" * 40])
async def test_a_version_that_nobody_has_said_hides_no_change(
    fleet: Fleet, servers: Servers, version: str
) -> None:
    """Edges hear of each, and ask the control plane for the record; once it begins anew, Redis has it again."""
    edge = await fleet.edge()
    fleet.put(BOX)
    await edge.until(lambda: BOX in edge.changes())
    async with servers.client() as client:
        await client.hset(RECORD, "v", version)
    for number in (2, 3):
        fleet.put(newer := replace(BOX, version=number))
        await edge.until(lambda newer=newer: newer in edge.changes())
        assert await edge.port.sandbox(BOX.id) == newer
    assert fleet.control.asked == [BOX.id] * 2
    await begun_anew(fleet, edge)
    fleet.control.asked.clear()
    assert await edge.port.sandbox(BOX.id) == newer
    assert fleet.control.asked == []


@only_single
@pytest.mark.parametrize("version", [1, 2, 7])
async def test_a_forged_record_does_not_outlive_the_next_beginning(
    fleet: Fleet, servers: Servers, version: int
) -> None:
    """Of the version that is true, or a lower or higher one: for those who have not read it, it is gone."""
    edge = await fleet.edge()
    fleet.put(true := replace(BOX, version=2))
    await edge.until(lambda: true in edge.changes())
    async with servers.client() as client:
        forged = replace(BOX, version=version, previews_disabled=True)
        await client.hset(RECORD, mapping={"v": version, "r": SANDBOX.to_json(forged)})
    assert await edge.port.sandbox(BOX.id) == forged
    await begun_anew(fleet, edge)
    assert await edge.port.sandbox(BOX.id) == true
    assert fleet.control.asked == []


@only_single
async def test_older_news_does_not_come_before_what_there_is(fleet: Fleet) -> None:
    """A change that waits while another publisher has told a later one: what counts is what there is."""
    edge = await fleet.edge()
    fleet.put(newer := replace(BOX, version=3))
    await edge.until(lambda: newer in edge.changes())
    await fleet.stop()
    seen = len(edge.events)
    fleet.renew()
    fleet.publisher.publish(replace(BOX, version=2))
    fleet.publisher.publish(replace(BOX, version=1))
    fleet.start()
    await edge.until(lambda: Resync in map(type, edge.events[seen:]))
    await edge.until(lambda: isinstance(edge.latest, Heartbeat))
    assert await edge.port.sandbox(BOX.id) == newer
    assert edge.changes() == [newer]
    assert fleet.control.asked == []


class Vandal:
    """Writes anything anywhere, but for what only a control plane would say."""

    def __init__(self, client: Redis, rng: random.Random) -> None:
        self._client = client
        self._rng = rng
        shard = shard_of(BOX.id)
        self._keys = [
            RECORD, LAYOUT.changes(shard), LAYOUT.changes((shard + 1) % SHARDS), LAYOUT.server(shard),
            LAYOUT.lease(BOX.id, 1), LAYOUT.members,
        ]  # fmt: skip

    def _text(self) -> str:
        numbers = ("0", "7", "9e15", "9" * 40, f"{MOST - 1}", "-1", "inf")
        return self._rng.choice((*numbers, "", "x", "done", "failed:x", "[" * 5000, "x" * 10**6))

    def _id(self, newest: bytes) -> str:
        epoch, _, number = newest.decode().partition("-")
        nearby = (f"{epoch}-{int(number) + 1}", f"{epoch}-{int(number) + 9}", f"{int(epoch) + 1}-0")
        far = (f"{MOST - 2}-{MOST - 1}", f"{MOST}-0", f"{epoch}-{2**64 - 1}", f"{2**64 - 1}-0")
        return self._rng.choice((*nearby, *far))

    async def strike(self) -> None:
        """Once."""
        rng, client, key = self._rng, self._client, self._rng.choice(self._keys)
        kind = rng.randrange(8)
        if kind < 4:
            await client.delete(key)
        try:
            match kind:
                case 0:
                    await client.set(key, self._text())
                case 1:
                    await client.lpush(key, self._text())
                case 2:
                    await client.hset(key, mapping={name: self._text() for name in "vre"})
                case 3:
                    await client.zadd(key, {self._text(): rng.choice([1.0, 9e15, float("inf")])})
                case 4:
                    await client.pexpire(key, rng.choice([1, 10**9]))
                case 5:
                    await client.hset(key, rng.choice(["v", "r", "e"]), self._text())
                case 6:
                    newest = await client.xrevrange(key, count=1)
                    at = self._id(newest[0][0] if newest else b"0-0")
                    field = rng.choice(["b", "k", "r", "u"])
                    await client.xadd(key, {field: self._text()}, id=at)
                case _:
                    await client.xtrim(key, maxlen=0, approximate=False)
        except ResponseError:
            pass  # another type of key, or no later id


@only_single
@hasty
@pytest.mark.parametrize("seed", range(3))
async def test_after_any_nonsense_all_is_well(fleet: Fleet, servers: Servers, seed: int) -> None:
    """Whoever wrote it, wherever: it ends with the writing, and nobody has to start anything anew."""
    rng = random.Random(seed)
    edge = await fleet.edge()
    async with servers.client() as client:
        vandal = Vandal(client, rng)
        for version in range(1, 40):
            for _ in range(rng.randrange(4)):
                await vandal.strike()
            fleet.put(replace(BOX, version=version))
            await asyncio.sleep(rng.choice([0.0, 0.0, 0.01, 0.1]))
    fleet.put(newest := replace(BOX, version=100))
    for _ in range(2):  # What was published before the second one has been told, or is in doubt.
        seen = len(edge.events)
        await edge.until(lambda seen=seen: Heartbeat in map(type, edge.events[seen:]), 60)
    assert await edge.port.sandbox(BOX.id) == newest
    await edge.until(lambda: fleet.publisher.members >= {"edge-1"}, 60)
    assert (await edge.port.resume(BOX.id, 1, "preview", 60)).incarnation == 2
