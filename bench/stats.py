"""The arithmetic of the report."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from statistics import median


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The value below or at which ``percent`` of an ascending sequence lie (nearest rank); 0 of none."""
    if not ordered:
        return 0.0
    return ordered[max(0, ceil(len(ordered) * percent / 100) - 1)]


def median_ratio(
    values: Sequence[float | None], references: Sequence[float | None]
) -> float | None:
    """The median of the ratios round by round, so that what slowed a whole round down cancels out.

    Rounds in which either side is missing or the reference is 0 are left out; None when none is left.
    """
    ratios = [
        value / reference
        for value, reference in zip(values, references, strict=True)
        if value is not None and reference
    ]
    return median(ratios) if ratios else None


def spread(values: Sequence[float | None], references: Sequence[float | None]) -> float | None:
    """How far apart the ratios of the rounds lie: half the distance between the quartiles."""
    ratios = sorted(
        value / reference
        for value, reference in zip(values, references, strict=True)
        if value is not None and reference
    )
    if len(ratios) < 4:
        return None
    return (percentile(ratios, 75) - percentile(ratios, 25)) / 2
