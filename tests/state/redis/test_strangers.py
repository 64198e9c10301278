"""What somebody else writes into Redis holds up nothing for long, and stops nobody."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.core.records import SandboxRecord, State
from edge.state.port import Heartbeat, Resync
from edge.state.redis.kinds import SANDBOX
from edge.state.redis.layout import Layout
from tests.state.redis.conftest import Edge, Fleet, Servers, only_single

LAYOUT = Layout("edge")
BOX = SandboxRecord("sb_aaaaaaaa", State.PAUSED, 1, 1, auto_resume=True)
RECORD = LAYOUT.record("sandbox", BOX.id)


async def begun_anew(fleet: Fleet, edge: Edge) -> None:
    """Another process publishes from now on, and the edge has caught up with it."""
    await fleet.stop()
    seen = len(edge.events)
    fleet.renew()
    fleet.start()
    await edge.until(lambda: Resync in map(type, edge.events[seen:]))
    await edge.until(lambda: isinstance(edge.latest, Heartbeat))


@only_single
@pytest.mark.parametrize("value", ["failed:x", "failed:not_found", "done", "0123456789abcdef"])
async def test_a_lease_for_ever_holds_up_no_wake(
    fleet: Fleet, servers: Servers, value: str
) -> None:
    """Neither is its failure believed, nor is anybody waited for: one call, at once."""
    fleet.put(BOX)
    # So long that nobody takes over from a holder who falls silent.
    fleet.settings = fleet.settings.model_copy(update={"lease": 600.0})
    edge = await fleet.edge()
    async with servers.client() as client:
        await client.set(LAYOUT.lease(BOX.id, 1), value)
    assert (await edge.port.resume(BOX.id, 1, "preview", 60)).incarnation == 2
    assert fleet.control.resumed == [BOX.id]


@only_single
@pytest.mark.parametrize("version", ["9000000000000000", "9" * 40])
async def test_a_version_that_nobody_has_said_hides_no_change(
    fleet: Fleet, servers: Servers, version: str
) -> None:
    """Edges hear of each, and ask the control plane for the record; once it begins anew, Redis has it again."""
    edge = await fleet.edge()
    fleet.put(BOX)
    await edge.until(lambda: BOX in edge.changes())
    async with servers.client() as client:
        await client.hset(RECORD, "v", version)
    for number in (2, 3):
        fleet.put(newer := replace(BOX, version=number))
        await edge.until(lambda newer=newer: newer in edge.changes())
        assert await edge.port.sandbox(BOX.id) == newer
    assert fleet.control.asked == [BOX.id] * 2
    await begun_anew(fleet, edge)
    fleet.control.asked.clear()
    assert await edge.port.sandbox(BOX.id) == newer
    assert fleet.control.asked == []


@only_single
@pytest.mark.parametrize("version", [1, 2, 7])
async def test_a_forged_record_does_not_outlive_the_next_beginning(
    fleet: Fleet, servers: Servers, version: int
) -> None:
    """Of the version that is true, or a lower or higher one: for those who have not read it, it is gone."""
    edge = await fleet.edge()
    fleet.put(true := replace(BOX, version=2))
    await edge.until(lambda: true in edge.changes())
    async with servers.client() as client:
        forged = replace(BOX, version=version, previews_disabled=True)
        await client.hset(RECORD, mapping={"v": version, "r": SANDBOX.to_json(forged)})
    assert await edge.port.sandbox(BOX.id) == forged
    await begun_anew(fleet, edge)
    assert await edge.port.sandbox(BOX.id) == true
    assert fleet.control.asked == []


@only_single
async def test_older_news_does_not_come_before_what_there_is(fleet: Fleet) -> None:
    """A change that waits while another publisher has told a later one: what counts is what there is."""
    edge = await fleet.edge()
    fleet.put(newer := replace(BOX, version=3))
    await edge.until(lambda: newer in edge.changes())
    await fleet.stop()
    seen = len(edge.events)
    fleet.renew()
    fleet.publisher.publish(replace(BOX, version=2))
    fleet.publisher.publish(replace(BOX, version=1))
    fleet.start()
    await edge.until(lambda: Resync in map(type, edge.events[seen:]))
    await edge.until(lambda: isinstance(edge.latest, Heartbeat))
    assert await edge.port.sandbox(BOX.id) == newer
    assert edge.changes() == [newer]
    assert fleet.control.asked == []
