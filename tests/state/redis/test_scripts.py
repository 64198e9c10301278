"""The scripts, each against a real server: what they write, and what they leave alone."""

from __future__ import annotations

from redis.asyncio import Redis

from edge.state.redis import scripts
from tests.state.redis.valkey import Valkey

RECORD, CHANGES, LEASE, ALIVE = "{x}:sandbox:a", "{x}:changes", "{x}:lease:a", "alive"


def parts(entry_id: bytes) -> tuple[int, int]:
    """Epoch and number of an id."""
    epoch, number = entry_id.split(b"-")
    return int(epoch), int(number)


async def publish(
    client: Redis, version: int, text: str, *, life: int = 0, least: int = 1
) -> bytes:
    """One call of PUBLISH."""
    return await client.eval(
        scripts.PUBLISH, 2, RECORD, CHANGES, "sandbox", version, text, life, 1000, least
    )


async def test_a_newer_version_is_written_with_its_change(valkey: Valkey) -> None:
    """An older or equal one is not, and makes no change."""
    async with valkey.client() as client:
        first = await publish(client, 9, "nine")
        assert await publish(client, 9, "again") is None
        assert await publish(client, 8, "eight") is None
        second = await publish(client, 10, "ten")
        assert await client.hgetall(RECORD) == {
            b"v": b"10",
            b"r": b"ten",
            b"e": str(parts(first)[0]).encode(),
        }
        changes = await client.xrange(CHANGES)
    assert changes == [
        (first, {b"k": b"sandbox", b"r": b"nine"}),
        (second, {b"k": b"sandbox", b"r": b"ten"}),
    ]
    assert parts(second) == (parts(first)[0], parts(first)[1] + 1)


async def test_changes_and_heartbeats_are_numbered_together(valkey: Valkey) -> None:
    """So that a reader sees that nothing is missing."""
    async with valkey.client() as client:
        ids = [
            await publish(client, 1, "a"),
            await client.eval(scripts.BEAT, 1, CHANGES, 1000, 1),
            await publish(client, 2, "b"),
        ]
    assert [parts(one)[1] for one in ids] == [0, 1, 2]
    assert len({parts(one)[0] for one in ids}) == 1


async def test_a_stream_that_begins_anew_has_another_epoch(valkey: Valkey) -> None:
    """A later one than before, whatever the server's clock says."""
    async with valkey.client() as client:
        first = parts(await publish(client, 1, "a"))
        second = parts(await client.eval(scripts.RESET, 1, CHANGES, 1))
        later = parts(await client.eval(scripts.RESET, 1, CHANGES, first[0] + 5_000_000))
        again = parts(await client.eval(scripts.RESET, 1, CHANGES, 1))
        await client.flushall()
        third = parts(await publish(client, 1, "a", least=again[0] + 1))
    assert second[0] > first[0] and second[1] == 0
    assert later == (first[0] + 5_000_000, 0)
    assert again == (later[0] + 1, 0)
    assert third == (again[0] + 1, 0)


async def test_lifetimes(valkey: Valkey) -> None:
    """A record with an end has one, and loses it when a newer version has none."""
    async with valkey.client() as client:
        await publish(client, 1, "a", life=60_000)
        assert 0 < await client.pttl(RECORD) <= 60_000
        await publish(client, 2, "a")
        assert await client.pttl(RECORD) == -1


async def test_the_stream_is_kept_short(valkey: Valkey) -> None:
    """About as long as it was asked to be."""
    async with valkey.client() as client:
        for _ in range(500):
            await client.eval(scripts.BEAT, 1, CHANGES, 100, 1)
        assert await client.xlen(CHANGES) < 300


async def test_a_record_too_long_is_not_sent(valkey: Valkey) -> None:
    """And one that is missing is nothing."""
    async with valkey.client() as client:
        assert await client.eval(scripts.READ, 2, RECORD, CHANGES, 10) is None
        await publish(client, 1, "x" * 10)
        assert await client.eval(scripts.READ, 2, RECORD, CHANGES, 10) == b"x" * 10
        assert await client.eval(scripts.READ, 2, RECORD, CHANGES, 9) is None


async def test_a_record_of_an_earlier_epoch_is_not_sent(valkey: Valkey) -> None:
    """Until its publisher has said it anew, in whatever version: its control plane may have forgotten it."""

    async def read() -> bytes | None:
        found: bytes | None = await client.eval(scripts.READ, 2, RECORD, CHANGES, 10)
        return found

    async with valkey.client() as client:
        await publish(client, 5, "five")
        assert await read() == b"five"
        await client.eval(scripts.RESET, 1, CHANGES, 1)
        assert await read() is None
        assert await publish(client, 4, "four") is None
        assert await read() == b"five"
        await client.delete(CHANGES)
        assert await read() is None


async def test_a_lease_is_its_holders(valkey: Valkey) -> None:
    """Only the holder keeps it and gives it back; a repeated taking finds its own."""
    async with valkey.client() as client:
        assert await client.eval(scripts.TAKE, 1, LEASE, "one", 60_000) == b"one"
        assert await client.eval(scripts.TAKE, 1, LEASE, "one", 60_000) == b"one"
        assert await client.eval(scripts.TAKE, 1, LEASE, "two", 60_000) == b"one"
        assert await client.eval(scripts.KEEP, 1, LEASE, "two", 60_000) == 0
        assert await client.eval(scripts.LEAVE, 1, LEASE, "two", "", 1000) == 0
        assert await client.eval(scripts.KEEP, 1, LEASE, "one", 90_000) == 1
        assert await client.pttl(LEASE) > 60_000
        assert await client.eval(scripts.LEAVE, 1, LEASE, "one", "failed:x", 5000) == 1
        assert await client.eval(scripts.TAKE, 1, LEASE, "two", 60_000) == b"failed:x"
        assert 0 < await client.pttl(LEASE) <= 5000
        await client.set(LEASE, "two")
        assert await client.eval(scripts.LEAVE, 1, LEASE, "two", "", 1000) == 1
        assert await client.exists(LEASE) == 0


async def test_members_are_those_whose_time_is_not_over(valkey: Valkey) -> None:
    """By the server's clock; who has long been gone is forgotten."""
    async with valkey.client() as client:
        await client.eval(scripts.JOIN, 1, ALIVE, "one", 60_000)
        await client.eval(scripts.JOIN, 1, ALIVE, "two", -1)
        await client.eval(scripts.JOIN, 1, ALIVE, "gone", -120_000)
        await client.eval(scripts.JOIN, 1, ALIVE, "one", 60_000)
        assert await client.eval(scripts.MEMBERS, 1, ALIVE) == [b"one"]
        assert await client.zrange(ALIVE, 0, -1) == [b"two", b"one"]
