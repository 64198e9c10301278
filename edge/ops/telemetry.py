"""Telemetry: the `Observer` of production. Hears every report; counts, logs, and forgets.

Nothing here blocks and nothing here raises: a report that cannot be written down must not hurt the
exchange it is about.
"""

from __future__ import annotations

import asyncio

from edge.core.reports import ExchangeReport, WakeReport
from edge.ops.access_log import access_line
from edge.ops.events import EventLog, wake_fields
from edge.ops.lines import LineWriter
from edge.ops.metrics import Metrics

FLUSH_INTERVAL = 0.1
"""Seconds a line of the access log may stay unwritten while nothing else happens."""


class Telemetry:
    """Implements `edge.core.reports.Observer`. ``access`` is None when no access log is wanted."""

    def __init__(self, metrics: Metrics, events: EventLog, access: LineWriter | None) -> None:
        self._metrics = metrics
        self._events = events
        self._access = access
        self._timer: asyncio.TimerHandle | None = None

    def exchange(self, report: ExchangeReport) -> None:
        """See `Observer.exchange`."""
        self._metrics.exchange(report)
        access = self._access
        if access is not None:
            access.add(access_line(report))
            if self._timer is None:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(FLUSH_INTERVAL, self._flush)

    def wake(self, report: WakeReport) -> None:
        """See `Observer.wake`."""
        self._metrics.wake(report)
        self.event("wake", **wake_fields(report))

    def dialed(self, outcome: str) -> None:
        """See `Observer.dialed`."""
        self._metrics.dialed(outcome)

    def event(self, name: str, **fields: object) -> None:
        """See `Observer.event`."""
        self._metrics.event(self._events.write(name, fields))

    def crashed(self, name: str, error: BaseException) -> None:
        """A task ended with an exception: for `Scope`."""
        self.event("crash", task=name, error=repr(error))

    def close(self) -> None:
        """Hand over what is left; the writers belong to whoever made them."""
        if self._timer is not None:
            self._timer.cancel()
        self._flush()

    def _flush(self) -> None:
        self._timer = None
        if self._access is not None:
            self._access.flush()
