"""TLS to Redis and to Sentinels: the server has to show who it is; a refusal says what to do about it."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path

import pytest

from edge.core.redis_settings import RedisSettings
from edge.state.port import Unavailable
from edge.state.redis import Publisher
from edge.state.redis.connect import Connection, RedisGone
from tests.state.redis.conftest import Control, Edge
from tests.state.redis.tls import Authority, terminator
from tests.state.redis.valkey import Valkey

PING = "return redis.call('PING')"
REFUSED = r"TLS: the certificate is not trusted \(redis.ca_file\?\) or of another host"


def settings(port: int, ca_file: Path | None, **more: object) -> RedisSettings:
    """Of a Redis behind TLS. Handshakes cost more than the rest, on a slow machine much more."""
    return RedisSettings.model_validate(
        {"url": f"rediss://127.0.0.1:{port}", "ca_file": ca_file, "timeout": 5, **more}
    )


async def ping(settings: RedisSettings) -> object:
    """One command over a connection of its own."""
    connection = Connection(settings)
    try:
        return await connection.run(PING, [])
    finally:
        await connection.close()


async def test_a_trusted_server(valkey: Valkey, tmp_path: Path) -> None:
    """Everything works as without TLS."""
    ours = Authority(tmp_path, "ours")
    async with terminator(ours.serves("127.0.0.1"), valkey.port) as port:
        assert await ping(settings(port, ours.file)) == b"PONG"


@pytest.mark.parametrize("whose", ["theirs", "the system's", "another host's"])
async def test_a_server_that_is_not_trusted(valkey: Valkey, tmp_path: Path, whose: str) -> None:
    """Another authority than ours, or a certificate of another host: refused, and said why."""
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    shown = ours.serves("127.0.0.2" if whose == "another host's" else "127.0.0.1")
    trusted = {"theirs": theirs.file, "the system's": None, "another host's": ours.file}[whose]
    async with terminator(shown, valkey.port) as port:
        with pytest.raises(RedisGone, match=REFUSED):
            await ping(settings(port, trusted))


async def test_publisher_and_edge_say_so(valkey: Valkey, tmp_path: Path) -> None:
    """In the event that tells that Redis is gone, and in the edge's that its watch is lost."""
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    async with terminator(ours.serves("127.0.0.1"), valkey.port) as port:
        distrusting = settings(port, theirs.file)
        told = asyncio.get_running_loop().create_future()

        def log(event: str, **said: object) -> None:
            if not told.done():
                told.set_result((event, said))

        publisher = Publisher(distrusting, list, wall=time.time, log=log)
        running = asyncio.get_running_loop().create_task(publisher.run())
        event, said = await asyncio.wait_for(told, 20)
        running.cancel()
        await asyncio.wait([running])
        assert event == "redis_gone" and "TLS: the certificate" in said["reason"]
        edge = Edge(distrusting, Control(), "edge-1")
        with pytest.raises(Unavailable):
            await anext(edge.port.watch(None))
        assert edge.noted == ["redis_left"] and re.search(REFUSED, edge.reasons[0])
        await edge.close()


@pytest.mark.parametrize("password", ["right", "wrong"])
async def test_sentinels_behind_tls(valkey: Valkey, tmp_path: Path, password: str) -> None:
    """They are reached by TLS and with their own password, and so is the primary they name."""
    ours = Authority(tmp_path, "ours")
    async with terminator(ours.serves("127.0.0.1"), valkey.port) as primary:
        state = [
            "name", "mymaster", "ip", "127.0.0.1", "port", str(primary), "flags", "master",
            "num-other-sentinels", "2",
        ]  # fmt: skip
        bulk = "".join(f"${len(word)}\r\n{word}\r\n" for word in state)

        async def sentinel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            may = False
            while line := await reader.readline():
                if line == b"AUTH\r\n":
                    await reader.readline()
                    may = await reader.readline() == b"right\r\n"
                    writer.write(b"+OK\r\n" if may else b"-WRONGPASS no\r\n")
                elif line.upper() == b"SENTINEL\r\n" and may:
                    writer.write(f"*1\r\n*{len(state)}\r\n{bulk}".encode())
            writer.close()

        context = ours.serves("127.0.0.1")
        async with await asyncio.start_server(sentinel, "127.0.0.1", 0, ssl=context) as server:
            address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
            asking = ping(
                settings(
                    1, ours.file, sentinels=[address], sentinel_tls=True, sentinel_password=password
                )
            )
            if password == "right":
                assert await asking == b"PONG"
            else:
                with pytest.raises(RedisGone):
                    await asking
