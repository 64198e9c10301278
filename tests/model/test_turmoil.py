"""Thousands of histories of edges, clients and a failing control plane; the invariants are in world.py."""

from __future__ import annotations

import os

import pytest
from plane import CALM, Faults
from virtual import VirtualLoop, run
from world import SERVED, Parts, World, turmoil

SEEDS = int(os.environ.get("EDGE_MODEL_SEEDS", "250"))
"""Histories per storm."""

STORMS = {
    "calm": CALM,
    "slow": Faults(slow=0.3),
    "failing": Faults(unavailable=0.25, answer_lost=0.15, refused=0.05),
    "garbled": Faults(duplicate=0.5, overtake=0.5, drop=0.3, delay=0.2),
    "cut": Faults(cut=0.15, resync=0.3, unavailable=0.1, duplicate=0.3),
    "deaf": Faults(deaf=True, unavailable=0.1, slow=0.1),
    "all": Faults(
        0.1, slow=0.1, unavailable=0.1, answer_lost=0.1, refused=0.02, cut=0.05, duplicate=0.3,
        overtake=0.3, drop=0.1, resync=0.2,
    ),
}  # fmt: skip


def history(seed: int, faults: Faults, parts: Parts | None = None, blackout: float = 0.0) -> World:
    """Play one history to its end."""

    async def main(loop: VirtualLoop) -> World:
        world = World(loop, seed, faults, parts or Parts(), edge_count=1 + seed % 2)
        await turmoil(world, blackout=blackout)
        return world

    return run(main)


@pytest.mark.parametrize("storm", STORMS)
def test_invariants_hold(storm: str) -> None:
    """Whatever the control plane and the clients do, every invariant holds in every history."""
    served = asked = 0
    for seed in range(SEEDS):
        world = history(seed, STORMS[storm], blackout=7.0 if seed % 4 == 3 else 0.0)
        assert not world.complaints, world.complaints
        served += world.outcomes[SERVED]
        asked += world.asked
    assert served > asked / 4, "too few were served for the invariants to have had a say"
