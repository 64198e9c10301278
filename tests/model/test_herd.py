"""Many clients on one sleeping sandbox while nothing goes wrong but the first of them leaving."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from plane import CALM
from test_mutants import NobodyIsTold, WakeOfTheCaller
from virtual import Deadlock, VirtualLoop, run
from world import Parts, World, herd

from edge.wake.wakes import Wakes


def play(seed: int, dies_at: int, parts: Parts | None = None) -> tuple[World, bool]:
    """One herd on one or two edges; whether the first client came to leave."""

    async def main(loop: VirtualLoop) -> tuple[World, bool]:
        world = World(loop, seed, CALM, parts or Parts(), edge_count=1 + seed % 2)
        return world, await herd(world, dies_at=dies_at)

    return run(main)


def test_the_first_may_leave_at_every_wait() -> None:
    """Everybody else is served by one launch, wherever the first of them leaves."""
    furthest = 0
    for seed in range(40):
        died, step = True, 0
        while died:
            world, died = play(seed, step)
            assert not world.complaints, world.complaints
            furthest = max(furthest, step)
            step += 1
    assert furthest >= 3, "the first client never got as far as its wake"


class LateRelease(Wakes):
    """Waiters are let go a moment after the sandbox runs."""

    def _end(self, wake: Any, problem: Any) -> None:
        asyncio.get_running_loop().call_later(0.01, super()._end, wake, problem)


@pytest.mark.parametrize("mutant", [WakeOfTheCaller, NobodyIsTold, LateRelease])
def test_a_mutant_is_caught(mutant: type[Wakes]) -> None:
    """A wake that dies with its caller, ends untold or late is caught within a few herds."""
    for seed in range(20):
        for step in range(6):
            try:
                if play(seed, step, Parts(wakes=mutant))[0].complaints:
                    return
            except Deadlock:
                return
    pytest.fail("no invariant was violated")
