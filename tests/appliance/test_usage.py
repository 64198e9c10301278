"""Batches of usage: counted once, whatever arrives how often."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edge.appliance import usage as module
from edge.appliance.store import Store, StoreError
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
    """The same number of the same edge is; one that was overtaken counts, too. Another edge counts for itself."""
    seen = Seen()
    counter = UsageCounter(seen, seen, store)  # type: ignore[arg-type]
    taken = [
        counter.take(_batch(edge, n))
        for edge, n in [("a", 5), ("a", 5), ("a", 4), ("a", 6), ("b", 5)]
    ]
    assert taken == [True, False, True, True, True]
    assert len(seen.counted) == 4
    assert not any(counter.take(_batch("a", n)) for n in (4, 5, 6))


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


def test_a_batch_that_comes_again_after_a_restart_counts_once(store: Store) -> None:
    """The edge never heard that it was counted; numbers of any size."""
    seen = Seen()
    for _ in range(2):
        counter = UsageCounter(seen, seen, store)  # type: ignore[arg-type]
        counter.take(_batch("a", 7))
        counter.take(_batch("b", 10**30))
        counter.take(_batch("a", 5))
    assert seen.counted == [1, 1, 1]
    assert counter.take(_batch("a", 8))


def test_what_cannot_be_counted_is_not_remembered(store: Store) -> None:
    """The same batch is counted when it comes again; a restart does not know of it either."""
    seen = Seen()
    counter = UsageCounter(seen, seen, store)  # type: ignore[arg-type]
    store.write("PRAGMA query_only = ON")
    with pytest.raises(StoreError):
        counter.take(_batch("a", 1))
    store.write("PRAGMA query_only = OFF")
    assert seen.touched == []
    again = UsageCounter(seen, seen, store)  # type: ignore[arg-type]
    assert counter.take(_batch("a", 1)) and again.take(_batch("a", 1))


def test_the_one_silent_for_longest_is_forgotten_also_in_the_file(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """The order of silence outlives a restart."""
    monkeypatch.setattr(module, "MAX_EDGES", 2)
    seen = Seen()
    before = UsageCounter(seen, seen, store)  # type: ignore[arg-type]
    for edge, sequence in [("a", 1), ("b", 1), ("a", 2)]:
        before.take(_batch(edge, sequence))
    after = UsageCounter(seen, seen, store)  # type: ignore[arg-type]
    after.take(_batch("c", 1))
    assert store.read("SELECT edge FROM edges ORDER BY rowid") == [("a",), ("c",)]
    assert not after.take(_batch("a", 2))


def test_a_batch_is_counted_and_remembered_together(store: Store) -> None:
    """When the counting fails, a restart must not take the batch for one that was counted."""
    seen = Seen()

    def fail(_: Sequence[Usage]) -> None:
        raise StoreError("full")

    counter = UsageCounter(seen, seen, store)  # type: ignore[arg-type]
    seen.count = fail  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        counter.take(_batch("a", 1))
    again = Seen()
    assert UsageCounter(again, again, store).take(_batch("a", 1))  # type: ignore[arg-type]
    assert again.counted == [1]


def test_news_are_of_what_counts(store: Store) -> None:
    """A batch that counts sets what was taken before it; a repeat does not."""
    seen = Seen()
    counter = UsageCounter(seen, seen, store)  # type: ignore[arg-type]
    first = counter.news
    counter.take(_batch("a", 1))
    second = counter.news
    counter.take(_batch("a", 1))
    assert first.is_set() and not second.is_set()
