"""The log of lifecycle events: filters, pages, bounds, and that it outlives the process."""

from __future__ import annotations

import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from edge.appliance.events import (
    MAX_AGE,
    SWEEP,
    Actor,
    EventFilter,
    EventLog,
    LifecycleEvent,
    Operation,
    Status,
)
from edge.appliance.store import Store, StoreError

ALL = EventFilter()


class Clock:
    """Time that goes on by a second with every look, or as the test says."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def emit(log: EventLog, number: int = 0) -> None:
    """An event that says its number."""
    log.emit(
        Operation.CREATE if number % 2 else Operation.DESTROY,
        Status.SUCCEEDED,
        sandbox_id=f"sb_{number % 2}",
        actor=Actor.USER,
        reason="api",
        snapshot_id="snap_1" if number == 4 else None,
        metadata={"number": number},
    )


def numbers(log: EventLog) -> list[object]:
    """What is kept, oldest first."""
    events, _ = log.select(ALL, offset=0, limit=10_000, ascending=True)
    return [event.metadata["number"] for event in events]


@pytest.fixture
def log(store: Store) -> EventLog:
    """Five events, one a second from 1.0 on, of two sandboxes."""
    log = EventLog(store, Clock(), max_events=5)
    for number in range(5):
        emit(log, number)
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


def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    """Every field, the order, and the numbers go on behind the last one."""
    store = Store(tmp_path / "state.sqlite")
    log = EventLog(store, Clock())
    log.emit(
        Operation.RESUME_FROM_SNAPSHOT,
        Status.FAILED,
        sandbox_id="sb_a",
        actor=Actor.SYSTEM,
        reason="preview",
        snapshot_id="snap_a",
        source_sandbox_id="sb_b",
        target_sandbox_id="sb_c",
        error=("code", "A sentence."),
        metadata={"deep": [{"n": 1.5}, None, True, "\u00e9\ud800"]},
    )
    emit(log, 1)
    before = log.select(ALL, offset=0, limit=9, ascending=True)
    store.close()
    store = Store(tmp_path / "state.sqlite")
    log = EventLog(store, Clock())
    assert log.select(ALL, offset=0, limit=9, ascending=True) == before
    assert before[0][0] == LifecycleEvent(
        id=before[0][0].id,
        occurred_at=1.0,
        operation=Operation.RESUME_FROM_SNAPSHOT,
        status=Status.FAILED,
        actor=Actor.SYSTEM,
        sandbox_id="sb_a",
        reason="preview",
        snapshot_id="snap_a",
        source_sandbox_id="sb_b",
        target_sandbox_id="sb_c",
        error_code="code",
        error_message="A sentence.",
        metadata={"deep": [{"n": 1.5}, None, True, "\u00e9\ud800"]},
    )
    assert log.head == 2
    emit(log, 2)
    assert [number for number, _ in log.after(1, ALL, 9)[0]] == [2, 3]
    store.close()


def test_kill_9_loses_no_event_that_was_told(tmp_path: Path) -> None:
    """A process that tells the ids of its events and is killed at once."""
    path = tmp_path / "state.sqlite"
    script = (
        "import os, signal, pathlib, time\n"
        "from edge.appliance.events import EventFilter, EventLog\n"
        "from edge.appliance.store import Store\n"
        "from tests.appliance.test_events import emit\n"
        f"log = EventLog(Store(pathlib.Path({str(path)!r})), time.time)\n"
        "for n in range(1000):\n"
        "    emit(log, n)\n"
        "    print(log.after(log.head - 1, EventFilter(), 1)[0][0][1].id, flush=True)\n"
        "    if n == 123: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = Store(path)
    events, _ = EventLog(store, lambda: 0.0).select(ALL, offset=0, limit=500, ascending=True)
    assert [event.id for event in events] == done.stdout.split()
    assert len(events) == 124
    store.close()


def test_an_event_of_a_transaction_that_fails_never_was(store: Store) -> None:
    """Its number is given again, and nobody who follows has stood on it."""
    log = EventLog(store, Clock(), max_events=2)
    emit(log, 1)
    emit(log, 2)

    def fails() -> None:
        with store.transaction():
            emit(log, 3)
            emit(log, 4)
            raise ValueError

    with pytest.raises(ValueError):
        fails()
    assert (numbers(log), log.floor, log.head) == ([1, 2], 0, 2)
    emit(log, 5)
    assert (numbers(log), log.floor, log.head) == ([2, 5], 1, 3)


def test_what_is_too_old_goes_from_the_front_and_leaves_no_hole(store: Store) -> None:
    """By age, at most once a minute; an old one behind a young one stays, or there would be a gap."""
    clock = Clock()
    log = EventLog(store, clock)
    for number, age in enumerate((MAX_AGE + 2 * SWEEP, MAX_AGE + SWEEP, 9.0, MAX_AGE + SWEEP, 1.0)):
        clock.now = 2 * MAX_AGE - age
        emit(log, number)
    clock.now = 2 * MAX_AGE
    assert numbers(log) == [2, 3, 4]
    assert (log.floor, log.head) == (2, 5)
    clock.now = 4 * MAX_AGE
    assert log.number("never was") is None
    assert (numbers(log), log.floor, log.head) == ([], 5, 5)
    emit(log, 5)
    assert (log.floor, log.head) == (5, 6)


def test_a_disk_that_is_full_is_still_read(store: Store) -> None:
    """What is too old stays a while longer then; and an event that cannot be written wakes nobody."""
    clock = Clock()
    log = EventLog(store, clock)
    emit(log, 1)
    clock.now = 2 * MAX_AGE
    store.read("PRAGMA query_only = ON")
    news = log.news
    assert numbers(log) == [1]
    assert log.number("never was") is None
    with pytest.raises(StoreError):
        emit(log, 2)
    assert not news.is_set()
    store.read("PRAGMA query_only = OFF")
    clock.now += SWEEP
    assert numbers(log) == []


def test_old_events_are_gone_when_the_next_run_starts(tmp_path: Path) -> None:
    """Without an event of its own; and the numbers do not begin anew."""
    store = Store(tmp_path / "state.sqlite")
    emit(EventLog(store, lambda: 0.0), 1)
    store.close()
    store = Store(tmp_path / "state.sqlite")
    log = EventLog(store, lambda: MAX_AGE + 1)
    assert numbers(log) == []
    assert log.head == log.floor == 1
    store.close()


def test_cursors(log: EventLog) -> None:
    """The number of an event that is kept; None for one that went, never was, or cannot be."""
    events, _ = log.select(ALL, offset=0, limit=9, ascending=True)
    assert [log.number(event.id) for event in events] == [1, 2, 3, 4, 5]
    emit(log, 5)
    assert log.number(events[0].id) is None
    assert log.number(events[1].id) == 2
    for never in (str(uuid.uuid4()), "", "1", "\ud800", "'; DROP TABLE events"):
        assert log.number(never) is None


def test_looking_on(log: EventLog) -> None:
    """Behind a number: the next ones asked for, and up to where was looked, so that nothing is looked at twice."""
    found, reached = log.after(1, ALL, 2)
    assert ([number for number, _ in found], reached) == ([2, 3], 3)
    found, reached = log.after(3, ALL, 9)
    assert ([number for number, _ in found], reached) == ([4, 5], 5)
    assert log.after(0, EventFilter(sandbox_id="sb_no"), 9) == ([], 5)
    assert log.after(5, ALL, 9) == ([], 5)
    assert [n for n, _ in log.before(4, EventFilter(sandbox_id="sb_1"), 9)] == [4, 2]
    assert [n for n, _ in log.before(5, ALL, 1, offset=3)] == [2]


def test_news_is_set_by_the_next_event_only(log: EventLog) -> None:
    """Whoever took it before an event is woken by it; whoever takes it then waits for the next one."""
    news = log.news
    assert not news.is_set()
    emit(log)
    assert news.is_set()
    assert not log.news.is_set()


@pytest.mark.parametrize("text", ["\ud800", "a\0b", "x" * 100_000])
def test_text_that_matches_nothing(log: EventLog, text: str) -> None:
    """Whatever a client asks for is a question with an answer; and what an edge gives as a reason can be written."""
    assert log.select(EventFilter(sandbox_id=text), offset=0, limit=9, ascending=True) == (
        [],
        False,
    )
    log.emit(Operation.CREATE, Status.SUCCEEDED, sandbox_id="sb_x", actor=Actor.SYSTEM, reason=text)
    assert (
        len(log.select(EventFilter(sandbox_id="sb_x"), offset=0, limit=9, ascending=True)[0]) == 1
    )
