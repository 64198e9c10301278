"""The lease seen from one edge: whose turn it is, kept while the work goes on, and no condition of it."""

from __future__ import annotations

import asyncio

import pytest

from edge.core.redis_settings import RedisSettings
from edge.state.port import RefusalReason
from edge.state.redis import lease
from edge.state.redis.connect import Connection
from edge.state.redis.lease import DONE, FAILED, Lease, Turn
from tests.state.redis.valkey import Valkey

KEY = "lease"


@pytest.fixture
async def connection(valkey: Valkey):
    """A connection to the server."""
    made = Connection(RedisSettings(url=valkey.url))
    yield made
    await made.close()


async def test_whose_turn_it_is(connection: Connection) -> None:
    """The first one's, until it leaves; then by what it left."""
    one, two = (Lease(connection, KEY, 60) for _ in range(2))
    assert await one.take() is Turn.OURS
    assert await two.take() is Turn.THEIRS
    assert await one.take() is Turn.OURS
    await one.leave()
    assert await two.take() is Turn.OURS
    await two.leave(DONE)
    assert await one.take() is Turn.OVER


@pytest.mark.parametrize("reason", RefusalReason)
async def test_a_failure_is_told(connection: Connection, reason: RefusalReason) -> None:
    """Whoever asks for the lease next gets the reason, for each reason there is."""
    one, two = (Lease(connection, KEY, 60) for _ in range(2))
    await one.take()
    await one.leave(FAILED + reason)
    assert await two.take() is reason


@pytest.mark.parametrize(
    "nonsense",
    [
        "OK",
        "",
        b"\xff\xfe",
        "x" * 100,
        "0123456789abcdeg",
        "fail",
        "failed:",
        "failed:no such word",
    ],
)
async def test_nonsense_is_nobodys(connection: Connection, valkey: Valkey, nonsense: str) -> None:
    """A holder that cannot be one keeps nobody waiting, nor does a failure for reasons that nobody knows."""
    async with valkey.client() as client:
        await client.set(KEY, nonsense, ex=60)
    assert await Lease(connection, KEY, 60).take() is Turn.OURS


@pytest.mark.parametrize("value", ["0123456789abcdef", DONE, FAILED + RefusalReason.NOT_FOUND])
async def test_what_does_not_end_is_nobodys(
    connection: Connection, valkey: Valkey, value: str
) -> None:
    """An edge's word has an end. Who comes first takes the lease, and others find who that is."""
    async with valkey.client() as client:
        await client.set(KEY, value)
    one, two = (Lease(connection, KEY, 60) for _ in range(2))
    assert await one.take() is Turn.OURS
    assert await two.take() is Turn.THEIRS


async def test_the_end_of_a_wake_may_be_told_for_longer_than_a_lease(
    connection: Connection,
) -> None:
    """A short lease does not make word of a failure look like somebody else's."""
    one, two = (Lease(connection, KEY, lease.MEMORY / 2) for _ in range(2))
    assert await one.take() is Turn.OURS
    await one.leave(FAILED + RefusalReason.NOT_FOUND)
    assert await two.take() is RefusalReason.NOT_FOUND


async def test_it_is_kept_while_the_work_goes_on(connection: Connection, valkey: Valkey) -> None:
    """Longer than it lasts by itself; and no longer than that."""
    lease = Lease(connection, KEY, 0.5)
    await lease.take()
    async with valkey.client() as client:
        async with lease.kept():
            async with asyncio.timeout(20):
                for _ in range(5):
                    left = await client.pttl(KEY)
                    while await client.pttl(KEY) <= left:
                        assert await client.exists(KEY)
                        left = await client.pttl(KEY)
        async with asyncio.timeout(20):
            while await client.exists(KEY):  # noqa: ASYNC110 - keys have no events
                await asyncio.sleep(0.02)


async def test_a_lost_lease_stays_lost(connection: Connection, valkey: Valkey) -> None:
    """Nobody takes it back from the one who took over, and the work goes on."""
    lease = Lease(connection, KEY, 0.1)
    await lease.take()
    async with valkey.client() as client, lease.kept():
        await client.set(KEY, "another")
        await asyncio.sleep(0.2)
        assert await client.get(KEY) == b"another"
    await lease.leave()
    async with valkey.client() as client:
        assert await client.get(KEY) == b"another"


async def test_without_redis_it_is_always_our_turn(connection: Connection, valkey: Valkey) -> None:
    """With the server killed it is taken, kept and given back all the same, and nothing raises."""
    valkey.kill()
    lease = Lease(connection, KEY, 0.1)
    assert await lease.take() is Turn.OURS
    async with lease.kept():
        await asyncio.sleep(0.1)
    await lease.leave(DONE)
