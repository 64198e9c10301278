"""``config/redis.acl``: with these rights everything works, and an edge can do nothing but its own part."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from edge.core.records import SandboxRecord, State
from edge.core.redis_settings import RedisSettings
from edge.state.port import Unavailable, UsageBatch
from edge.state.redis import LeftUsage, scripts
from edge.state.redis.layout import Layout, shard_of
from tests.development import ROOT
from tests.state.redis.conftest import Control, Edge, Fleet
from tests.state.redis.sets import ClusterSet
from tests.state.redis.valkey import Valkey

FILE = ROOT / "config" / "redis.acl"
LAYOUT = Layout("edge")
BOX = SandboxRecord("sb_aaaaaaaa", State.PAUSED, 1, 1, auto_resume=True)
RECORD = LAYOUT.record("sandbox", BOX.id)
CHANGES = LAYOUT.changes(shard_of(BOX.id))
SERVER = LAYOUT.server(shard_of(BOX.id))
LEASE = LAYOUT.lease(BOX.id, 1)


def acl(folder: Path, default: str) -> str:
    """The file with a password, and the default user as the test needs it."""
    text = re.sub(r">\S+", ">hunter2", FILE.read_text()).replace(
        "default off", f"default {default}"
    )
    file = folder / "redis.acl"
    file.write_text(text)
    return str(file)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Valkey]:
    """A server with the users of the file, and another that may only look whether it is up."""
    async with Valkey(tmp_path, "--aclfile", acl(tmp_path, "on nopass -@all +ping")) as server:
        yield server


def settings(server: Valkey | ClusterSet, user: str) -> RedisSettings:
    """As this user."""
    url = server.settings.url
    assert url is not None
    return RedisSettings.model_validate(
        {
            "url": url.get_secret_value().replace("//", f"//{user}:hunter2@"),
            "cluster": server.settings.cluster,
            # Handshakes with all nodes at once on a slow machine: what is refused is refused all the same.
            "timeout": 20,
        }
    )


@pytest.mark.parametrize("kind", [Valkey, ClusterSet])
async def test_everything_works(kind: type[Valkey | ClusterSet], tmp_path: Path) -> None:
    """Publishing, following, reading, waking, usage on both sides, membership."""
    async with AsyncExitStack() as stack:
        file = acl(tmp_path, "on nopass ~* &* +@all")  # which replicas use
        server = await stack.enter_async_context(kind(tmp_path, "--aclfile", file))
        fleet = Fleet(settings(server, "control-plane"), stack)
        fleet.put(BOX)
        fleet.start()
        edge = Edge(settings(server, "edge"), fleet.control, "edge-1")
        stack.push_async_callback(edge.close)
        await edge.follow()
        assert await edge.port.sandbox(BOX.id) == BOX
        await edge.until(lambda: fleet.publisher.members == {"edge-1"})
        assert (await edge.port.resume(BOX.id, 1, "preview", 20)).incarnation == 2
        await edge.until(lambda: any(record.version == 2 for record in edge.changes()))
        fleet.control.gone = True
        await edge.port.report(UsageBatch("edge-1", 1, ()))
        taken = asyncio.get_running_loop().create_future()
        reader = LeftUsage(settings(server, "control-plane"), taken.set_result, log=print)
        reading = asyncio.get_running_loop().create_task(reader.run())
        assert (await asyncio.wait_for(taken, 20)).sequence == 1
        async with asyncio.timeout(20), server.client() as client:
            while await client.xlen(LAYOUT.batches):  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.02)
        reading.cancel()
        await asyncio.wait([reading])
        assert fleet.control.asked == [] and fleet.told == []


@pytest.mark.parametrize(
    "command",
    [
        ("HSET", RECORD, "v", "9"), ("DEL", RECORD), ("SET", RECORD, "x"), ("PEXPIRE", RECORD, "1"),
        ("XADD", CHANGES, "*", "b", ""), ("DEL", CHANGES), ("SET", SERVER, "x"), ("GET", SERVER),
        ("XREAD", "STREAMS", LAYOUT.batches, "0"), ("XREVRANGE", LAYOUT.batches, "+", "-"), ("DEL", LAYOUT.batches, "x"),
        ("XRANGE", CHANGES, "-", "+"), ("GET", "other"), ("SET", "other", "x"), ("HGET", "blue:{s00}:sandbox:a", "r"),
        ("EVAL", scripts.BEGIN, "2", CHANGES, SERVER, "0", "0"), ("EVAL", scripts.BEAT, "2", CHANGES, SERVER, "9", "0", "0"),
        ("EVAL", "return redis.call('HSET', KEYS[1], 'r', 'x')", "1", RECORD),
        ("EVAL", f"return redis.call('HSET', '{RECORD}', 'r', 'x')", "1", LEASE),
        ("EVAL", f"return redis.call('XADD', '{CHANGES}', '*', 'b', '')", "1", LEASE),
        ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SCAN", "0"), ("MONITOR",), ("SHUTDOWN",),
        ("ACL", "LIST"), ("CLIENT", "LIST"), ("SCRIPT", "FLUSH"), ("REPLICAOF", "NO", "ONE"),
        ("PUBLISH", "a", "b"), ("SUBSCRIBE", "a"), ("INFO",), ("FUNCTION", "LIST"), ("CLUSTER", "NODES"),
    ],
    ids=lambda command: " ".join(command)[:40],
)  # fmt: skip
async def test_what_an_edge_must_not_do(guarded: Valkey, command: tuple[str, ...]) -> None:
    """The server refuses it to an edge: commands and keys beyond its part, also through a script."""
    async with Redis(port=guarded.port, username="edge", password="hunter2", protocol=2) as client:
        with pytest.raises(ResponseError, match=r"permission"):
            await client.execute_command(*command)


@pytest.mark.parametrize(
    "command",
    [("FLUSHALL",), ("CONFIG", "GET", "*"), ("KEYS", "*"), ("SET", LEASE, "x"), ("GET", "other"),
     ("ZADD", LAYOUT.members, "1", "x"), ("ACL", "LIST"), ("SHUTDOWN",), ("XADD", "other", "*", "a", "b")],
    ids=lambda command: " ".join(command)[:40],
)  # fmt: skip
async def test_what_a_control_plane_need_not_do(guarded: Valkey, command: tuple[str, ...]) -> None:
    """The server refuses it to the control plane: commands and keys beyond its part."""
    async with Redis(
        port=guarded.port, username="control-plane", password="hunter2", protocol=2
    ) as client:
        with pytest.raises(NoPermissionError):
            await client.execute_command(*command)


async def test_without_the_rights_it_is_told(guarded: Valkey) -> None:
    """An edge that was given nothing says why, and asks the control plane."""
    control = Control()
    control.records[BOX.id] = BOX
    edge = Edge(guarded.settings, control, "edge-1")
    with pytest.raises(Unavailable):
        await anext(edge.port.watch(None))
    assert edge.noted == ["redis_left"] and "the user may not do this" in edge.reasons[0]
    assert await edge.port.sandbox(BOX.id) == BOX
    await edge.close()


async def test_a_lease_that_is_held_can_be_looked_at(guarded: Valkey) -> None:
    """And one that is nobody's be replaced: both take more than an edge alone ever needs."""
    async with Redis(port=guarded.port, username="edge", password="hunter2", protocol=2) as client:
        await client.set(LEASE, "for ever")
        for token in ("one", "two"):
            assert await client.eval(scripts.TAKE, 1, LEASE, token, 60_000, 60_000) == b"one"


async def test_a_key_of_another_type_can_be_told(guarded: Valkey) -> None:
    """The control plane may look what usage's key is, and what is in the way of a record goes."""
    edge, plane = (
        Redis(port=guarded.port, username=user, password="hunter2", protocol=2)
        for user in ("edge", "control-plane")
    )
    async with edge, plane:
        begun = await plane.eval(scripts.BEGIN, 2, CHANGES, SERVER, 0, 0)
        await plane.set(LAYOUT.batches, "x")
        assert await plane.eval_ro(scripts.LEFT, 1, LAYOUT.batches, 9, 9) == b"string"
        await plane.set(RECORD, "x")
        said = ("sandbox", 1, "{}", 0, 1000, *begun.split(b"-"))
        assert await plane.eval(scripts.PUBLISH, 2, RECORD, CHANGES, *said)
        assert await edge.eval_ro(scripts.READ, 2, RECORD, CHANGES, 9) == [
            begun.replace(b"-0", b"-1"), b"{}",
        ]  # fmt: skip
