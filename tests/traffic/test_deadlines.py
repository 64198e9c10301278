"""Deadlines: what a client is given time for comes from the setting that the operator will read of."""

from __future__ import annotations

from edge.core.settings import DeadlineSettings
from edge.traffic.deadlines import SWEEP_INTERVAL, Deadlines, Overdue

NAMES = ("header", "idle", "body", "unread", "first_byte", "linger")


def test_each_has_the_seconds_of_the_setting_it_names() -> None:
    """No row can be of one setting and tell of another."""
    settings = DeadlineSettings(header=1, idle=2, body_stall=3, first_byte=4, linger=5)
    deadlines = Deadlines(settings)
    assert set(NAMES) == set(Deadlines.__slots__)
    for name in NAMES:
        row = getattr(deadlines, name)
        group, _, setting = row.setting.partition(".")
        assert (group, row.seconds) == ("deadlines", getattr(settings, setting)), name


def test_zero_is_any_time_but_for_lingering() -> None:
    """Which ends at the next look: a client that never closes would be read for ever."""
    deadlines = Deadlines(DeadlineSettings(header=0, idle=0, body_stall=0, first_byte=0, linger=0))
    seconds = {name: getattr(deadlines, name).seconds for name in NAMES}
    assert seconds == dict.fromkeys(NAMES, 0.0) | {"linger": SWEEP_INTERVAL}


def test_only_exchanges_are_asked_whose_turn_it_was() -> None:
    """Where no exchange is left, the connection is all there is to end."""
    deadlines = Deadlines(DeadlineSettings())
    asked = [name for name in NAMES if getattr(deadlines, name).overdue is Overdue.EXCHANGE]
    assert asked == ["body", "first_byte"]
