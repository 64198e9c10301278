"""Numbers that only grow and may overtake each other: each counts once, in bounded room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.appliance.sequences import MAX_GAPS, Sequences

NUMBERS = st.one_of(st.integers(0, 60), st.integers(0, 10**30))


@given(st.lists(NUMBERS, max_size=40))
def test_each_counts_once_in_whatever_order(numbers: list[int]) -> None:
    """Like a set of all that were taken, also after a restart in between."""
    known, counted = Sequences(), set()
    for number in numbers:
        taken = known.take(number)
        assert (taken is not None) == (number not in counted)
        counted.add(number)
        known = Sequences.parse((taken or known).text())
    assert len(known.gaps) <= len(counted)


def test_there_is_an_end_to_the_gaps() -> None:
    """What is forgotten is the oldest gap, and it is taken for counted."""
    known = Sequences()
    for number in range(1, 2 * MAX_GAPS + 20, 2):
        taken = known.take(number)
        assert taken is not None
        known = taken
    assert len(known.gaps) == MAX_GAPS
    assert known.take(0) is None
    assert known.take(known.highest - 1) is not None


def test_a_file_of_an_earlier_version() -> None:
    """It has the highest number alone: nothing below counts."""
    known = Sequences.parse("7")
    assert known.take(6) is None and known.take(8) == Sequences(8)


@pytest.mark.parametrize("text", ["", "x", "7 3", "7 3-x"])
def test_nonsense(text: str) -> None:
    """A row that is none of ours is an error, and not an empty memory."""
    with pytest.raises(ValueError):
        Sequences.parse(text)
