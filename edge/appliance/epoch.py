"""Where the numbers of a run begin: the feed's cursors and the versions of records.

Edges go on while the control plane restarts, and believe the higher number. So each run begins above all
that an earlier one may have told them, also what a power cut took out of the file.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.appliance.store import Store

RUN = 10**9
"""More than a run ever counts."""

_TABLE = "CREATE TABLE IF NOT EXISTS runs (start INTEGER NOT NULL)"


def has_run(store: Store) -> bool:
    """Whether there was a run before. Ask before `begin_run`."""
    store.declare(_TABLE)
    return bool(store.read("SELECT count(*) FROM runs")[0][0])


def begin_run(store: Store, wall: Callable[[], float]) -> int:
    """The number below all of this run. ``wall`` is Unix time in seconds.

    By the clock, in milliseconds, so that a data directory begun anew is above the old one, too; by what
    the file says, because clocks are set back. Raises `StoreError`.
    """
    store.declare(_TABLE)
    starts = store.read("SELECT max(start) FROM runs")
    start = int(wall() * 1000)
    if (last := starts[0][0]) is not None:
        start = max(start, last + RUN)
    with store.transaction():
        store.write("DELETE FROM runs")
        store.write("INSERT INTO runs VALUES (?)", (start,))
    return start
