"""One wake: who waits for it, how it ended, and its phases for the report."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edge.core.errors import Problem
from edge.core.records import SandboxRecord
from edge.core.reports import WakeReport


class Wake:
    """One wake and its phases. Times are monotonic seconds; each phase counts the first time it is told.

    ``paused`` is the record that was seen. Traffic tells `listening`, `dispatched` and `first_byte` of
    the first exchange that gets so far, or `failed` when the app never accepted.
    """

    def __init__(
        self, paused: SandboxRecord, started: float, woken_by: str, tell: Callable[[Wake], None]
    ) -> None:
        self.paused = paused
        self.started = started
        self.woken_by = woken_by
        self.over = asyncio.Event()
        self.problem: Problem | None = None
        """What the waiters are told, once `over` is set; None = read the record again."""
        self.outcome = "ok"
        self.waiting = 0
        self.joined = 0
        self.resumed_at: float | None = None
        self._listening_at: float | None = None
        self._dispatched_at: float | None = None
        self._first_byte_at: float | None = None
        self._tell = tell

    def __repr__(self) -> str:
        state = (
            "under way" if not self.over.is_set() else self.problem.code if self.problem else "ok"
        )
        return f"<Wake {self.paused.id} of incarnation {self.paused.incarnation}: {state}>"

    def listening(self, at: float) -> None:
        """The app's port accepted a connection."""
        if self._listening_at is None:
            self._listening_at = at

    def dispatched(self, at: float) -> None:
        """The first byte of an exchange was sent upstream."""
        if self._dispatched_at is None:
            self._dispatched_at = at

    def first_byte(self, at: float) -> None:
        """The app began to answer: the wake is over and is reported."""
        if self._first_byte_at is None:
            self._first_byte_at = at
            self._tell(self)

    def failed(self, problem: Problem) -> None:
        """The resumed app could not be reached: the wake is over and is reported as that.

        Unless another port of the sandbox accepted: then something did come up.
        """
        if self.outcome == "ok" and self._listening_at is None:
            self.outcome = problem.code
            self._tell(self)

    def report(self) -> WakeReport:
        """The phases as they stand."""
        return WakeReport(
            sandbox_id=self.paused.id,
            outcome=self.outcome,
            woken_by=self.woken_by,
            waiters=self.joined,
            resume=_between(self.started, self.resumed_at),
            listen=_between(self.resumed_at, self._listening_at),
            dispatch=_between(self.resumed_at, self._dispatched_at),
            first_byte=_between(self._dispatched_at, self._first_byte_at),
        )


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(0.0, end - start)
