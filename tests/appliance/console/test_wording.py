"""Words: every event has some, and times read well."""

from __future__ import annotations

import json

import pytest

from edge.appliance.console.wording import (
    MAX_METADATA,
    ago,
    clock,
    event_words,
    machine_time,
    metadata_text,
    outlook,
    reason_words,
    span,
)
from edge.appliance.events import Actor, LifecycleEvent, Operation, Status
from edge.appliance.sandbox import Plan, Sandbox
from edge.core.records import State


def event(operation: Operation, status: Status, actor: Actor, reason: str) -> LifecycleEvent:
    """One event."""
    return LifecycleEvent("1", 0.0, operation, status, actor, "sb_12345678", reason)


@pytest.mark.parametrize(
    ("operation", "status", "actor", "words"),
    [
        (Operation.RESUME_FROM_SNAPSHOT, Status.SUCCEEDED, Actor.SYSTEM, "Woken"),
        (Operation.RESUME_FROM_SNAPSHOT, Status.FAILED, Actor.SYSTEM, "Could not be woken"),
        (Operation.RESUME_FROM_SNAPSHOT, Status.SUCCEEDED, Actor.USER, "Resumed"),
        (Operation.HIBERNATE, Status.SUCCEEDED, Actor.SYSTEM, "Paused"),
        (Operation.FORK, Status.REQUESTED, Actor.USER, "fork: requested"),
    ],
)
def test_events(operation: Operation, status: Status, actor: Actor, words: str) -> None:
    """A wake is told from a resume by who did it; what has no words yet is named as it is."""
    assert event_words(event(operation, status, actor, "x")) == words


@pytest.mark.parametrize(
    ("reason", "words"), [("preview", "for a request"), ("console", "from the console"), ("x", "x")]
)
def test_reasons(reason: str, words: str) -> None:
    """The known ones in words, others as they are."""
    said = event(Operation.DESTROY, Status.SUCCEEDED, Actor.USER, reason)
    assert reason_words(said) == words


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0, "0 s"), (59.9, "59 s"), (60, "1 min"), (7199, "1 h"), (172_800, "2 d")],
)
def test_spans(seconds: float, text: str) -> None:
    """In the largest whole unit, never below nothing."""
    assert span(seconds) == text


def test_times() -> None:
    """Relative, on the reader's clock, and for programs."""
    assert (ago(10.0, 10.5), ago(10.0, 75.0)) == ("just now", "1 min ago")
    assert ago(20.0, 10.0) == "just now"  # the clock was set back
    assert len(clock(0.0)) == len("2026-01-31 14:03:07")
    assert machine_time(0.0) == "1970-01-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("state", "auto", "action", "timeout_at", "text"),
    [
        (State.PAUSED, True, "hibernate", None, "a request wakes it"),
        (State.PAUSED, False, "hibernate", None, "sleeps until it is resumed"),
        (State.RUNNING, True, "hibernate", 190.0, "pauses in 1 min"),
        (State.RUNNING, False, "destroy", 190.0, "ends in 1 min"),
        (State.ERROR, False, "destroy", None, ""),
    ],
)
def test_outlook(
    state: State, auto: bool, action: str, timeout_at: float | None, text: str
) -> None:
    """What happens next, if nobody does anything."""
    plan = Plan("base", 1, 1, "/", {}, auto, None, {}, None, None)
    sandbox = Sandbox("sb_12345678", 1, plan, 0.0, 1000, action, state)  # type: ignore[arg-type]
    sandbox.timeout_at = timeout_at
    assert outlook(sandbox, 100.0) == text


def test_metadata_is_cut() -> None:
    """A short one is whole, a long one says that there is more."""
    assert json.loads(metadata_text({"a": ["ü"]})) == {"a": ["ü"]}
    assert "ü" in metadata_text({"a": "ü"})
    long = metadata_text({"a": "x" * 10_000})
    assert len(long) < MAX_METADATA + 10 and long.endswith("[…]")
