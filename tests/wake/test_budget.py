"""Budgets: all that is allowed and not one more, refilled evenly, in bounded memory."""

from __future__ import annotations

import pytest

from edge.wake import budget as module
from edge.wake.budget import Budget
from tests.wake.handclock import Clock


def test_a_budget_refills_evenly() -> None:
    """All of it at once, then one per sixtieth of an hour; a refusal costs nothing."""
    clock = Clock()
    budget = Budget(60, 3600.0, clock)
    assert sum(budget.spend("g") for _ in range(100)) == 60
    assert not budget.allowed("g")
    assert budget.spend("other")
    clock.now += 61
    assert [budget.spend("g") for _ in range(2)] == [True, False]
    clock.now += 3600
    assert sum(budget.spend("g") for _ in range(100)) == 60


def test_a_budget_of_zero_is_none() -> None:
    """No limit: nothing is counted."""
    budget = Budget(0, 60.0, Clock())
    assert all(budget.spend("g") for _ in range(1000))
    assert budget.allowed("g") and len(budget) == 0


def test_budgets_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker with many addresses does not fill the memory, and full budgets are forgotten first."""
    monkeypatch.setattr(module, "MAX_BUDGETS", 80)
    clock = Clock()
    budget = Budget(1, 60.0, clock)
    for i in range(1000):
        budget.spend(str(i))
        assert len(budget) <= 80
    assert not budget.allowed("999")
    clock.now += 61
    assert all(budget.spend(f"late{i}") for i in range(60))
    assert budget.allowed("999")
