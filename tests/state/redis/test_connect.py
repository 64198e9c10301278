"""The door to Redis: whatever goes wrong behind it is one exception, in bounded time; TLS, passwords, limits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from edge.core.redis_settings import RedisSettings
from edge.state.redis.connect import Connection, RedisGone
from tests.state.redis.sets import ClusterSet
from tests.state.redis.valkey import Valkey

PING = "return redis.call('PING')"
ENTRIES = b"*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nk\r\n%s\r\n"
"""An entry with a field of any kind."""
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
async def connect() -> AsyncIterator[Callable[..., Connection]]:
    """Make connections."""
    made: list[Connection] = []

    def make(url: str, **settings: object) -> Connection:
        connection = Connection(RedisSettings.model_validate({"url": url, **settings}))
        made.append(connection)
        return connection

    yield make
    for connection in made:
        try:
            await connection.run(PING, [])  # its shape is the caller's to judge
        except RedisGone:
            pass
        await connection.close()


async def test_scripts_streams_and_positions(valkey: Valkey, connect) -> None:
    """What the adapter needs of a server."""
    connection = connect(valkey.url)
    assert await connection.last("s") == b"0-0"
    await connection.add("s", {"a": b"1"}, 100)
    last = await connection.last("s")
    [(name, [(entry_id, fields)])] = await connection.read({"s": b"0-0"}, block=1, count=10)
    assert (name, entry_id, fields) == ("s", last, {b"a": b"1"})
    assert await connection.read({"s": last}, block=0.01, count=10) == []
    echo = "return ARGV[1]"
    assert await connection.run_all(echo, [(["k"], [n]) for n in range(3)]) == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("127.0.0.1:1", "nobody listens there"),
        ("nobody.invalid", "its host name cannot be resolved"),
    ],
)
async def test_nobody_there(connect, place: str, why: str) -> None:
    """Refused at once, or no such host (RFC 6761 section 6.4); said in words."""
    with pytest.raises(RedisGone, match=why):
        await connect(f"redis://{place}/0", timeout=20).run(PING, ["k"])


async def test_a_server_that_hangs(valkey: Valkey, connect) -> None:
    """Given up after the timeout; when it is back, so is everything else."""
    connection = connect(valkey.url, timeout=0.2)
    await connection.run(PING, [])
    valkey.freeze()
    with pytest.raises(RedisGone, match="no answer within"):
        await connection.run(PING, [])
    valkey.thaw()
    async with asyncio.timeout(20):
        while True:
            try:
                await connection.run(PING, [])
            except RedisGone:
                continue
            break


async def test_more_callers_than_connections(valkey: Valkey, connect) -> None:
    """They take turns, and every answer goes to who asked."""
    connection = connect(valkey.url, connections=4, timeout=10)
    answers = await asyncio.gather(*(connection.run("return ARGV[1]", [], n) for n in range(200)))
    assert answers == [str(n).encode() for n in range(200)]
    async with valkey.client() as client:
        assert len(await client.client_list()) <= 5


async def test_errors_do_not_quote_what_was_sent(valkey: Valkey, connect) -> None:
    """A script that fails, a full server."""
    connection = connect(valkey.url)
    with pytest.raises(RedisGone) as caught:
        await connection.run("return redis.error_reply('secret ' .. ARGV[1])", [], "token")
    assert "token" not in str(caught.value) and "secret" not in str(caught.value)
    async with valkey.client() as client:
        await client.config_set("maxmemory", "1")
        with pytest.raises(RedisGone):
            await connection.add("s", {"a": b"1"}, 100)


async def test_passwords(valkey: Valkey, connect) -> None:
    """The right one lets in; a wrong one does not, and is not in the error."""
    async with valkey.client() as client:
        await client.execute_command("ACL", "SETUSER", "edge", "on", ">hunter2", "~*", "+@all")
    host = f"127.0.0.1:{valkey.port}/0"
    await connect(f"redis://edge:hunter2@{host}").run(PING, [])
    with pytest.raises(RedisGone) as caught:
        await connect(f"redis://edge:hunter3@{host}").run(PING, [])
    assert "hunter" not in str(caught.value)


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"*1\r\n", b"$-5\r\n", b":x\r\n", b"*-7\r\n", b"+OK\r\n" * 9,
     b"%1\r\n+a\r\n+b\r\n", b"$99999999\r\nx", b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n", b"\0" * 100,
     ENTRIES % b":5", ENTRIES % b"*0", b"*1\r\n*2\r\n$1\r\ns\r\n" + ENTRIES % b":5", b"$-1\r\n", b"*1\r\n" * 5000],
)  # fmt: skip
async def test_a_server_that_talks_nonsense(connect, nonsense: bytes) -> None:
    """Whatever it says: an answer of the right shape, or `RedisGone`."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(65536):
                writer.write(nonsense)
                if not nonsense:
                    break
        except ConnectionError:
            pass
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        connection = connect(url, timeout=0.3)
        for asking in (
            connection.read({"s": b"0-0"}, block=0.01, count=1),
            connection.last("s"),
            connection.length("s"),
        ):
            try:
                answer = await asking
            except RedisGone:
                continue
            assert answer in ([], b"0-0", b"s"), (
                answer
            )  # nil is an answer; what is no id, `ids` refuses
        try:
            await connection.run(PING, [])  # its shape is the caller's to judge
        except RedisGone:
            pass
        await connection.close()


@pytest.mark.parametrize("servers", ["cluster"], indirect=True)
async def test_the_first_commands_go_where_they_belong(servers: ClusterSet) -> None:
    """Many at once before a Cluster's nodes are known: not one is sent on by a node that has not got its key."""

    async def sent_on() -> int:
        count = 0
        for server in servers.servers:
            async with server.client() as client:
                errors = await client.info("errorstats")
            count += sum(said["count"] for name, said in errors.items() if "MOVED" in name)
        return count

    before = await sent_on()
    connection = Connection(servers.settings.model_copy(update={"timeout": 20.0}))
    calls = [([f"{{s{number:02d}}}:key"], [number]) for number in range(16)]
    assert len(await connection.run_all("return ARGV[1]", calls)) == 16
    await asyncio.gather(*(connection.last(f"{{s{number:02d}}}:s") for number in range(16)))
    await connection.close()
    assert await sent_on() == before
