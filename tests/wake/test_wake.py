"""One wake's phases and its report."""

from __future__ import annotations

from scriptedport import sandbox

from edge.core.errors import SANDBOX_RESUME_TIMEOUT
from edge.core.records import State
from edge.wake.wake import Wake


def wake(told: list[Wake]) -> Wake:
    """A wake begun at 10 and resumed at 12."""
    made = Wake(sandbox(3, State.PAUSED), 10.0, "GET /", told.append)
    made.resumed_at = 12.0
    return made


def test_phases_are_the_times_between() -> None:
    """Each phase is measured from where the report's texts say, and told at the first byte."""
    told: list[Wake] = []
    one = wake(told)
    one.joined = 4
    one.listening(12.5)
    one.dispatched(12.75)
    assert told == []
    one.first_byte(14.0)
    report = told[0].report()
    assert (report.resume, report.listen, report.dispatch, report.first_byte) == (
        2,
        0.5,
        0.75,
        1.25,
    )
    assert (report.sandbox_id, report.outcome, report.woken_by) == ("sb", "ok", "GET /")
    assert report.waiters == 4


def test_the_first_telling_counts() -> None:
    """Later exchanges of the same wake change nothing, and it is told once."""
    told: list[Wake] = []
    one = wake(told)
    for at in (13.0, 14.0, 15.0):
        one.listening(at)
        one.dispatched(at)
        one.first_byte(at)
    report = one.report()
    assert (report.listen, report.dispatch, report.first_byte) == (1, 1, 0)
    assert told == [one]


def test_phases_not_reached_are_none() -> None:
    """A wake that got nowhere has no times."""
    report = Wake(sandbox(3, State.PAUSED), 10.0, "GET /", lambda _: None).report()
    assert (report.resume, report.listen, report.dispatch, report.first_byte) == (None,) * 4


def test_a_port_that_refuses_beside_one_that_accepts_is_no_failure() -> None:
    """The sandbox came up; that somebody asked for another port does not change it."""
    told: list[Wake] = []
    one = wake(told)
    one.listening(13.0)
    one.failed(SANDBOX_RESUME_TIMEOUT)
    assert one.outcome == "ok" and not told


def test_an_app_that_never_accepts_is_told_as_failed() -> None:
    """Resumed and not listening is no success; the waiters' own outcome is not touched by it."""
    told: list[Wake] = []
    one = wake(told)
    one.failed(SANDBOX_RESUME_TIMEOUT)
    one.failed(SANDBOX_RESUME_TIMEOUT)
    assert [w.report().outcome for w in told] == ["sandbox_resume_timeout"]
    assert one.problem is None
    assert "incarnation 1" in repr(one)
