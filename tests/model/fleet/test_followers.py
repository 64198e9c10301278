"""Who waits for a wake, at whichever edge, goes on within five milliseconds of the record's change.

In virtual time computing takes none. What is measured is thus what anybody waits for, and that has to be messages
alone, of half a millisecond at most here: a look every now and then, a heartbeat or a pause to be waited out would show.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from edge.core.records import SandboxRecord, State
from edge.core.reports import Role
from edge.state.port import Change
from edge.state.redis import Publisher
from edge.state.redis.following import Following
from edge.wake.wakes import Wakes
from tests.model.fleet.control import Plane
from tests.model.fleet.network import Weather
from tests.model.fleet.scenarios import run, wake
from tests.model.fleet.world import Parts, World

BOUND = 0.005
"""Seconds from the change, where the control plane keeps the record, to the last of those who go on."""
QUICK = Weather(delay=0.0005)
SEEDS = range(40)


def late(
    seed: int,
    parts: Parts = Parts(),  # noqa: B008 - frozen
    *,
    redis: bool = True,
    strike: Callable[[World], None] = lambda _: None,
) -> list[float]:
    """One wake at three edges: how long after the change each of those who waited went on.

    Without ``redis`` it is stopped long before; ``strike`` comes as the resume begins.
    """
    changed: list[float] = []
    went_on: list[float] = []

    class Timed(Plane):
        def set(self, record: SandboxRecord, state: State, **changes: Any) -> SandboxRecord:
            if state is State.RESUMING:
                strike(self.world)
            if state is State.RUNNING:
                changed.append(self.world.loop.time())
            return super().set(record, state, **changes)

    class Waited(parts.wakes):  # type: ignore[name-defined, misc]
        async def settle(self, *record: Any, **how: Any) -> Role:
            role: Role = await super().settle(*record, **how)
            went_on.append(self._clock())
            return role

    async def history(world: World) -> None:
        if not redis:
            world.stop(world.redis, 300.0)
            await asyncio.sleep(3.0)  # they follow the control plane itself by now
        await wake(world)

    parts = replace(parts, plane=Timed, wakes=Waited)
    run(seed, history, edge_count=3, weather=QUICK, parts=parts)
    assert len(changed) == 1
    return [at - changed[0] for at in went_on]


@pytest.mark.parametrize("redis", [True, False])
def test_they_wait_for_messages_and_nothing_else(redis: bool) -> None:
    """The leader's and those of other edges, over Redis, and over the control plane's own events without it."""
    waited = [late(seed, redis=redis) for seed in SEEDS]
    assert {len(one) for one in waited} == {6}
    longest = max(map(max, waited))
    print(f"the last of {6 * len(SEEDS)} who waited: {longest * 1e3:.2f} ms after the change")
    assert longest < BOUND


def test_the_leaders_do_not_wait_for_a_redis_that_hangs() -> None:
    """It hangs as the resume begins: the control plane's answer is enough for those at the edge that got it."""
    for seed in range(0, 40, 2):  # with even ones it is the first edge
        leaders = sorted(late(seed, strike=lambda world: world.stop(world.redis, 10.0)))[:2]
        assert len(leaders) == 2 and leaders[1] < BOUND


class Lingers(Wakes):
    """Lets its waiters go a moment after the change."""

    def _end(self, ended: Any, problem: Any) -> None:
        asyncio.get_running_loop().call_later(0.006, super()._end, ended, problem)


class Gathers(Publisher):
    """Publishes with its heartbeats alone."""

    async def _wait(self) -> None:
        await asyncio.sleep(max(0.0, self._due - self._clock()))


async def _looks_now_and_then(self: Following, *, again: bool) -> Any:
    """Changes are taken up every 20 ms."""
    async for event in OVER_REDIS(self, again=again):
        if isinstance(event, Change):
            await asyncio.sleep(0.02)
        yield event


OVER_REDIS = Following._over_redis


@pytest.mark.parametrize("parts", [Parts(wakes=Lingers), Parts(publisher=Gathers), None])
def test_whoever_waits_for_anything_else_is_caught(
    parts: Parts | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edge that lingers, a publisher that gathers, changes that are looked for now and then."""
    if parts is None:
        monkeypatch.setattr(Following, "_over_redis", _looks_now_and_then)
    assert max(max(late(seed, parts or Parts())) for seed in range(10)) > BOUND
