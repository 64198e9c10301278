"""The arithmetic of the bench's report."""

from __future__ import annotations

import pytest

from bench.stats import median_ratio, percentile, spread


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (1, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)]
)
def test_percentile_is_the_nearest_rank(percent: float, expected: float) -> None:
    """No interpolation: a percentile is a value that was measured."""
    assert percentile(range(1, 101), percent) == expected


def test_percentile_of_nothing_is_zero() -> None:
    """A run without answers has no latency to tell."""
    assert percentile([], 99) == 0.0


def test_ratios_are_taken_round_by_round() -> None:
    """A round that was slow for both sides does not move the ratio; medians of sums would."""
    assert median_ratio([10.0, 1000.0, 30.0], [20.0, 2000.0, 60.0]) == 0.5


def test_failed_rounds_are_left_out() -> None:
    """A round in which either side failed says nothing about the ratio."""
    assert median_ratio([1.0, None, 3.0], [2.0, 5.0, 0.0]) == 0.5
    assert median_ratio([None], [1.0]) is None


def test_spread_needs_four_rounds() -> None:
    """Quartiles of fewer rounds would be made up."""
    assert spread([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]) is None
    assert spread([1.0, 2.0, 3.0, 4.0], [1.0] * 4) == 1.0
