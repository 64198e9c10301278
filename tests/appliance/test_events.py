"""The log of lifecycle events: filters, pages, bound."""

from __future__ import annotations

import uuid

import pytest

from edge.appliance.events import Actor, EventFilter, EventLog, Operation, Status


@pytest.fixture
def log() -> EventLog:
    """Five events, one a second from 1.0 on, of two sandboxes."""
    times = iter([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])
    log = EventLog(lambda: next(times), max_events=5)
    for number in range(5):
        log.emit(
            Operation.CREATE if number % 2 else Operation.DESTROY,
            Status.SUCCEEDED,
            sandbox_id=f"sb_{number % 2}",
            actor=Actor.USER,
            reason="api",
            snapshot_id="snap_1" if number == 4 else None,
        )
    return log


def _times(log: EventLog, wanted: EventFilter, **page: int | bool) -> list[float]:
    events, _ = log.select(wanted, **({"offset": 0, "limit": 9, "ascending": True} | page))  # type: ignore[arg-type]
    return [event.occurred_at for event in events]


@pytest.mark.parametrize(
    ("wanted", "times"),
    [
        (EventFilter(), [1, 2, 3, 4, 5]),
        (EventFilter(sandbox_id="sb_1"), [2, 4]),
        (EventFilter(snapshot_id="snap_1"), [5]),
        (EventFilter(source_sandbox_id="sb_1"), []),
        (EventFilter(target_sandbox_id="sb_1"), []),
        (EventFilter(operation=Operation.CREATE), [2, 4]),
        (EventFilter(status=Status.FAILED), []),
        (EventFilter(since=2.0, until=4.0), [2, 3, 4]),
        (EventFilter(sandbox_id="sb_0", since=2.0), [3, 5]),
    ],
)
def test_filters(log: EventLog, wanted: EventFilter, times: list[float]) -> None:
    """Every part of a filter narrows the list."""
    assert _times(log, wanted) == times


def test_pages_meet_without_gap(log: EventLog) -> None:
    """Pages in either order are cut from one list, and the last one says that it is."""
    assert _times(log, EventFilter(), limit=2) == [1, 2]
    assert _times(log, EventFilter(), limit=2, offset=2) == [3, 4]
    assert _times(log, EventFilter(), limit=2, ascending=False) == [5, 4]
    assert log.select(EventFilter(), offset=3, limit=2, ascending=True)[1] is False
    assert log.select(EventFilter(), offset=2, limit=2, ascending=True)[1] is True


def test_the_oldest_make_room(log: EventLog) -> None:
    """The log is bounded, and ids are UUIDs of their own."""
    log.emit(
        Operation.FORK,
        Status.FAILED,
        sandbox_id="x",
        actor=Actor.SYSTEM,
        reason="",
        error=("c", "m"),
    )
    assert _times(log, EventFilter()) == [2, 3, 4, 5, 6]
    events, _ = log.select(EventFilter(), offset=0, limit=9, ascending=True)
    assert len({uuid.UUID(event.id) for event in events}) == 5
    assert (events[-1].error_code, events[-1].error_message) == ("c", "m")


def test_news_of_an_event_are_for_who_waited_before_it(log: EventLog) -> None:
    """What was taken before an event is set by it; what is taken afterwards waits for the next."""
    before = log.news
    assert not before.is_set()
    log.emit(Operation.CREATE, Status.SUCCEEDED, sandbox_id="sb_1", actor=Actor.USER, reason="api")
    assert before.is_set() and not log.news.is_set()
