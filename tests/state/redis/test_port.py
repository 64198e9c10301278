"""The edge's port over Redis: what is read there, when the control plane is asked instead, and who wakes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from edge.core.records import SandboxRecord, State
from edge.core.redis_settings import RedisSettings
from edge.state import wire
from edge.state.port import (
    Heartbeat,
    RefusalReason,
    ResumeRefused,
    Resync,
    StatePort,
    Unavailable,
    UsageBatch,
)
from edge.state.redis import RedisStatePort, scripts
from edge.state.redis.layout import MAX_RECORD, Layout
from tests.state.redis.conftest import Fleet, Servers, hasty, only_single

BOX = SandboxRecord("sb_aaaaaaaa", State.PAUSED, 1, 1, auto_resume=True)
KEY = Layout("edge").record("sandbox", BOX.id)


def test_the_adapter_is_complete() -> None:
    """It has every method of `StatePort`."""
    asked = {name for name in vars(StatePort) if not name.startswith("_")}
    assert asked <= set(vars(RedisStatePort))


async def test_records_are_read_from_redis(fleet: Fleet) -> None:
    """Once the edge has caught up, the control plane is not asked."""
    fleet.put(BOX)
    edge = await fleet.edge()
    await edge.until(lambda: BOX in edge.changes() or isinstance(edge.latest, Heartbeat))
    assert await edge.port.sandbox(BOX.id) == BOX
    assert fleet.control.asked == []


async def test_a_miss_is_asked_about(fleet: Fleet) -> None:
    """What Redis has not may exist all the same."""
    edge = await fleet.edge()
    fleet.control.records["sb_late0000"] = late = replace(BOX, id="sb_late0000")
    assert await edge.port.sandbox("sb_late0000") == late
    assert await edge.port.sandbox("sb_never000") is None
    assert await edge.port.grant("pvg_never") is None
    assert fleet.control.asked == ["sb_late0000", "sb_never000", "pvg_never"]


@only_single
async def test_before_the_first_heartbeat_redis_is_not_believed(fleet: Fleet) -> None:
    """A record there may be of yesterday."""
    fleet.put(BOX)
    first = await fleet.edge()
    await first.until(lambda: isinstance(first.latest, Heartbeat))
    stranger = await fleet.edge("edge-2", follow=False)
    assert await stranger.port.sandbox(BOX.id) == BOX
    assert fleet.control.asked == [BOX.id]


@only_single
@pytest.mark.parametrize(
    "nonsense",
    [b"", b"{}", b"\xff\xfe", b"[" * 5000, wire.sandbox_to_json(replace(BOX, id="sb_other000"))],
)
async def test_nonsense_in_a_record(fleet: Fleet, servers: Servers, nonsense: bytes) -> None:
    """A record that cannot be read, or is of another sandbox, is asked of the control plane."""
    fleet.put(BOX)
    edge = await fleet.edge()
    async with servers.client() as client:
        await client.hset(KEY, "r", nonsense)
    assert await edge.port.sandbox(BOX.id) == BOX
    assert fleet.control.asked == [BOX.id]


@only_single
async def test_a_key_of_another_type_or_size(fleet: Fleet, servers: Servers) -> None:
    """The control plane is asked, and no megabytes are read."""
    fleet.put(BOX)
    edge = await fleet.edge()
    async with servers.client() as client:
        await client.hset(KEY, "r", b" " * MAX_RECORD + wire.sandbox_to_json(BOX))
        assert await edge.port.sandbox(BOX.id) == BOX
        await client.set(KEY, "x")
        assert await edge.port.sandbox(BOX.id) == BOX
    assert fleet.control.asked == [BOX.id] * 2


@hasty
async def test_redis_gone_slow_and_back(fleet: Fleet, servers: Servers) -> None:
    """The control plane is asked meanwhile; afterwards Redis again, when everything is there again."""
    fleet.put(BOX)
    edge = await fleet.edge()
    servers.freeze()
    assert await edge.port.sandbox(BOX.id) == BOX
    assert BOX.id in fleet.control.asked
    servers.kill()
    assert await edge.port.sandbox(BOX.id) == BOX
    await edge.until(lambda: edge.failures > 0)
    told = len(edge.events)
    await servers.start()
    await edge.until(lambda: isinstance(edge.latest, Heartbeat) and len(edge.events) > told)
    assert any(isinstance(event, Resync) for event in edge.events[told:])
    await fleet.believed(edge, BOX)
    await edge.until(lambda: "redis_back" in fleet.told)
    assert "redis_gone" in fleet.told


@only_single
@hasty
async def test_no_heartbeat_no_belief(fleet: Fleet, servers: Servers) -> None:
    """With the publisher stopped, what Redis holds grows old; it is not served as news."""
    fleet.put(BOX)
    edge = await fleet.edge()
    await fleet.stop()
    fleet.control.records[BOX.id] = newer = replace(BOX, version=2, state=State.RUNNING)
    await edge.until(lambda: edge.failures > 0)
    assert await edge.port.sandbox(BOX.id) == newer


# --- waking ---------------------------------------------------------------------------------------------


async def test_of_many_edges_one_asks(fleet: Fleet) -> None:
    """The others get the record that came of it."""
    fleet.put(BOX)
    fleet.settings = fleet.settings.model_copy(update={"lease": 20.0})
    edges = [await fleet.edge(f"edge-{n}") for n in range(5)]
    fleet.control.gate.clear()
    async with asyncio.TaskGroup() as group:
        resumes = [group.create_task(edge.port.resume(BOX.id, 1, "preview", 20)) for edge in edges]
        async with asyncio.timeout(20):
            while not fleet.control.resumed:  # noqa: ASYNC110 - the control plane has no event
                await asyncio.sleep(0.01)
        fleet.control.gate.set()
    assert {resume.result().incarnation for resume in resumes} == {2}
    assert fleet.control.resumed == [BOX.id]


@only_single
async def test_a_refusal_is_told_to_all(fleet: Fleet) -> None:
    """One attempt of one edge fails the wakes of all edges, with its reason."""
    fleet.put(BOX)
    edges = [await fleet.edge(f"edge-{n}") for n in range(3)]
    fleet.control.refusal = ResumeRefused(RefusalReason.FAILED)
    results = await asyncio.gather(
        *(edge.port.resume(BOX.id, 1, "preview", 20) for edge in edges), return_exceptions=True
    )
    assert [getattr(result, "reason", None) for result in results] == [RefusalReason.FAILED] * 3
    assert fleet.control.resumed == [BOX.id]


async def test_a_window_that_ends_is_ones_own(fleet: Fleet) -> None:
    """One edge's caller has waited long enough; another's has not, and goes on."""
    fleet.put(BOX)
    late, early = await fleet.edge("edge-1"), await fleet.edge("edge-2")
    fleet.control.gate.clear()
    resume = fleet.control.resume

    async def in_vain(*asked: Any) -> SandboxRecord:
        fleet.control.resume = resume  # type: ignore[method-assign]
        fleet.control.resumed.append(asked[0])
        await fleet.control.gate.wait()
        raise ResumeRefused(RefusalReason.TIMEOUT)

    fleet.control.resume = in_vain  # type: ignore[method-assign]
    loop = asyncio.get_running_loop()
    leading = loop.create_task(late.port.resume(BOX.id, 1, "preview", 20))
    async with asyncio.timeout(20):
        while not fleet.control.resumed:  # noqa: ASYNC110 - the control plane has no event
            await asyncio.sleep(0.01)
    following = loop.create_task(early.port.resume(BOX.id, 1, "preview", 20))
    fleet.control.gate.set()
    with pytest.raises(ResumeRefused):
        await leading
    assert (await following).incarnation == 2


async def test_who_falls_silent_is_replaced(fleet: Fleet) -> None:
    """A leader that dies in the middle: its lease ends, another asks."""
    fleet.put(BOX)
    leader, follower = await fleet.edge("edge-1"), await fleet.edge("edge-2")
    fleet.control.gate.clear()
    loop = asyncio.get_running_loop()
    leading = loop.create_task(leader.port.resume(BOX.id, 1, "preview", 20))
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        while not fleet.control.resumed:  # noqa: ASYNC110 - the control plane has no event
            await asyncio.sleep(0.01)
    # It dies without a word: neither renews nor gives back.
    await leader.port._connection.close()
    leader.port._connection._settings = dead = RedisSettings(url=SecretStr("redis://127.0.0.1:1"))
    leader.port._connection._url = dead.url.get_secret_value()
    following = loop.create_task(follower.port.resume(BOX.id, 1, "preview", 20))
    async with asyncio.timeout(20):
        while len(fleet.control.resumed) < 2:  # noqa: ASYNC110 - the control plane has no event
            await asyncio.sleep(0.01)
    fleet.control.gate.set()
    assert (await following).incarnation == (await leading).incarnation == 2


@only_single
async def test_a_leader_that_does_not_get_through_is_not_waited_for(fleet: Fleet) -> None:
    """It renews its lease and hears nothing from the control plane: another asks as well."""
    fleet.put(BOX)
    leader, follower = await fleet.edge("edge-1"), await fleet.edge("edge-2")
    fleet.control.gate.clear()
    loop = asyncio.get_running_loop()
    both = [
        loop.create_task(one.port.resume(BOX.id, 1, "preview", 30)) for one in (leader, follower)
    ]
    async with asyncio.timeout(20):
        while len(fleet.control.resumed) < 2:  # noqa: ASYNC110 - the control plane has no event
            await asyncio.sleep(0.01)
    fleet.control.gate.set()
    assert [(await one).incarnation for one in both] == [2, 2]


@only_single
async def test_waiting_for_others_ends(fleet: Fleet, servers: Servers) -> None:
    """A lease that somebody holds for ever does not hold us for ever."""
    fleet.put(BOX)
    fleet.settings = fleet.settings.model_copy(update={"lease": 60.0})
    edge = await fleet.edge()
    async with servers.client() as client:
        await client.set(Layout("edge").lease(BOX.id, 1), "0123456789abcdef", ex=60)
    with pytest.raises(Unavailable):
        await edge.port.resume(BOX.id, 1, "preview", 0.3)
    assert fleet.control.resumed == []


@hasty
async def test_a_redis_that_hangs_holds_up_no_wake_twice(fleet: Fleet, servers: Servers) -> None:
    """The first command tells; the lease is neither waited for again nor given back. Later it is not even tried."""
    fleet.put(BOX)
    edge = await fleet.edge()
    commands: list[str] = []
    run = edge.port._connection.run

    async def counted(script: str, *arguments: Any) -> Any:
        commands.append(script)
        return await run(script, *arguments)

    edge.port._connection.run = counted  # type: ignore[method-assign]
    servers.freeze()
    assert (await edge.port.resume(BOX.id, 1, "preview", 20)).incarnation == 2
    assert commands == [scripts.TAKE]
    await edge.until(lambda: edge.failures > 0)
    assert (await edge.port.resume(BOX.id, 1, "preview", 20)).incarnation == 2
    assert commands == [scripts.TAKE]
    servers.thaw()


async def test_without_redis_everybody_asks(fleet: Fleet, servers: Servers) -> None:
    """With Redis gone a resume goes straight to the control plane: the lease is no condition."""
    fleet.put(BOX)
    edge = await fleet.edge()
    servers.kill()
    assert (await edge.port.resume(BOX.id, 1, "preview", 20)).incarnation == 2


# --- usage, acks, membership ----------------------------------------------------------------------------


async def test_usage_waits_in_redis_for_a_control_plane_that_is_away(
    fleet: Fleet, servers: Servers
) -> None:
    """Where it can take it, it gets it directly."""
    edge = await fleet.edge()
    await edge.port.report(UsageBatch("edge-1", 1, ()))
    fleet.control.gone = True
    await edge.port.report(UsageBatch("edge-1", 2, ()))
    assert [batch.sequence for batch in fleet.control.reports] == [1]
    async with servers.client() as client:
        [(_, fields)] = await client.xrange(Layout("edge").batches)
    assert wire.usage_from_json(fields[b"u"]).sequence == 2
    servers.kill()
    with pytest.raises(Unavailable):
        await edge.port.report(UsageBatch("edge-1", 3, ()))


@only_single
async def test_acks_go_to_the_control_plane(fleet: Fleet) -> None:
    """Even with Redis at hand: only the control plane counts who has answered its pause."""
    edge = await fleet.edge(follow=False)
    await edge.port.ack(BOX.id, 3, 0)
    assert fleet.control.asked == [f"ack {BOX.id}"]


async def test_who_follows_is_a_member(fleet: Fleet) -> None:
    """The publisher knows of an edge that follows with its next heartbeat."""
    edge = await fleet.edge("edge-7")
    beats = len(edge.events)
    await edge.until(lambda: len(edge.events) > beats + 1)
    assert fleet.publisher.members == {"edge-7"}
