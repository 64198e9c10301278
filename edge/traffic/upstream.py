"""The upstream's side of an exchange: one connection to an app."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from edge.core.answer import Answer

if TYPE_CHECKING:
    from edge.traffic.exchange import Exchange
    from edge.traffic.routes import Route


class UpstreamConnection(asyncio.Protocol):
    """One connection to an app, serving at most one exchange at a time."""

    __slots__ = (
        "_reading",
        "_route",
        "before",
        "exchange",
        "idle_since",
        "reused",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, route: Route) -> None:
        self._route = route
        self._reading = True
        # The last answer: the next one often begins with its bytes.
        self.before: Answer | None = None
        self.exchange: Exchange | None = None
        self.reused = False
        self.write_paused = False
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The app's port accepted."""
        # Not an isinstance check: uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(high=self._route.buffer_bytes)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer; bytes that nobody asked for end the connection."""
        if self.exchange is not None:
            self.exchange.upstream_data(data)
        else:
            self.release(reusable=False)

    def eof_received(self) -> bool:
        """The app will send no more: the connection is of no further use."""
        if self.exchange is not None:
            self.exchange.upstream_eof(clean=True)
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone."""
        self._route.forget(self)
        if self.exchange is not None:
            self.exchange.upstream_eof(clean=exc is None)

    def pause_writing(self) -> None:
        """The app reads too slowly."""
        self.write_paused = True
        if self.exchange is not None:
            self.exchange.upstream_writable(False)

    def resume_writing(self) -> None:
        """The app has caught up."""
        self.write_paused = False
        if self.exchange is not None:
            self.exchange.upstream_writable(True)

    def read_more(self, wanted: bool) -> None:
        """Whether the client has room for what the app sends."""
        if wanted is not self._reading and not self.transport.is_closing():
            self._reading = wanted
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def release(self, *, reusable: bool) -> None:
        """The exchange is done with this connection."""
        self.exchange = None
        if reusable and not self.write_paused and not self.transport.is_closing():
            self.reused = True
            self.read_more(True)
            self._route.give(self)
        else:
            self._route.forget(self)
            self.transport.abort()

    def detach(self) -> None:
        """The transport belongs to a tunnel now."""
        self.exchange = None
        self._route.forget(self)
