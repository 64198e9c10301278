"""Redis while it can be followed, and else the control plane: nobody is left without news."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from edge.core.records import SandboxRecord, State
from edge.state.port import Change, Heartbeat, Resync, Unavailable, WatchEvent
from edge.state.redis import following as module
from tests.state.redis.conftest import Edge, Fleet, Servers, hasty, only_single

pytestmark = only_single
BOX = SandboxRecord("sb_aaaaaaaa", State.RUNNING, 1, 1)
CURSOR = 1_700_000_000_000
"""Where the control plane's own log stands: far beyond what is counted in Redis."""


def directly(fleet: Fleet, *events: WatchEvent | Unavailable) -> None:
    """The control plane can be followed itself, and says this."""
    queue = fleet.control.events = fleet.control.events or asyncio.Queue()
    for event in events:
        queue.put_nowait(event)


async def heard(edge: Edge, since: int, holds: Callable[[WatchEvent], bool]) -> list[WatchEvent]:
    """Events from a place on, up to one that was waited for."""
    await edge.until(lambda: any(map(holds, edge.events[since:])))
    found = edge.events[since:]
    return found[: next(n for n, event in enumerate(found) if holds(event)) + 1]


async def test_without_redis_the_control_plane_is_followed_and_then_redis_again(
    fleet: Fleet, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each change of sides begins with a doubt; what happens meanwhile is heard; it is told once each."""
    monkeypatch.setattr(module, "FIRST_LOOK", 0.05)
    monkeypatch.setattr(module, "LAST_LOOK", 0.05)
    fleet.put(BOX)
    edge = await fleet.edge()
    newer = replace(BOX, version=2)
    directly(fleet, Change(CURSOR, newer), Heartbeat(CURSOR))
    seen = len(edge.events)
    servers.kill()
    events = await heard(edge, seen, lambda event: event == Heartbeat(CURSOR))
    assert events[-3:] == [Resync(CURSOR), Change(CURSOR, newer), Heartbeat(CURSOR)]
    assert edge.failures == 0 and edge.noted == ["redis_left"]
    fleet.control.records[BOX.id] = newer
    seen = len(edge.events)
    await servers.start()
    events = await heard(edge, seen, lambda event: isinstance(event, Heartbeat))
    assert isinstance(events[-2], Resync) and events[-1].cursor == events[-2].cursor < CURSOR
    assert await edge.port.sandbox(BOX.id) == newer
    assert fleet.control.asked == [], "after the doubt all is read from Redis"
    await edge.until(lambda: edge.noted == ["redis_left", "redis_followed"])


@hasty
async def test_a_publisher_that_stopped(fleet: Fleet) -> None:
    """Redis is there and says nothing: the same."""
    edge = await fleet.edge()
    directly(fleet, Resync(CURSOR), Heartbeat(CURSOR))
    seen = len(edge.events)
    await fleet.stop()
    events = await heard(edge, seen, lambda event: event == Heartbeat(CURSOR))
    assert events.count(Resync(CURSOR)) == 1, "one that the control plane says itself is enough"


async def test_reading_alone_will_not_do(
    fleet: Fleet, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edge that cannot join the members stays with the control plane, and does not change sides again and again."""
    monkeypatch.setattr(module, "FIRST_LOOK", 0.05)
    monkeypatch.setattr(module, "LAST_LOOK", 0.05)
    async with servers.client() as client:

        async def attempts() -> int:
            stats = await client.info("commandstats")
            return int(stats.get("cmdstat_zremrangebyscore", {"calls": 0})["calls"])

        await client.execute_command("ACL", "SETUSER", "default", "-zadd")
        try:
            directly(fleet, Heartbeat(CURSOR))
            edge = await fleet.edge()
            before = await attempts()
            async with asyncio.timeout(20):
                while await attempts() < before + 3:  # noqa: ASYNC110 - Redis has no event
                    await asyncio.sleep(0.01)
            assert edge.events == [Resync(CURSOR), Heartbeat(CURSOR)]
            assert edge.noted == ["redis_left"]
        finally:
            await client.execute_command("ACL", "SETUSER", "default", "+zadd")
        await edge.until(lambda: edge.noted == ["redis_left", "redis_followed"])


async def test_neither_can_be_followed(fleet: Fleet, servers: Servers) -> None:
    """Then nobody pretends; with one of them back it goes on."""
    edge = await fleet.edge()
    directly(fleet, Unavailable("gone, too"))
    servers.kill()
    await edge.until(lambda: edge.failures > 0)
    seen = len(edge.events)
    directly(fleet, Heartbeat(CURSOR))
    assert await heard(edge, seen, lambda event: event == Heartbeat(CURSOR)) == [
        Resync(CURSOR),
        Heartbeat(CURSOR),
    ]
    assert edge.noted == ["redis_left"], "told once, not with every attempt"


async def test_from_the_start_without_redis(fleet: Fleet, servers: Servers) -> None:
    """An edge that begins while Redis is gone is ready all the same."""
    servers.kill()
    directly(fleet, Heartbeat(CURSOR))
    edge = await fleet.edge()
    assert edge.events == [Resync(CURSOR), Heartbeat(CURSOR)]
