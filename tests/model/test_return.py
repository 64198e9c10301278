"""Who lost the control plane or Redis tries again more and more rarely, and each at a moment of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from itertools import pairwise
from typing import Any

import pytest
from virtual import VirtualLoop, run
from world import Notes

from edge.core.records import SandboxRecord, State
from edge.core.settings import AdmissionSettings, CatalogSettings, RedisSettings, WakeSettings
from edge.state.port import Unavailable
from edge.state.redis import Publisher, publisher
from edge.state.redis.connect import RedisGone
from edge.state.redis.following import FIRST_LOOK, Following
from edge.wake.admission import Admission
from edge.wake.barrier import Barrier
from edge.wake.catalog import Catalog
from edge.wake.scope import Scope
from edge.wake.usage import UsageReporter
from edge.wake.wakes import Wakes
from edge.wake.watch import Watch

FLEET = 20
ENOUGH = 60.0
"""Seconds of it being away."""
PAUSED = SandboxRecord("sb", State.PAUSED, 1, 1, auto_resume=True)
PAUSING = SandboxRecord("sb", State.PAUSING, 2, 1, auto_resume=True)


class Dead:
    """The way to what is gone: notes when it is tried. All it still has is one record."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.tries: list[float] = []

    def tried(self) -> None:
        self.tries.append(self.loop.time())

    async def fails(self, *_: Any) -> Any:
        self.tried()
        raise Unavailable("gone")

    grant = resume = ack = report = fails

    async def sandbox(self, _: str) -> SandboxRecord:
        return PAUSED

    async def watch(self, _: int | None) -> AsyncIterator[Any]:
        self.tried()
        raise Unavailable("gone")
        yield


def watches(dead: Dead, _: Scope) -> Coroutine[Any, Any, None]:
    """Following the control plane."""
    return Watch(dead, Catalog.__new__(Catalog), silence=5.0, observer=Notes()).run()


def looks(dead: Dead, _: Scope) -> Coroutine[Any, Any, None]:
    """Looking whether Redis is back, while the control plane is followed."""

    class Looking(Following):
        async def _redis_is_back(self) -> bool:
            dead.tried()
            return False

    looking = Looking.__new__(Looking)
    looking._delay = FIRST_LOOK
    return looking._look(asyncio.Queue())


def publishes(dead: Dead, _: Scope) -> Coroutine[Any, Any, None]:
    """Publishing to Redis."""

    class Gone:
        def __init__(self, _: RedisSettings) -> None:
            pass

        async def run_all(self, *_: Any) -> Any:
            dead.tried()
            raise RedisGone("gone")

        async def close(self) -> None:
            """Nothing to close."""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publisher, "Connection", Gone)
        settings = RedisSettings.model_validate({"url": "redis://gone"})
        return Publisher(settings, list, wall=dead.loop.time, log=lambda *_, **__: None).run()


def reports(dead: Dead, _: Scope) -> Coroutine[Any, Any, None]:
    """Reporting usage."""
    clock = dead.loop.time
    reporter = UsageReporter(dead, edge_id="edge", clock=clock, wall=clock)
    reporter.note("sb", "g", requests=1)
    return reporter.run()


async def _catalog(dead: Dead) -> Catalog:
    settings = CatalogSettings(fresh=1000, stale_after=1000, stale_limit=2000)
    catalog = Catalog(dead, settings, clock=dead.loop.time, observer=Notes())
    await catalog.look_up_sandbox("sb")
    catalog.hear_heartbeat()
    return catalog


async def wakes(dead: Dead, scope: Scope) -> None:
    """Resuming a sandbox for which somebody waits."""
    made = Wakes(
        dead, await _catalog(dead), WakeSettings(), spend_wake=lambda _: True, scope=scope,
        clock=dead.loop.time, observer=Notes(),
    )  # fmt: skip
    await made.settle(PAUSED, grant_id="g", woken_by="", deadline=dead.loop.time() + 20)


async def answers(dead: Dead, scope: Scope) -> None:
    """Answering before a pause for inactivity."""
    catalog = await _catalog(dead)
    admission = Admission(AdmissionSettings(), WakeSettings(), clock=dead.loop.time)
    Barrier(dead, catalog, admission, scope=scope, observer=Notes())
    catalog.hear_change(PAUSING)


@pytest.mark.parametrize("again", [watches, looks, publishes, reports, wakes, answers])
def test_nobody_comes_back_at_the_same_moment(
    again: Callable[[Dead, Scope], Coroutine[Any, Any, None]],
) -> None:
    """Twenty that begin in the same instant: from the second try on each has a moment of its own, ever later."""

    async def main(loop: VirtualLoop) -> list[list[float]]:
        ways = [Dead(loop) for _ in range(FLEET)]
        scope = Scope(lambda *_: None)
        tasks = [loop.create_task(again(way, scope)) for way in ways]
        await asyncio.sleep(ENOUGH)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await scope.close()
        return [way.tries for way in ways]

    fleet = run(main)
    least = min(map(len, fleet))
    assert least > 4
    for tries in zip(*(one[1:least] for one in fleet), strict=True):
        assert (
            len(set(tries)) > FLEET / 2
        )  # two may meet by chance: moments are a microsecond long here
    for tries in fleet:
        pauses = [later - earlier for earlier, later in pairwise(tries)]
        assert max(pauses) > 3 * pauses[0]
        assert len(tries) < ENOUGH
