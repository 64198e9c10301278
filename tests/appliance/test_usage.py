"""Batches of usage: counted once, whatever arrives how often."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edge.appliance import usage as module
from edge.appliance.store import Store
from edge.appliance.usage import UsageCounter
from edge.state.port import Usage, UsageBatch


class Seen:
    """In the place of grants and sandboxes: what was handed on."""

    def __init__(self) -> None:
        self.counted: list[int] = []
        self.touched: list[str] = []

    def count(self, reported: Sequence[Usage]) -> None:
        self.counted += [item.requests for item in reported]

    def touch(self, sandbox_id: str) -> None:
        self.touched.append(sandbox_id)


def _batch(edge: str, sequence: int, requests: int = 1, active: bool = True) -> UsageBatch:
    return UsageBatch(edge, sequence, (Usage("sb_1", "pvg_1", requests=requests, active=active),))


def test_a_repeat_counts_once(store: Store) -> None:
    """Equal and lower sequence numbers of the same edge are old; another edge counts for itself."""
    seen = Seen()
    counter = UsageCounter(seen, seen, store)  # type: ignore[arg-type]
    taken = [
        counter.take(_batch(edge, n))
        for edge, n in [("a", 5), ("a", 5), ("a", 4), ("a", 6), ("b", 5)]
    ]
    assert taken == [True, False, False, True, True]
    assert len(seen.counted) == 3
    assert not counter.take(_batch("a", 5))


def test_only_activity_postpones(store: Store) -> None:
    """A report of an error without traffic does not keep a sandbox awake."""
    seen = Seen()
    counter = UsageCounter(seen, seen, store)  # type: ignore[arg-type]
    counter.take(_batch("a", 1, active=False))
    assert seen.touched == []
    counter.take(_batch("a", 2))
    assert seen.touched == ["sb_1"]


def test_the_number_of_edges_is_bounded(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """The edge silent for longest is forgotten, not the one that just spoke."""
    monkeypatch.setattr(module, "MAX_EDGES", 2)
    seen = Seen()
    counter = UsageCounter(seen, seen, store)  # type: ignore[arg-type]
    for edge in ("a", "b", "a", "c"):
        counter.take(_batch(edge, 1))
    assert not counter.take(_batch("a", 1))
    assert counter.take(_batch("b", 1))
