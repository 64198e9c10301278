"""The control plane's side: everything gets there, in versions' order, and again after every kind of loss."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State, Transport
from edge.state.port import Heartbeat, Resync
from edge.state.redis import publisher
from edge.state.redis.connect import RedisGone
from edge.state.redis.ids import EntryId
from edge.state.redis.layout import Layout
from edge.state.redis.publisher import AFTERLIFE, REMEMBERED, TOMBSTONE, _Shard
from tests.state.redis.conftest import Edge, Fleet, Servers, hasty, only_single

LAYOUT = Layout("edge")
BOX = SandboxRecord("sb_aaaaaaaa", State.RUNNING, 1, 1)
GRANT = GrantRecord(
    "pvg_1", BOX.id, 80, frozenset(Transport), GrantStatus.ACTIVE, time.time() + 900, 1
)


async def caught_up(edge: Edge) -> None:
    """Wait for two more heartbeats: what was published before them has been told."""
    for _ in range(2):
        seen = len(edge.events)
        await edge.until(lambda seen=seen: Heartbeat in map(type, edge.events[seen:]))


async def test_what_there_is_and_what_comes(fleet: Fleet) -> None:
    """Records from before the start, and every later version; of those that wait, the newest."""
    fleet.control.records[BOX.id] = BOX
    edge = await fleet.edge()
    fleet.put(GRANT)
    for version in range(2, 10):
        fleet.put(replace(BOX, version=version))
    await caught_up(edge)
    assert GRANT in edge.changes()
    versions = [record.version for record in edge.changes() if record.id == BOX.id]
    assert versions == sorted(versions) and versions[-1] == 9
    assert await edge.port.grant(GRANT.id) == GRANT
    assert fleet.control.asked == []


@only_single
async def test_changes_wait_for_no_heartbeat(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come although the next one is an hour away."""
    edge = await fleet.edge()
    monkeypatch.setattr(publisher, "BEAT", 3600.0)
    for version in range(2, 12):
        fleet.put(newer := replace(BOX, version=version))
        await edge.until(lambda newer=newer: newer in edge.changes())
        while fleet.publisher._pending:  # noqa: ASYNC110 - so that it has nothing to do when the next one comes
            await asyncio.sleep(0)


@only_single
async def test_lifetimes(fleet: Fleet, servers: Servers) -> None:
    """Tombstones and ended grants do not stay for ever; sandboxes do."""
    edge = await fleet.edge()
    fleet.put(BOX)
    fleet.put(GRANT)
    fleet.put(replace(BOX, id="sb_gone0000", state=State.DESTROYED))
    await caught_up(edge)
    async with servers.client() as client:
        assert await client.pttl(LAYOUT.record("sandbox", BOX.id)) == -1
        left = await client.pttl(LAYOUT.record("grant", GRANT.id))
        assert AFTERLIFE * 1000 < left <= (AFTERLIFE + 900) * 1000
        assert 0 < await client.pttl(LAYOUT.record("sandbox", "sb_gone0000")) <= TOMBSTONE * 1000


@only_single
@pytest.mark.parametrize("ends", [1e15, 1e300, 0.0, -1e300])
async def test_an_end_beyond_all_measure(fleet: Fleet, servers: Servers, ends: float) -> None:
    """Redis would refuse such a lifetime, and what waits behind it would never be published."""
    edge = await fleet.edge()
    fleet.put(odd := replace(GRANT, expires_at=ends))
    await edge.until(lambda: odd in edge.changes())
    assert fleet.told == []


@pytest.mark.parametrize("loss", ["flushed", "restarted", "streams deleted", "rolled back"])
async def test_after_a_loss_everything_is_published_again(
    fleet: Fleet, servers: Servers, loss: str
) -> None:
    """And every edge doubts what it knew before it believes again."""
    fleet.put(BOX)
    edge = await fleet.edge()
    await caught_up(edge)
    seen = len(edge.events)
    key = LAYOUT.record("sandbox", BOX.id)
    match loss:
        case "flushed":
            async with servers.client() as client:
                await client.flushall()
        case "restarted":
            servers.kill()
            await servers.start()
        case "streams deleted":
            async with servers.client() as client:
                for one in (key, *(LAYOUT.changes(n) for n in range(16))):
                    await client.delete(one)
        case "rolled back":
            # As by a replica that had not heard the latest, which nobody's connection told of.
            async with servers.client() as client:
                for number in range(16):
                    stream = LAYOUT.changes(number)
                    [(last, _)] = await client.xrevrange(stream, count=1)
                    epoch = last.split(b"-")[0].decode()
                    await client.delete(stream)
                    await client.xadd(stream, {"b": ""}, id=f"{epoch}-0")
                await client.hset(key, mapping={"v": 0, "r": "old"})
    await edge.until(lambda: Resync in map(type, edge.events[seen:]))
    resync = next(
        n for n, event in enumerate(edge.events) if n >= seen and isinstance(event, Resync)
    )
    await edge.until(lambda: Heartbeat in map(type, edge.events[resync:]))
    await caught_up(edge)
    assert await edge.port.sandbox(BOX.id) == BOX
    assert fleet.control.asked == []


async def test_what_the_control_plane_has_forgotten_is_not_believed(fleet: Fleet) -> None:
    """A record that Redis still has of an earlier control plane: the new one is asked, and knows nothing of it."""
    fleet.put(BOX)
    edge = await fleet.edge()
    await caught_up(edge)
    assert await edge.port.sandbox(BOX.id) == BOX
    await fleet.stop()
    fleet.control.records.clear()
    seen = len(edge.events)
    fleet.renew()
    fleet.start()
    await edge.until(lambda: Resync in map(type, edge.events[seen:]))
    fleet.control.asked.clear()
    assert await edge.port.sandbox(BOX.id) is None
    assert fleet.control.asked == [BOX.id]


@pytest.mark.parametrize("loss", ["flushed", "killed"])
async def test_edges_are_not_forgotten_with_their_names_in_redis(
    fleet: Fleet, servers: Servers, loss: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was a member a moment ago is still asked before a pause; who stays away is not for ever."""
    edge = await fleet.edge("edge-7")
    await caught_up(edge)
    assert fleet.publisher.members == {"edge-7"}
    await edge.close()
    if loss == "flushed":
        async with servers.client() as client:
            await client.flushall()
            async with asyncio.timeout(20):
                while not await client.exists(LAYOUT.changes(0)):  # noqa: ASYNC110 - its heartbeat
                    await asyncio.sleep(0.01)
    else:
        servers.kill()
    assert fleet.publisher.members == {"edge-7"}
    now = asyncio.get_running_loop().time()
    monkeypatch.setattr(fleet.publisher, "_clock", lambda: now + REMEMBERED + 1)
    assert fleet.publisher.members == set()


@hasty
async def test_a_server_that_hangs_is_waited_for(fleet: Fleet, servers: Servers) -> None:
    """Nothing published meanwhile is lost, and it is told once, not with every attempt."""
    edge = await fleet.edge()
    attempts = asyncio.Semaphore(0)
    begin = fleet.publisher._begin

    async def counted() -> None:
        attempts.release()
        await begin()

    fleet.publisher._begin = counted  # type: ignore[method-assign]
    servers.freeze()
    fleet.put(newer := replace(BOX, version=7))
    for _ in range(3):
        await asyncio.wait_for(attempts.acquire(), 20)
    servers.thaw()
    await edge.until(lambda: newer in edge.changes() or edge.failures > 0)
    await fleet.believed(edge, newer)
    await edge.until(lambda: "redis_back" in fleet.told)
    assert "redis_gone redis_gone" not in " ".join(fleet.told)


@only_single
@hasty
async def test_a_full_server(fleet: Fleet, servers: Servers) -> None:
    """What it does not take is not told; with room again, all is well."""
    edge = await fleet.edge()
    async with servers.client() as client:
        await client.config_set("maxmemory", "1")
        fleet.put(newer := replace(BOX, version=7))
        await edge.until(lambda: edge.failures > 0)
        assert await edge.port.sandbox(BOX.id) == newer
        assert BOX.id in fleet.control.asked
        await client.config_set("maxmemory", "0")
    await fleet.believed(edge, newer)


def test_what_is_known_of_a_stream() -> None:
    """Its newest entry, in whatever order answers come; an id of another epoch is nonsense."""
    shard = _Shard()
    assert shard.begins(EntryId(7, 3))
    shard.moves(b"7-9")
    shard.moves(b"7-5")
    assert shard.newest == (7, 9)
    with pytest.raises(RedisGone):
        shard.moves(b"8-0")
    assert not shard.begins(EntryId(7, 20))
    assert shard.begins(EntryId(8, 0))
