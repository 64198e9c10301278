"""All client connections of one listener: who is let in, and the sweep of their deadlines.

One sweep looks at all deadlines a few times a second; a timer per connection would cost each request
two heap operations for something that almost never fires.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from edge.core.head import RequestScanner
from edge.traffic.deadlines import SWEEP_INTERVAL, Deadlines
from edge.traffic.flow import Flow
from edge.traffic.listener import ClientConnection


class Connections:
    """Every client connection."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        limits = flow.settings.limits
        self.scanner = RequestScanner(max_fields=limits.header_count, max_line=limits.request_line)
        self.deadlines = Deadlines(flow.settings.deadlines)
        self._open: set[ClientConnection] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def protocol(self) -> ClientConnection:
        """The protocol factory for ``loop.create_server``."""
        return ClientConnection(self._flow, self)

    def admit(self, connection: ClientConnection, address: str) -> bool:
        """Count a new connection, if there is room for it."""
        if self._flow.draining or not self._flow.admission.connect(address):
            return False
        self._open.add(connection)
        return True

    def forget(self, connection: ClientConnection, address: str) -> None:
        """A connection is gone. Idempotent, and harmless for one that was never admitted."""
        if connection in self._open:
            self._open.discard(connection)
            self._flow.admission.disconnect(address)

    def start_sweep(self) -> None:
        """Begin to look at deadlines, every `SWEEP_INTERVAL`."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SWEEP_INTERVAL, self.start_sweep)
        now = self._flow.clock()
        for connection in list(self._open):
            connection.check_deadline(now)

    def stop_sweep(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def __iter__(self) -> Iterator[ClientConnection]:
        return iter(list(self._open))
