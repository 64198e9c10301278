"""Where a run's numbers begin: above those of every earlier one, whatever the clock says."""

from __future__ import annotations

from itertools import pairwise

from edge.appliance.epoch import RUN, begin_run
from edge.appliance.store import Store


def test_a_run_begins_above_all_that_an_earlier_one_may_have_counted(store: Store) -> None:
    """With a clock that goes on, stands still and is set back."""
    times = [1_700_000_000.0, 1_700_000_001.0, 1_700_000_001.0, 1.0, 1_900_000_000.0]
    starts = [begin_run(store, lambda time=time: time) for time in times]  # type: ignore[misc]
    assert starts[0] == 1_700_000_000_000
    assert all(later >= earlier + RUN for earlier, later in pairwise(starts))
    assert starts[-1] == 1_900_000_000_000


def test_a_new_directory_begins_by_the_clock(store: Store) -> None:
    """An edge that outlived the old one has seen smaller numbers, unless that was restarted very often."""
    assert begin_run(store, lambda: 5.0) == 5000
