"""One wake by three edges, with each actor struck before each of its steps: no await at which that does harm."""

from __future__ import annotations

import os

import pytest
from world import SERVED

from tests.model.fleet.invariants import REPLACED
from tests.model.fleet.scenarios import Strike, outcome, run, wake
from tests.model.fleet.world import World

SEEDS = range(1 + int(os.environ.get("FUZZ_FACTOR", "1")))
"""With even ones edge-0 has the lease, with odd ones whoever comes first."""


def _stop(name: str, seconds: float) -> Strike:
    return lambda world: world.stop(world.network.actors[name], seconds)


def _kill_edge(world: World) -> None:
    world.kill_edge(world.edges[0])


def _cut_off(one: str, other: str) -> Strike:
    return lambda world: world.cut_off(one, other, 6.0)


STRIKES: dict[str, tuple[str, Strike, float]] = {
    "edge killed": ("edge-0", _kill_edge, REPLACED),
    "edge stopped": ("edge-0", _stop("edge-0", 10.0), REPLACED),
    "edge blinks": ("edge-0", _stop("edge-0", 0.3), REPLACED),
    "edge cut off from the control plane": ("edge-0", _cut_off("edge-0", "plane"), REPLACED),
    "edge cut off from Redis": ("edge-0", _cut_off("edge-0", "redis-0"), REPLACED),
    "Redis stopped": ("redis-0", _stop("redis-0", 10.0), REPLACED),
    "Redis flushed": ("redis-0", lambda world: world.flush(), REPLACED),
    "Redis fails over": ("redis-0", lambda world: world.fail_over(0.05, old_lives=False), REPLACED),
    "control plane killed": ("plane", lambda world: world.kill_plane(1.0), 1.0 + REPLACED),
    "control plane stopped": ("plane", _stop("plane", 2.0), 2.0 + REPLACED),
}
"""What happens, before whose steps, and within how many seconds edges that are well have answered all the same."""


def late(world: World, bound: float) -> list[str]:
    """Clients of edges that are well who were not served in time."""
    return [
        f"{client.edge.name}: {outcome(client)} after {world.answered[id(client)]:.2f} s"
        for client in world.clients
        if client.edge.name != "edge-0" and client.edge.actor.disturbed_at < 0
        if outcome(client) != SERVED or world.answered[id(client)] > bound + 0.4
    ]


@pytest.mark.parametrize("what", STRIKES)
def test_no_step_is_a_bad_moment(what: str) -> None:
    """Every invariant holds wherever it strikes, and those who wait at other edges are served in time."""
    actor, strike, bound = STRIKES[what]
    histories = 0
    for seed in SEEDS:
        steps = run(seed, wake, edge_count=3).steps[actor]
        assert steps > 10, "hardly a step to strike at"
        every = (
            3 if actor == "redis-0" and len(SEEDS) < 5 else 1
        )  # those are commands, all much alike
        for step in range(seed % every, steps, every):
            world = run(seed, lambda one, at=step: wake(one, actor, at, strike), edge_count=3)
            histories += 1
            where = f"{what}, seed {seed}, step {step}"
            assert not world.complaints, (where, world.complaints)
            assert not late(world, bound), (where, late(world, bound))
    print(f"{what}: {histories} histories")


def test_a_resume_that_takes_long_is_asked_for_once() -> None:
    """The record says that it is under way, so nobody loses patience with who has the lease."""
    for seed in range(4):
        world = run(seed, wake, edge_count=3, resuming=(3.0, 3.5))
        assert not world.complaints and set(world.outcomes) == {SERVED}, world.complaints
        assert world.plane.resume_calls == {("sb_a", 1): 1}
