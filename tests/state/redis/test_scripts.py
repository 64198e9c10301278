"""The scripts, each against a real server: what they write, and what they leave alone."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from edge.state.redis import scripts
from edge.state.redis.ids import MOST, entry_id
from tests.state.redis.valkey import Valkey

RECORD, CHANGES, SERVER = "{x}:sandbox:a", "{x}:changes", "{x}:server"
LEASE, MEMBERS = "{x}:lease:a", "members"


def parts(entry_id: bytes) -> tuple[int, int]:
    """Epoch and number of an id."""
    epoch, number = entry_id.split(b"-")
    return int(epoch), int(number)


async def begin(client: Redis, epoch: int = 0, number: int = 0) -> tuple[int, int]:
    """One call of BEGIN."""
    return parts(await client.eval(scripts.BEGIN, 2, CHANGES, SERVER, epoch, number))


async def standing(client: Redis) -> tuple[int, int]:
    """Where the stream is; begun if there is none."""
    found = await client.xrevrange(CHANGES, count=1)
    return parts(found[0][0]) if found else await begin(client)


async def publish(
    client: Redis, version: int, text: str, *, life: int = 0, known: tuple[int, int] | None = None
) -> bytes:
    """One call of PUBLISH, by one who knows the stream as it is, or as said."""
    known = known or await standing(client)
    return await client.eval(
        scripts.PUBLISH, 2, RECORD, CHANGES, "sandbox", version, text, life, 1000, *known
    )


async def beat(client: Redis, known: tuple[int, int] | None = None) -> bytes:
    """One call of BEAT."""
    known = known or await standing(client)
    return await client.eval(scripts.BEAT, 2, CHANGES, SERVER, 100, *known)


async def test_a_newer_version_is_written_with_its_change(valkey: Valkey) -> None:
    """An equal one makes no change."""
    async with valkey.client() as client:
        epoch, _ = await begin(client)
        first = await publish(client, 9, "nine")
        assert await publish(client, 9, "nine") is None
        second = await publish(client, 10, "ten")
        assert await client.hgetall(RECORD) == {
            b"v": b"10",
            b"r": b"ten",
            b"e": str(epoch).encode(),
        }
        [_, *entries] = await client.xrange(CHANGES)
    assert entries == [
        (first, {b"k": b"sandbox", b"r": b"nine"}),
        (second, {b"k": b"sandbox", b"r": b"ten"}),
    ]
    assert [parts(first), parts(second)] == [(epoch, 1), (epoch, 2)]


async def test_changes_and_heartbeats_are_numbered_together(valkey: Valkey) -> None:
    """So that a reader sees that nothing is missing."""
    async with valkey.client() as client:
        epoch, number = await begin(client)
        ids = [await publish(client, 1, "a"), await beat(client), await publish(client, 2, "b")]
    assert [parts(one) for one in ids] == [(epoch, number + n) for n in (1, 2, 3)]


async def test_who_knows_nothing_begins_anew(valkey: Valkey) -> None:
    """A control plane that was started may have forgotten what Redis still holds."""
    async with valkey.client() as client:
        first = await begin(client)
        await beat(client)
        second = await begin(client)
    assert second[0] > first[0] and second[1] == 0


async def test_a_stream_that_is_as_known_goes_on(valkey: Valkey) -> None:
    """One that has gone on as well, and another that was begun since, by another publisher."""
    async with valkey.client() as client:
        first = await begin(client)
        await beat(client)
        assert await begin(client, *first) == (first[0], 1)
        assert await begin(client, first[0], 1) == (first[0], 1)
        assert await begin(client, first[0] - 5, 77) == (first[0], 1)


@pytest.mark.parametrize("loss", ["flushed", "shorter", "another server", "nonsense", "huge ids"])
async def test_where_something_may_be_lost_a_later_epoch_begins(valkey: Valkey, loss: str) -> None:
    """Later than all before, whatever the server's clock says; and until then nothing is added to what is there."""
    async with valkey.client() as client:
        known = await begin(client)
        match loss:
            case "flushed":
                await client.flushall()
            case "shorter":
                known = (known[0], 5)
            case "another server":
                await client.set(SERVER, "0" * 40)
            case "nonsense":
                await client.set(CHANGES, "x")
            case _:
                await client.xadd(CHANGES, {"b": ""}, id=f"{2**64 - 1}-{2**64 - 1}")
        assert await beat(client, known) == b"lost"
        if loss != "another server":
            assert await publish(client, 1, "a", known=known) == b"lost"
            assert not await client.exists(RECORD)
        begun = await begin(client, *known)
        assert begun > known and begun[1] == 0 and begun[0] < 10**18
        assert parts(await beat(client, begun)) == (begun[0], 1)
        later = (begun[0] + 5_000_000, 0)
        assert await begin(client, *later) == (later[0] + 1, 0)


async def test_epochs_do_not_run_out(valkey: Valkey) -> None:
    """Where somebody has written the last one that can be read, the next is of the clock again."""
    async with valkey.client() as client:
        now = (await begin(client))[0]
        last = (MOST - 1, MOST - 1)
        await client.xadd(CHANGES, {"b": ""}, id=f"{last[0]}-{last[1]}")
        assert await begin(client, now, 0) == last
        assert entry_id(await client.eval(scripts.BEGIN, 2, CHANGES, SERVER, 0, 0)) >= (now, 0)
        await client.delete(CHANGES)
        assert entry_id(await client.eval(scripts.BEGIN, 2, CHANGES, SERVER, *last)) >= (now, 0)
        await client.xadd(CHANGES, {"b": ""}, id=f"{MOST}-0")
        assert entry_id(await client.eval(scripts.BEGIN, 2, CHANGES, SERVER, now, 0)) >= (now, 0)


async def test_lifetimes(valkey: Valkey) -> None:
    """A record with an end has one, and loses it when a newer version has none."""
    async with valkey.client() as client:
        await publish(client, 1, "a", life=60_000)
        assert 0 < await client.pttl(RECORD) <= 60_000
        await publish(client, 2, "a")
        assert await client.pttl(RECORD) == -1


async def test_the_stream_is_kept_short(valkey: Valkey) -> None:
    """It has about as many entries as were asked for, however many are published."""
    async with valkey.client() as client:
        for _ in range(500):
            await beat(client)
        assert await client.xlen(CHANGES) < 300


async def test_a_record_too_long_is_not_sent(valkey: Valkey) -> None:
    """And one that is missing is nothing; the stream's newest id comes with it, if there is one."""

    async def read(most: int) -> list[bytes | None]:
        return await client.eval(scripts.READ, 2, RECORD, CHANGES, most)

    async with valkey.client() as client:
        assert await read(10) == [None, None]
        await beat(client)
        [(newest, _)] = await client.xrevrange(CHANGES, count=1)
        assert await read(10) == [newest, None]
        epoch = newest.partition(b"-")[0]
        await client.hset(RECORD, mapping={"r": "x" * 10, "e": epoch})
        assert await read(10) == [newest, b"x" * 10]
        assert await read(9) == [newest, None]


async def test_a_record_of_an_earlier_epoch_is_not_read(valkey: Valkey) -> None:
    """Until it is said again, in the version that is held: its control plane may have forgotten it."""
    async with valkey.client() as client:
        await publish(client, 5, "five")
        assert await read(client) == b"five"
        await begin(client)
        assert await read(client) is None
        assert await publish(client, 5, "again") is None
        assert await read(client) == b"again"
        await client.delete(CHANGES)
        assert await read(client) is None


async def read(client: Redis) -> bytes | None:
    """The record, as an edge reads it."""
    _, found = await client.eval(scripts.READ, 2, RECORD, CHANGES, 10)
    return found


async def changes(client: Redis) -> list[bytes]:
    """The records in the stream's changes, the oldest first."""
    return [fields[b"r"] for _, fields in await client.xrange(CHANGES) if b"r" in fields]


@pytest.mark.parametrize("version", ["9", "10", "9000000000000000", "9" * 40])
async def test_a_higher_version_of_this_epoch_is_not_undone(valkey: Valkey, version: str) -> None:
    """It may be another publisher's. Nor does it hold up changes, or is it read, until it has been said again."""
    async with valkey.client() as client:
        await publish(client, int(version), "theirs")
        for older in (7, 8, 7):
            assert await publish(client, older, f"{older}") not in (None, b"lost")
            assert await read(client) is None
            assert await client.hget(RECORD, "v") == version.encode()
        assert await changes(client) == [b"theirs", b"7", b"8", b"7"]
        assert await publish(client, int(version), "theirs") is None
        assert await read(client) == b"theirs"
        await publish(client, 7, "7")
        await publish(client, int(version) + 1, "newer")
        assert await read(client) == b"newer"


@pytest.mark.parametrize("version", ["9", "9000000000000000", "9" * 40])
async def test_a_version_of_an_earlier_epoch_does_not_count(valkey: Valkey, version: str) -> None:
    """Whoever publishes since has looked up what there is after the beginning: this is not of us."""
    async with valkey.client() as client:
        await publish(client, int(version), "theirs", life=60_000)
        await publish(client, 7, "disputed")
        await begin(client)
        assert await publish(client, 8, "8") not in (None, b"lost")
        assert await read(client) == b"8"
        assert await client.hget(RECORD, "v") == b"8"
        assert await client.pttl(RECORD) == -1
        assert await changes(client) == [b"8"]


async def test_versions_are_exact_however_high(valkey: Valkey) -> None:
    """A control plane may count in nanoseconds, beyond what Lua's numbers can tell apart."""
    now = 1_800_000_000_000_000_000
    async with valkey.client() as client:
        for version in (now, now + 1, now + 2):
            assert await publish(client, version, f"{version % 10}") not in (None, b"lost")
            assert await read(client) == b"%d" % (version % 10)


async def test_what_is_held_in_this_version_is_said_anew(valkey: Valkey) -> None:
    """Whatever it has become meanwhile; it is no change."""
    async with valkey.client() as client:
        await publish(client, 5, "five")
        await client.hset(RECORD, "r", "forged")
        assert await publish(client, 5, "five") is None
        assert await read(client) == b"five"
        assert await changes(client) == [b"five"]


@pytest.mark.parametrize(
    "garbage",
    ["a list", "x", "", "9e15", "1e300", "inf", "0x7fffffff", "-9", "+9", " 9", "09", "9.5"],
)
async def test_what_is_no_record_is_replaced(valkey: Valkey, garbage: str) -> None:
    """A key of another type, or a version that no publisher writes, must not stop one."""
    async with valkey.client() as client:
        epoch, _ = await begin(client)
        if garbage == "a list":
            await client.lpush(RECORD, "x")
        else:
            await client.hset(RECORD, mapping={"v": garbage, "r": "x", "e": epoch})
        assert await publish(client, 1, "a") not in (None, b"lost")
        held = await client.hgetall(RECORD)
        assert (held[b"v"], held[b"r"]) == (b"1", b"a")


async def take(client: Redis, token: str) -> bytes:
    """One call of TAKE, for a minute of a hundred seconds at most."""
    return await client.eval(scripts.TAKE, 1, LEASE, token, 60_000, 100_000)


async def test_a_lease_is_its_holders(valkey: Valkey) -> None:
    """Only the holder keeps it and gives it back; a repeated taking finds its own."""
    async with valkey.client() as client:
        assert await take(client, "one") == b"one"
        assert await take(client, "one") == b"one"
        assert await take(client, "two") == b"one"
        assert await client.eval(scripts.KEEP, 1, LEASE, "two", 60_000) == 0
        assert await client.eval(scripts.LEAVE, 1, LEASE, "two", "", 1000) == 0
        assert await client.eval(scripts.KEEP, 1, LEASE, "one", 90_000) == 1
        assert await client.pttl(LEASE) > 60_000
        assert await client.eval(scripts.LEAVE, 1, LEASE, "one", "failed:x", 5000) == 1
        assert await take(client, "two") == b"failed:x"
        assert 0 < await client.pttl(LEASE) <= 5000
        await client.set(LEASE, "two")
        assert await client.eval(scripts.LEAVE, 1, LEASE, "two", "", 1000) == 1
        assert await client.exists(LEASE) == 0


@pytest.mark.parametrize(
    "foreign", ["for ever", "for too long", "too long", "a list for ever", "a list"]
)
async def test_a_lease_that_no_edge_has_written_is_replaced(valkey: Valkey, foreign: str) -> None:
    """By whoever comes first, and others find that one then."""
    async with valkey.client() as client:
        if "list" in foreign:
            await client.lpush(LEASE, "x")
        else:
            await client.set(LEASE, "0123456789abcdef")
        if foreign == "for too long":
            await client.pexpire(LEASE, 200_000)
        elif foreign == "too long":
            await client.set(LEASE, "x" * 65, px=50_000)
        elif foreign == "a list":
            await client.pexpire(LEASE, 50_000)
        assert await take(client, "one") == b"one"
        assert await take(client, "two") == b"one"
        assert 0 < await client.pttl(LEASE) <= 60_000


async def test_members_are_those_whose_time_is_not_over(valkey: Valkey) -> None:
    """By the server's clock; who has long been gone is forgotten, and there is an end to their number."""
    async with valkey.client() as client:
        await client.set(MEMBERS, "nonsense")
        assert await client.eval(scripts.MEMBERS, 1, MEMBERS, 9, 10) == []
        await client.eval(scripts.JOIN, 1, MEMBERS, "one", 60_000, 9)
        await client.eval(scripts.JOIN, 1, MEMBERS, "two", -1, 9)
        await client.eval(scripts.JOIN, 1, MEMBERS, "gone", -120_000, 9)
        await client.eval(scripts.JOIN, 1, MEMBERS, "one", 60_000, 9)
        assert await client.eval(scripts.MEMBERS, 1, MEMBERS, 9, 10) == [b"one"]
        assert await client.zrange(MEMBERS, 0, -1) == [b"two", b"one"]
        await client.eval(scripts.JOIN, 1, MEMBERS, "three", 60_000, 2)
        assert await client.eval(scripts.MEMBERS, 1, MEMBERS, 9, 10) == [b"one", b"three"]
        assert await client.eval(scripts.MEMBERS, 1, MEMBERS, 1, 10) == [b"one"]


async def test_a_member_for_ever_is_none(valkey: Valkey) -> None:
    """A name with a time far ahead (a clock set back, nonsense) would else hold up each pause for inactivity."""
    async with valkey.client() as client:
        await client.zadd(MEMBERS, {"ghost": "+inf", "late": 9e12})
        assert await client.eval(scripts.MEMBERS, 1, MEMBERS, 9, 10) == []
        await client.eval(scripts.JOIN, 1, MEMBERS, "one", 3000, 2)
        assert await client.eval(scripts.MEMBERS, 1, MEMBERS, 9, 10) == [b"one"]
        assert await client.zrange(MEMBERS, 0, -1) == [b"one"]


async def test_a_name_too_long_is_no_members(valkey: Valkey) -> None:
    """Megabytes of it would else be fetched before each heartbeat, and hold it up."""
    async with valkey.client() as client:
        for name in ("x" * 10, "y" * 11, "z"):
            await client.eval(scripts.JOIN, 1, MEMBERS, name, 3000, 9)
        assert set(await client.eval(scripts.MEMBERS, 1, MEMBERS, 9, 10)) == {b"x" * 10, b"z"}
