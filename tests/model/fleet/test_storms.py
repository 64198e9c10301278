"""Long histories of a fleet in which anything may happen to anybody; what must hold is in invariants.py."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from world import SERVED

from tests.model.fleet.scenarios import WEATHERS, run, storm
from tests.model.fleet.world import World

FACTOR = int(os.environ.get("FUZZ_FACTOR", "1"))
FIRST = 1000 * random.randrange(1, 10**6) if FACTOR > 1 else 0
"""`make fuzz` plays histories that nobody has played before; the seed is in what is complained of."""
SEEDS = 12 * FACTOR
"""Histories per weather."""


def history(seed: int, weather: str, **how: object) -> World:
    """One history of two or three edges."""
    return run(
        seed, storm, edge_count=2 + seed % 2, weather=WEATHERS[weather],
        refusing=0.05 if seed % 3 == 0 else 0.0, **how,
    )  # fmt: skip


@pytest.mark.parametrize("weather", WEATHERS)
def test_invariants_hold(weather: str) -> None:
    """Processes stop, die and come back, Redis forgets and fails over, messages come late, twice, or not at all."""
    outcomes: Counter[str] = Counter()
    for seed in range(FIRST, FIRST + SEEDS):
        world = history(seed, weather)
        assert not world.complaints, world.complaints
        outcomes += world.outcomes
    served, asked = outcomes[SERVED], outcomes.total()
    assert served > asked / 4, "too few were served for the invariants to have had a say"


def test_a_seed_is_one_history() -> None:
    """Twice the same: else no failure could be looked into."""
    once, again = (history(7, "all") for _ in range(2))
    assert once.loop.time() == again.loop.time()
    assert [one.task.get_name() for one in once.clients] == [
        one.task.get_name() for one in again.clients
    ]
    assert list(once.answered.values()) == list(again.answered.values())
    assert once.outcomes == again.outcomes and once.events == again.events
