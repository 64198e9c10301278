"""Remembered failures: of one incarnation, for a moment, in bounded memory."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edge.core.errors import SANDBOX_RESUME_FAILED, SANDBOX_RESUME_TIMEOUT
from edge.core.records import SandboxRecord, State
from edge.wake import failures as module
from edge.wake.failures import Failures
from tests.wake.handclock import Clock

PAUSED = SandboxRecord("sb", State.PAUSED, 4, 1, auto_resume=True)


def test_the_last_failure_is_told_for_a_moment() -> None:
    """Up to the very second, and of this sandbox only; then it is forgotten."""
    clock = Clock()
    failures = Failures(1.0, clock)
    failures.remember(PAUSED, SANDBOX_RESUME_FAILED)
    failures.remember(PAUSED, SANDBOX_RESUME_TIMEOUT)
    clock.now += 0.9
    assert failures.recall(PAUSED) is SANDBOX_RESUME_TIMEOUT
    assert failures.recall(replace(PAUSED, id="other")) is None
    clock.now += 0.1
    assert failures.recall(PAUSED) is None and len(failures) == 0


def test_a_later_execution_is_another_matter() -> None:
    """A failure is of the incarnation that was seen paused."""
    failures = Failures(1.0, Clock())
    failures.remember(PAUSED, SANDBOX_RESUME_FAILED)
    assert failures.recall(replace(PAUSED, incarnation=2)) is None
    assert failures.recall(PAUSED) is SANDBOX_RESUME_FAILED


def test_no_memory_is_none() -> None:
    """``wake.failure_memory`` 0: every request tries anew."""
    failures = Failures(0.0, Clock())
    failures.remember(PAUSED, SANDBOX_RESUME_FAILED)
    assert failures.recall(PAUSED) is None


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A storm over many sandboxes does not fill the memory; what is over goes first."""
    monkeypatch.setattr(module, "MAX_FAILURES", 10)
    clock = Clock()
    failures = Failures(1.0, clock)
    for i in range(50):
        failures.remember(replace(PAUSED, id=f"sb{i}"), SANDBOX_RESUME_FAILED)
        assert len(failures) <= 10
    assert failures.recall(replace(PAUSED, id="sb49")) is SANDBOX_RESUME_FAILED
    clock.now += 1
    failures.remember(PAUSED, SANDBOX_RESUME_FAILED)
    assert len(failures) == 1
