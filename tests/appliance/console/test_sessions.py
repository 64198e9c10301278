"""Sessions and attempts: bounded, ending by the clock, never more than was given."""

from __future__ import annotations

from edge.appliance.console.sessions import (
    LIFETIME,
    MAX_FAILURES,
    WINDOW,
    Attempts,
    Sessions,
)


class Clock:
    """Seconds, as the test says."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_session_is_found_until_its_time_is_up() -> None:
    """By its id alone; at its end it is gone and says so to whoever follows it."""
    clock = Clock()
    sessions = Sessions(clock)
    session_id, session = sessions.open()
    clock.now += LIFETIME - 1
    assert sessions.find(session_id) is session and sessions.left(session) == 1
    assert sessions.find(session.token) is None and sessions.find("") is None
    clock.now += 1
    assert sessions.left(session) == 0 and not session.ended.is_set()
    assert sessions.find(session_id) is None and session.ended.is_set()


async def test_there_are_only_so_many() -> None:
    """One more ends the oldest; those that are late anyway make room first."""
    clock = Clock()
    sessions = Sessions(clock, most=2)
    first, second, third = sessions.open(), sessions.open(), sessions.open()
    assert first[1].ended.is_set() and sessions.find(first[0]) is None
    assert sessions.find(second[0]) and sessions.find(third[0])
    clock.now += LIFETIME
    fourth = sessions.open()
    assert second[1].ended.is_set() and third[1].ended.is_set()
    assert sessions.find(fourth[0]) is fourth[1]


async def test_closing_ends_one() -> None:
    """A log-out is of one session; an id that is none does nothing."""
    sessions = Sessions(Clock())
    (one, session), (other, _) = sessions.open(), sessions.open()
    sessions.close(one)
    sessions.close("none")
    assert session.ended.is_set() and sessions.find(one) is None
    assert sessions.find(other) is not None


async def test_ids_and_tokens_do_not_show() -> None:
    """What a log or a traceback may print of a session holds no secret, and no id is kept at all."""
    sessions = Sessions(Clock())
    session_id, session = sessions.open()
    assert len(session_id) >= 43 and len(session.token) >= 43
    assert session.token not in repr(session)
    assert session_id not in repr(vars(sessions))


def test_wrong_keys_are_counted_for_a_while() -> None:
    """After so many nobody's key is looked at until the oldest is forgotten, one by one."""
    clock = Clock()
    attempts = Attempts(clock)
    for _ in range(MAX_FAILURES):
        assert attempts.wait() == 0
        attempts.failed()
        clock.now += 1
    assert attempts.wait() == WINDOW - MAX_FAILURES
    clock.now += WINDOW - MAX_FAILURES
    assert attempts.wait() == 0
    attempts.failed()
    assert attempts.wait() == 1
