"""A replica takes over that has not heard the latest: everybody finds it, and nobody believes what it says too early."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from redis.crc import key_slot

from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State, Transport
from edge.state import wire
from edge.state.port import Heartbeat, Resync
from edge.state.redis.layout import Layout, shard_of
from tests.state.redis.conftest import Edge, Fleet, Pace, hasty
from tests.state.redis.sets import ClusterSet, SentinelSet, Set

LAYOUT = Layout("edge")
BOX = SandboxRecord("sb_aaaaaaaa", State.RUNNING, 1, 1)


def _of_the_first(number: int) -> bool:
    """Whether a Cluster's first node, the one that dies, has this grant."""
    return key_slot(LAYOUT.changes(shard_of(f"pvg_{number}")).encode()) <= 5460


GRANT = GrantRecord(
    f"pvg_{next(filter(_of_the_first, range(100)))}",
    BOX.id, 80, frozenset(Transport), GrantStatus.ACTIVE, time.time() + 900, 1,
)  # fmt: skip
REVOKED = replace(GRANT, version=2, status=GrantStatus.REVOKED)
KEY = LAYOUT.record("grant", GRANT.id)

pytestmark = hasty


@pytest.fixture(params=[SentinelSet, ClusterSet])
async def servers(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Set]:
    """A set of the test's own, since it will not be the same afterwards."""
    async with request.param(tmp_path) as made:
        yield made


@pytest.fixture
async def fleet(servers: Set, pace: Pace) -> AsyncIterator[Fleet]:
    """A fleet that publishes a sandbox and a grant."""
    async with AsyncExitStack() as stack:
        made = Fleet(servers.settings, stack, pace)
        made.put(BOX)
        made.put(GRANT)
        made.start()
        yield made


async def heartbeat(edge: Edge) -> None:
    """Wait for two new ones: what was published before has arrived."""
    for _ in range(2):
        seen = len(edge.events)
        await edge.until(lambda seen=seen: Heartbeat in map(type, edge.events[seen:]))


@asynccontextmanager
async def asking(edge: Edge) -> AsyncIterator[list[GrantRecord | None]]:
    """What an edge that remembers nothing is told of the grant, again and again."""
    told: list[GrantRecord | None] = []

    async def ask() -> None:
        while True:
            told.append(await edge.port.grant(GRANT.id))
            await asyncio.sleep(0.002)

    task = asyncio.get_running_loop().create_task(ask())
    yield told
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled() and told


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_revocation_that_was_lost_stays_one(fleet: Fleet, servers: Set, how: str) -> None:
    """Publisher and edges find the new primary by themselves; the grant it believes in is never served."""
    edge = await fleet.edge()
    await heartbeat(edge)
    await servers.synced()
    await servers.cut()
    fleet.put(REVOKED)
    await edge.until(lambda: REVOKED in edge.changes())
    seen = len(edge.events)
    async with asking(edge) as told:
        if how == "killed":
            await servers.fail_over()
        else:
            servers.primary.freeze()
            servers.replica.thaw()
            await servers.taken_over()
        await edge.until(lambda: Resync in map(type, edge.events[seen:]), 30)
        await heartbeat(edge)
        newcomer = await fleet.edge("edge-2")
    assert set(told) == {REVOKED}
    for one in (edge, newcomer):
        await fleet.believed(one, REVOKED)
        await fleet.believed(one, BOX)
    async with servers.replica.client() as client:
        assert await client.hget(KEY, "r") == wire.grant_to_json(REVOKED)


async def test_until_it_was_put_right_nothing_is_believed(fleet: Fleet, servers: Set) -> None:
    """The publisher sleeps through a failover and goes on as if nothing had been: the comparison tells it."""
    edge = await fleet.edge()
    await heartbeat(edge)
    await servers.synced()
    await servers.cut()
    fleet.put(REVOKED)
    await edge.until(lambda: REVOKED in edge.changes())
    await fleet.stop()
    await servers.fail_over()
    async with servers.replica.client() as client:
        assert await client.hget(KEY, "v") == b"1"
    seen = len(edge.events)
    async with asking(edge) as told:
        fleet.start()
        await edge.until(lambda: Resync in map(type, edge.events[seen:]), 30)
        await heartbeat(edge)
    await fleet.believed(edge, REVOKED)
    assert set(told) == {REVOKED}
