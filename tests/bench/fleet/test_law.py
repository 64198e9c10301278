"""The formula: it tells scripts apart, and nothing that breaks it goes unnoticed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.fleet.law import Stage, background, beyond_rest, broken, most, of_a_wake, work_of

REST = {
    "eval": 32 + 3, "eval_ro": 2 + 1, "multi": 2, "exec": 2, "xread": 8, "xrange": 1,
    "xadd": 32, "get": 32, "info": 32, "xrevrange": 32, "zadd": 3, "zrangebyscore": 2, "type": 3 + 2,
}  # fmt: skip
"""Two heartbeats, read by four edges, three of which join the members."""
WAKE = {
    "eval": 1 + 2 + 1 + 2, "eval_ro": 6 + 2, "multi": 2, "exec": 2, "xread": 8,
    "set": 3 + 1, "pttl": 2, "get": 2 + 1, "hstrlen": 6 + 2, "hget": 8 + 2 * 2, "hset": 2, "persist": 2,
    "xadd": 2, "xrevrange": 8 + 2,
}  # fmt: skip
"""One wake at three edges, one of which leads, while two look on once each; all of them new to three edges."""
CALM = Stage("calm", seconds=1.0, edges=4, requests=100)
WOKEN = Stage("woken", 1.0, 4, 3, wakes=1, asking=3, cold=6, resume_calls=1, longest=0.1)


def sums(*parts: dict[str, int]) -> dict[str, int]:
    """All of them together."""
    return {
        name: sum(part.get(name, 0) for part in parts) for name in {n for p in parts for n in p}
    }


def test_a_fleet_at_rest_and_a_wake_are_lawful() -> None:
    """The counts of both, as the scripts make them, are told apart and accepted."""
    assert broken(CALM, REST) == []
    assert beyond_rest(CALM, REST) == 0
    both = sums(REST, WAKE)
    assert broken(WOKEN, both) == []
    work = work_of(both)
    assert (work.beats, work.joins, work.publishes, work.transactions) == (32, 3, 2, 4)
    assert (work.takes, work.leaves, work.keeps, work.looks) == (3, 1, 0, 8)
    assert beyond_rest(WOKEN, both) - WOKEN.cold == of_a_wake(4, 3, rounds=1)


@pytest.mark.parametrize(
    ("stage", "more", "law"),
    [
        (CALM, {"eval_ro": 1, "hstrlen": 1, "xrevrange": 1}, "a request costs nothing"),
        (CALM, {"eval": 2, "set": 2, "get": 1}, "a request costs nothing"),
        (CALM, {"hgetall": 1}, "does not know"),
        (CALM, {"eval": 1}, "every script is known"),
        (CALM, {"eval_ro": 1}, "every look-up is known"),
        (CALM, {"xread": 50}, "one read per edge and transaction"),
        (WOKEN, {"eval": 2, "set": 2, "get": 1}, "leases lead to calls"),
        (replace(WOKEN, resume_calls=0), {}, "a wake takes a call"),
        (replace(WOKEN, resume_calls=4), {}, "a wake takes a call"),
        (WOKEN, {"eval": 1, "persist": 1, "xadd": 1, "xrevrange": 1}, "changes a wake"),
        (WOKEN, {"eval": 900, "zadd": 900}, "at most"),
    ],
)
def test_whatever_is_beyond_the_formula_is_told(
    stage: Stage, more: dict[str, int], law: str
) -> None:
    """Each law finds what it is for."""
    counted = sums(REST, WAKE, more) if stage.wakes else sums(REST, more)
    assert any(law in one for one in broken(stage, counted)), broken(stage, counted)


def test_a_look_up_that_is_missing_is_told() -> None:
    """Edges that know more than they have asked for, unless they have asked the control plane."""
    stage = replace(WOKEN, cold=7)
    assert any("looks" in one for one in broken(stage, sums(REST, WAKE)))
    assert broken(replace(stage, asked_directly=1), sums(REST, WAKE)) == []


def test_the_formula_in_figures() -> None:
    """Twenty edges cost 151 commands a second, and each wake 48: one for every edge and change, and eight."""
    assert round(background(20)) == 151
    assert of_a_wake(20, 1) == 48
    assert of_a_wake(20, 3, rounds=2) == 56
    assert most(replace(CALM, edges=20)) > background(20)
