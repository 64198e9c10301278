"""Redis gone, slow, full, flushed or talking nonsense: nobody outside notices, and it heals by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from edge.core.records import GrantStatus, State
from tests.fleet.conftest import MakeFleet
from tests.fleet.stage import FleetStage
from tests.flows.test_grants import alive, tunnel
from tests.flows.test_websocket_wakes import shout

TROUBLES = ["gone", "hanging", "slow", "full", "flushed", "nonsense", "publisher stopped"]
SLOW = 0.15
"""Seconds each way: an answer comes within `redis.timeout`, but late."""


@asynccontextmanager
async def trouble(fleet: FleetStage, which: str) -> AsyncIterator[None]:
    """It is so in here."""
    redis = fleet.redis
    match which:
        case "gone":
            redis.kill()
            yield
            await redis.start()
        case "hanging":
            redis.freeze()
            yield
            redis.thaw()
        case "slow":
            for link in fleet.links_to_redis:
                link.delay = SLOW
            yield
            for link in fleet.links_to_redis:
                link.delay = 0.0
        case "full":
            async with redis.client() as client:
                await client.config_set("maxmemory", "1")
                yield
                await client.config_set("maxmemory", "0")
        case "flushed":
            async with redis.client() as client:
                await client.flushall()
            yield
        case "nonsense":
            redis.kill()
            server = await asyncio.start_server(babble, "127.0.0.1", redis.port)
            async with server:
                yield
            await redis.start()
        case _:
            await fleet.publish_no_more()
            yield
            fleet.publish()


async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers everything, and nothing of it makes sense."""
    said = [
        b"+OK\r\n",
        b"*2\r\n:1\r\n$-1\r\n",
        b"$3\r\nabc\r\n",
        b"HTTP/1.1 400 Bad\r\n\r\n",
        b":7\r\n",
    ]
    try:
        number = 0
        while await reader.read(65536):
            writer.write(said[number % len(said)] * 3)
            number += 1
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.mark.parametrize("which", TROUBLES)
async def test_redis_is_never_needed(make_fleet: MakeFleet, which: str) -> None:
    """What runs is served, what sleeps wakes once, what is revoked ends, what is new is found; then all is as before."""
    fleet = await make_fleet(linked=which == "slow")
    app, sockets = await fleet.app(), await fleet.app(shout)
    running, revoked = fleet.sandbox(app), fleet.sandbox(app)
    talk, kept = fleet.sandbox(sockets), fleet.sandbox(sockets)
    talking, keeping = await tunnel(fleet, talk), await tunnel(fleet, kept)
    sleeping, asleep_later = fleet.sandbox(app, State.PAUSED), fleet.sandbox(app, State.PAUSED)
    for box in (running, revoked):
        assert await fleet.everywhere(box.get()) == [200] * 3
    async with trouble(fleet, which):
        assert await fleet.everywhere(running.get()) == [200] * 3
        await fleet.wakes(sleeping)
        for box in (revoked, talk):
            fleet.plane.change_grant(box.grant, status=GrantStatus.REVOKED)
        # Long before the stale limit (60 s): the control plane is asked, or followed, instead.
        await fleet.until_everywhere(revoked.get(), 401)
        assert await talking.at_end()
        await alive(keeping)
        new = fleet.sandbox(app)
        assert await fleet.everywhere(new.get()) == [200] * 3
        assert await fleet.everywhere(fleet.preview("sb_neverexisted").get()) == [404] * 3
        await fleet.fresh() if which != "flushed" else await fleet.whole()
    await fleet.whole()
    for box in (running, sleeping, new):
        assert await fleet.everywhere(box.get()) == [200] * 3
    assert await fleet.everywhere(revoked.get()) == [401] * 3
    await fleet.wakes(asleep_later)
    await alive(keeping)
    for client in (talking, keeping):
        client.close()


async def test_a_control_plane_that_is_gone_as_well(fleet: FleetStage) -> None:
    """What runs is served on, wakes are refused in time, unknown is not 404; it heals in either order."""
    app = await fleet.app()
    running, sleeping = fleet.sandbox(app), fleet.sandbox(app, State.PAUSED)
    for box in (running, sleeping):
        await fleet.everywhere(box.get())
    await fleet.knows(fleet.plane.pause(sleeping.id))
    fleet.redis.kill()
    await fleet.plane.stop()
    assert await fleet.everywhere(running.get()) == [200] * 3
    answers = await asyncio.gather(*(fleet.at(edge, sleeping.get()) for edge in fleet.edges))
    assert {(answer.status, answer.code) for answer in answers} == {
        (503, "control_plane_unavailable")
    }
    unknown = await fleet.at(fleet.edges[0], fleet.preview("sb_neverexisted").get())
    assert (unknown.status, unknown.code) == (503, "control_plane_unavailable")
    await fleet.plane.start()
    fleet.passed += 2  # what failed just now is not tried again within a second
    await fleet.fresh()
    await fleet.wakes(sleeping)
    await fleet.redis.start()
    await fleet.whole()
    assert await fleet.everywhere(running.get()) == [200] * 3


async def test_news_of_a_control_plane_that_is_gone(fleet: FleetStage) -> None:
    """Up to the stale limit a revocation nobody could hear of does not count, beyond it nothing does; back, it holds."""
    app = await fleet.app()
    running, revoked = fleet.sandbox(app), fleet.sandbox(app)
    for box in (running, revoked):
        assert await fleet.everywhere(box.get()) == [200] * 3
    await fleet.publish_no_more()
    await fleet.plane.stop()
    fleet.plane.change_grant(revoked.grant, status=GrantStatus.REVOKED)
    fleet.passed += 30
    assert await fleet.everywhere(revoked.get()) == [200] * 3
    fleet.passed += 31
    for box in (running, revoked):
        assert await fleet.everywhere(box.get()) == [503] * 3
    await fleet.plane.start()
    fleet.publish()
    await fleet.whole()
    assert await fleet.everywhere(revoked.get()) == [401] * 3
    assert await fleet.everywhere(running.get()) == [200] * 3


@pytest.mark.parametrize("which", ["gone", "flushed"])
async def test_nobody_thunders(fleet: FleetStage, which: str) -> None:
    """What it costs the control plane when Redis goes and comes: one question per edge and record in use, each time."""
    app = await fleet.app()
    boxes = [fleet.sandbox(app) for _ in range(10)]
    for _ in range(2):  # all that is to be known is known
        for box in boxes:
            assert await fleet.everywhere(box.get()) == [200] * 3
    records = 2 * len(boxes) * len(fleet.edges)
    asked = fleet.plane.counts.copy()
    async with trouble(fleet, which):
        for _ in range(3):
            for box in boxes:
                assert await fleet.everywhere(box.get()) == [200] * 3
        await fleet.fresh()
        for box in boxes:
            assert await fleet.everywhere(box.get()) == [200] * 3
        went = fleet.plane.counts - asked
        assert went["sandbox"] + went["grant"] <= 3 * records, went
        asked = fleet.plane.counts.copy()
    await fleet.whole()
    for _ in range(3):
        for box in boxes:
            assert await fleet.everywhere(box.get()) == [200] * 3
    came = fleet.plane.counts - asked
    assert came["sandbox"] + came["grant"] <= records, came
    assert came["events"] <= len(fleet.edges)
