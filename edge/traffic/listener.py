"""The client's side: connections, the heads that come in on them, and every client's deadline.

`ClientConnection` turns reads into heads and hands them to the flow one at a time: the next request
of a connection is looked at when the answer to the one before has gone out, so that answers can
never change places. Pipelined bytes wait in a bounded buffer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from edge.core import errors
from edge.core.errors import EdgeError
from edge.traffic import closing, pages
from edge.traffic.deadlines import Deadline, Overdue
from edge.traffic.exchange import Exchange, Phase
from edge.traffic.heads import HeadBuffer
from edge.traffic.stalls import end_overdue

if TYPE_CHECKING:
    from edge.traffic.connections import Connections
    from edge.traffic.flow import Flow


class ClientConnection(asyncio.Protocol):
    """One client connection. Holds what was read and not yet used, and at most one exchange.

    ``address`` is the peer's IP address, ``requests`` counts those begun here, the current one included;
    ``half_closed``: the client has said that it will send no more.
    """

    __slots__ = (
        "_buffer",
        "_connections",
        "_deadline",
        "_deadlines",
        "_due_at",
        "_flow",
        "_parsing",
        "_reading",
        "_rested",
        "_upstream_full",
        "_yielded",
        "address",
        "exchange",
        "half_closed",
        "requests",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, flow: Flow, connections: Connections) -> None:
        self._flow = flow
        self._deadlines = connections.deadlines
        self._connections = connections
        self._buffer = HeadBuffer(connections.scanner, flow.settings.limits)
        self._deadline = connections.deadlines.header
        self._due_at = 0.0  # when that has passed; 0 = never
        self._parsing = False
        self._reading = True
        self._upstream_full = False
        self._rested = False  # whether the last sweep found it idle, too
        self._yielded = False  # whether other connections have their turn before the next request
        self.address = ""
        self.requests = 0
        self.half_closed = False
        self.write_paused = False
        self.exchange: Exchange | None = None

    def __repr__(self) -> str:
        return f"<ClientConnection {self.address} {self.exchange or 'idle'}>"

    # --- asyncio.Protocol -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected; without room for it, it is answered and closed."""
        # Not an isinstance check: uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if peer else "unix"
        self.transport.set_write_buffer_limits(high=self._flow.settings.limits.buffer_bytes)
        if not self._connections.admit(self, self.address):
            # Not counted, not swept: answered and closed at once.
            error = self._no_room()
            error.close = True
            self.transport.write(self._refusal(error))
            transport.close()
            return
        self._expect(self._deadlines.header)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client: for the exchange under way, or the next head."""
        self._buffer.add(data)
        exchange = self.exchange
        if exchange is None:
            self._next()
        else:
            exchange.client_data()
            self._adjust_reading()

    def eof_received(self) -> bool:
        """The client will send no more. What it asked for completely is still answered."""
        self.half_closed = True
        if self.exchange is not None:
            self.exchange.client_eof()
        elif not self._held_up():
            self._close()
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone, whoever ended it."""
        self._connections.forget(self, self.address)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self.write_paused = True
        if self.exchange is not None:
            self.exchange.client_writable(False)
            self._expect(self._deadlines.body)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.write_paused = False
        exchange = self.exchange
        if exchange is not None:
            self.clear_deadline()
            exchange.client_writable(True)
            if not exchange.request_complete:
                self.expect_body()
        elif not self.transport.is_closing():
            self._expect(self._deadlines.idle)
            self._next()

    def _held_up(self) -> bool:
        """Whether requests that have come wait for their turn, or for the client to read answers."""
        return (self.write_paused or self._yielded) and bool(self._buffer)

    def _no_room(self) -> EdgeError:
        if self._flow.draining:
            return EdgeError(errors.EDGE_DRAINING)
        return errors.overloaded(self._flow.admission.full)

    # --- heads ----------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Start the requests that lie in the buffer, one after the other.

        A refused exchange ends before ``start`` returns and calls back here; the flag turns that
        recursion into this loop, or a buffer of bad requests would exhaust the stack. None is started
        for a client that does not read: its answers would pile up here, as many as it cares to ask for.
        And after ``limits.pipelined`` of them, whoever else has something to do has a turn.
        """
        if self._parsing:
            return
        if self._yielded:  # reads go on between the turns, and must not pile up
            self._adjust_reading()
            return
        self._parsing = True
        most = self._flow.settings.limits.pipelined
        started = 0
        try:
            while self.exchange is None and self._buffer.data and not self.transport.is_closing():
                if self.write_paused:
                    break
                if most and started == most:
                    self._yielded = True
                    asyncio.get_running_loop().call_soon(self._go_on)
                    break
                head = self._buffer.head()
                if head is None:
                    self._expect_head()
                    break
                started += 1
                self.requests += 1
                self._due_at = 0.0
                self.exchange = Exchange(self._flow, self, head)
                self._flow.start(self.exchange)
        except EdgeError as error:
            self._refuse(error)
        finally:
            self._parsing = False
        if self.half_closed and self.exchange is None and not self._held_up():
            self._close()
        if self._buffer.data or not self._reading:
            self._adjust_reading()

    def _go_on(self) -> None:
        self._yielded = False
        if self.exchange is None:
            self._next()

    def _refuse(self, error: EdgeError) -> None:
        """Answer bytes that never became a request, and close."""
        self.transport.write(self._refusal(error))
        self._linger()

    def _refusal(self, error: EdgeError) -> bytes:
        request_id = self._flow.new_request_id()
        self._flow.refused_unread(error, self.address, request_id)
        return pages.render(error, self._buffer.glimpse(), request_id.decode(), close=True)

    # --- for the exchange -----------------------------------------------------------------------------

    def take(self) -> bytes:
        """What was read and not yet used; the caller uses it now."""
        data = self._buffer.take()
        if not self._reading:
            # A client that waited may have sent more than is held, and been told to stop.
            self._adjust_reading()
        return data

    def give_back(self, data: bytes) -> None:
        """Bytes that belong to the next request."""
        self._buffer.give_back(data)

    def read_more(self, wanted: bool) -> None:
        """The upstream's buffer is full (False) or has room again."""
        self._upstream_full = not wanted
        self._adjust_reading()
        if self.exchange is not None and not self.exchange.request_complete:
            if wanted:
                self.expect_body()
            else:
                self.expect_answer()

    def expect_body(self) -> None:
        """The request's body must go on moving."""
        if not self.write_paused and not self._upstream_full:
            self._expect(self._deadlines.body)

    def expect_answer(self) -> None:
        """The request is complete, or the upstream does not read it: the upstream must do something."""
        self._expect(self._deadlines.first_byte)

    def _expect_head(self) -> None:
        """A head has begun on a connection that was idle; later bytes of it put nothing off."""
        if self._deadline is self._deadlines.idle:
            self._expect(self._deadlines.header)

    def clear_deadline(self) -> None:
        """Nothing is expected of anybody in particular time."""
        self._due_at = 0.0

    def answered(self, *, keep_alive: bool, linger: bool) -> None:
        """The exchange is over and its answer is written.

        ``linger``: the client may still be sending; closing now could destroy the answer on its way
        (RFC 9112 section 9.6).
        """
        self.exchange = None
        self._rested = self._upstream_full = False
        if not keep_alive or (self.half_closed and not self._buffer):
            if linger or self._buffer:
                self._linger()
            else:
                self._close()
            return
        if self.write_paused:
            self._expect(self._deadlines.unread)
        else:
            self._expect(self._deadlines.idle)
        if self._buffer.data:
            self._next()
        elif not self._reading:
            self._adjust_reading()

    def close_truncated(self, *, delimited: bool) -> None:
        """End an answer that could not be completed, so that it shows.

        Where the framing shows it, the bytes so far are delivered; else only a reset can.
        """
        self.exchange = None
        if delimited:
            self._close()
        else:
            self.reset()

    def abort(self) -> None:
        """Drop the connection. What the kernel has taken still arrives, and then a FIN."""
        self.transport.abort()

    def reset(self) -> None:
        """Drop the connection so that the client notices."""
        closing.reset(self.transport)

    def detach(self) -> None:
        """The transport belongs to a tunnel now."""
        self.clear_deadline()

    def tunnel_over(self) -> None:
        """The tunnel this connection became is over."""
        self.exchange = None
        self._connections.forget(self, self.address)

    # --- deadlines ------------------------------------------------------------------------------------

    def check_deadline(self, now: float) -> None:
        """Called by the sweep."""
        if self.exchange is None:
            if self._rested:
                self._buffer.forget_sections()
            self._rested = True
        if self._due_at and now >= self._due_at:
            self._due_at = 0.0
            self._flow.passed[self._deadline.setting] += 1
            self._overdue(self._deadline.overdue)

    def close_if_idle(self) -> None:
        """Drain: a connection between requests has nothing to lose."""
        if self.exchange is None and not self._buffer and not self.transport.is_closing():
            self._close()

    def _expect(self, deadline: Deadline) -> None:
        """Wait for this from now on, instead of what was waited for."""
        seconds = deadline.seconds
        self._due_at = self._flow.clock() + seconds if seconds else 0.0
        self._deadline = deadline

    def _overdue(self, what: Overdue) -> None:
        match what:
            case Overdue.HEAD if self._buffer:
                self._refuse(errors.too_slow(self._deadline.setting))
            case Overdue.HEAD | Overdue.CLOSE:
                self._close()
            case Overdue.EXCHANGE:
                if self.exchange is not None and self.exchange.phase is Phase.RELAYING:
                    end_overdue(self.exchange)
            case Overdue.ABORT:
                self.abort()

    def _close(self) -> None:
        """Close when everything is written; a client that does not read it keeps its place only so long."""
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._expect(self._deadlines.unread)

    def _linger(self) -> None:
        """Close for writing and read on for a moment (RFC 9112 section 9.6)."""
        if self.half_closed:  # all that will ever come has been read
            self._close()
            return
        self._buffer.take()
        closing.linger(self.transport, self.connection_lost)
        self._expect(self._deadlines.linger)

    def _adjust_reading(self) -> None:
        """Read while somebody uses the bytes, or they fit into what may be held."""
        exchange = self.exchange
        wanted = not self._upstream_full
        busy = exchange is not None or self.write_paused or self._yielded
        if busy and len(self._buffer) >= self._flow.settings.wake.held_bytes:
            wanted = False
        if wanted is not self._reading and not self.transport.is_closing():
            self._reading = wanted
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()
