"""Deadlines of a client's connection: what it is given time for, and what happens when the time is up.

At any moment a connection waits for one thing at the most:

=========== =============================================== =================== =======================
deadline    waits for                                       setting             when it has passed
=========== =============================================== =================== =======================
header      a whole head, from its first byte on            header              HEAD
idle        the next request                                idle                CLOSE
body        the client to send its body, or to read         body_stall          EXCHANGE
unread      the client to read what is left, nothing else   body_stall          ABORT
first_byte  the upstream to do something                    first_byte          EXCHANGE
linger      the client to notice the end                    linger              ABORT
=========== =============================================== =================== =======================
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from edge.core.settings import DeadlineSettings

SWEEP_INTERVAL = 0.25
"""Seconds between looks at the deadlines; they are that exact."""


class Overdue(Enum):
    """What becomes of a connection whose deadline has passed."""

    HEAD = "a head that has begun is refused; without one the connection is closed"
    EXCHANGE = "the exchange knows whose turn it was"
    CLOSE = "it is closed when everything is written"
    ABORT = "it is dropped"


class Deadline(NamedTuple):
    """One row: the dotted name of its setting, the seconds it says (0 = any time), and what then."""

    setting: str
    seconds: float
    overdue: Overdue


class Deadlines:
    """All rows, for the settings of one edge."""

    __slots__ = ("body", "first_byte", "header", "idle", "linger", "unread")

    def __init__(self, settings: DeadlineSettings) -> None:
        self.header = Deadline("deadlines.header", settings.header, Overdue.HEAD)
        self.idle = Deadline("deadlines.idle", settings.idle, Overdue.CLOSE)
        self.body = Deadline("deadlines.body_stall", settings.body_stall, Overdue.EXCHANGE)
        self.unread = Deadline("deadlines.body_stall", settings.body_stall, Overdue.ABORT)
        self.first_byte = Deadline("deadlines.first_byte", settings.first_byte, Overdue.EXCHANGE)
        least = max(settings.linger, SWEEP_INTERVAL)
        self.linger = Deadline("deadlines.linger", least, Overdue.ABORT)
