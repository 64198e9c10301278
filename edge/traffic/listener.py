"""The client's side: connections, the heads that come in on them, and every client's deadline.

`ClientConnection` turns reads into heads and hands them to the flow one at a time: the next request
of a connection is looked at when the answer to the one before has gone out, so that answers can
never change places. Pipelined bytes wait in a bounded buffer.

One sweep looks at all deadlines a few times a second; a timer per connection would cost each request
two heap operations for something that almost never fires.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import re
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, cast

from edge.core import errors
from edge.core.errors import EdgeError
from edge.core.head import Head
from edge.core.outbound import Peer, client_scheme
from edge.core.section import Section
from edge.traffic import pages
from edge.traffic.exchange import Exchange, Phase

if TYPE_CHECKING:
    from edge.traffic.flow import Flow

SWEEP_INTERVAL = 0.25
"""Seconds between looks at the deadlines; they are that exact."""

_AT_ONCE = struct.pack("ii", 1, 0)
"""SO_LINGER: closing drops what is unsent and resets the connection."""
_EMPTY_LINES = re.compile(rb"(?:\r\n)+")
_SECTIONS = 4
"""Header sections a connection remembers while it is busy: a page's own, its scripts', its images', ..."""


class ClientConnection(asyncio.Protocol):
    """One client connection. Holds what was read and not yet used, and at most one exchange."""

    __slots__ = (
        "_address",
        "_buffer",
        "_deadline",
        "_eof",
        "_flow",
        "_on_deadline",
        "_parsing",
        "_reading",
        "_requests",
        "_rested",
        "_sections",
        "_served",
        "_upstream_full",
        "exchange",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, flow: Flow, served: Connections) -> None:
        self._flow = flow
        self._served = served
        self._address = ""
        self._buffer = b""
        self._deadline = 0.0
        self._on_deadline: Callable[[], None] = self._header_overdue
        self._eof = False
        self._parsing = False
        self._reading = True
        self._upstream_full = False
        self._requests = 0
        self._rested = False  # whether the last sweep found it idle, too
        self._sections: tuple[Section, ...] = ()  # of the last requests, the newest first
        self.write_paused = False
        self.exchange: Exchange | None = None

    def __repr__(self) -> str:
        return f"<ClientConnection {self._address} {self.exchange or 'idle'}>"

    # --- asyncio.Protocol -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected; without room for it, it is answered and closed."""
        # Not an isinstance check: uvloop's transports are no subclasses of asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._address = peer[0] if peer else "unix"
        self.transport.set_write_buffer_limits(high=self._flow.settings.limits.buffer_bytes)
        if not self._served.admit(self, self._address):
            # Not counted, not swept: answered and closed at once.
            error = errors.overloaded(self._flow.admission.full)
            error.close = True
            self.write(self._refusal(error))
            transport.close()
            return
        self._set_deadline(self._flow.settings.deadlines.header, self._header_overdue)

    def data_received(self, data: bytes) -> None:
        """Bytes from the client: for the exchange under way, or the next head."""
        self._buffer = self._buffer + data if self._buffer else data
        exchange = self.exchange
        if exchange is None:
            self._next()
        else:
            exchange.client_data()
            self._adjust_reading()

    def eof_received(self) -> bool:
        """The client will send no more. What it asked for completely is still answered."""
        self._eof = True
        if self.exchange is not None:
            self.exchange.client_eof()
        elif not self._held_up():
            self._close()
        return True

    def connection_lost(self, exc: BaseException | None) -> None:
        """The connection is gone, whoever ended it."""
        self._served.forget(self, self._address)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self.write_paused = True
        if self.exchange is not None:
            self.exchange.client_writable(False)
            self._set_deadline(self._flow.settings.deadlines.body_stall, self._exchange_overdue)

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
            self._set_deadline(self._flow.settings.deadlines.idle, self._close_idle)
            self._next()

    def _held_up(self) -> bool:
        """Whether requests that have come wait until the client has read the answers before them."""
        return self.write_paused and bool(self._buffer)

    # --- heads ----------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Start the requests that lie in the buffer, one after the other.

        A refused exchange ends before ``start`` returns and calls back here; the flag turns that
        recursion into this loop, or a buffer of bad requests would exhaust the stack. None is started
        for a client that does not read: its answers would pile up here, as many as it cares to ask for.
        """
        if self._parsing:
            return
        self._parsing = True
        try:
            while self.exchange is None and self._buffer and not self.transport.is_closing():
                if self.write_paused:
                    break
                head = self._take_head()
                if head is None:
                    self._expect_head()
                    break
                self._requests += 1
                self.clear_deadline()
                self.exchange = Exchange(self._flow, self, head)
                self._flow.start(self.exchange)
        except EdgeError as error:
            self._refuse(error)
        finally:
            self._parsing = False
        if self._eof and self.exchange is None and not self._held_up():
            self._close()
        self._adjust_reading()

    def _take_head(self) -> Head | None:
        """Cut the next head off the buffer; None while it is incomplete. Raises `EdgeError`."""
        limits = self._flow.settings.limits
        buffer = self._buffer
        if buffer[:2] == b"\r\n":
            # RFC 9112 section 2.2: empty lines before a request are ignored; all of them, or what a
            # client gets would depend on how its bytes are cut into reads.
            lines = _EMPTY_LINES.match(buffer)
            assert lines is not None
            buffer = self._buffer = buffer[lines.end() :]
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > limits.header_bytes:
                raise EdgeError(errors.REQUEST_HEADER_TOO_LARGE, close=True)
            if _has_half_ends(buffer):
                raise errors.bad_request("lines must end with CR LF")
            return None
        if end > limits.header_bytes:
            raise EdgeError(errors.REQUEST_HEADER_TOO_LARGE, close=True)
        self._buffer = buffer[end + 4 :]
        head = self._flow.scanner.scan(buffer[:end], self._sections)
        section, recent = head.section, self._sections
        if not recent or recent[0] is not section:
            others = [known for known in recent if known is not section]
            self._sections = (section, *others[: _SECTIONS - 1])
        return head

    def _refuse(self, error: EdgeError) -> None:
        """Answer bytes that never became a request, and close."""
        self.write(self._refusal(error))
        self._linger()

    def _refusal(self, error: EdgeError) -> bytes:
        request_id = self._flow.new_request_id()
        self._flow.refused_unread(error, self._address, request_id)
        return pages.render(error, None, request_id.decode(), close=True)

    # --- for the exchange -----------------------------------------------------------------------------

    def peer_of(self, head: Head) -> Peer:
        """Who asks, and by which scheme."""
        trusted = self._served.trusts(self._address)
        scheme = client_scheme(head, trusted, self._flow.public_scheme)
        return Peer(self._address.encode("ascii", "replace"), trusted, scheme)

    @property
    def address(self) -> str:
        """The peer's IP address."""
        return self._address

    @property
    def requests(self) -> int:
        """Requests begun on this connection, the current one included."""
        return self._requests

    @property
    def half_closed(self) -> bool:
        """The client has said that it will send no more."""
        return self._eof

    def write(self, data: bytes) -> None:
        """Send bytes to the client."""
        self.transport.write(data)

    def take(self) -> bytes:
        """What was read and not yet used; the caller uses it now."""
        data, self._buffer = self._buffer, b""
        if not self._reading:
            # A client that waited may have sent more than is held, and been told to stop.
            self._adjust_reading()
        return data

    def give_back(self, data: bytes) -> None:
        """Bytes that belong to the next request."""
        self._buffer = data + self._buffer if self._buffer else data

    def read_more(self, wanted: bool) -> None:
        """The upstream's buffer is full (False) or has room again."""
        self._upstream_full = not wanted
        self._adjust_reading()
        if self.exchange is not None and not self.exchange.request_complete:
            deadlines = self._flow.settings.deadlines
            limit = deadlines.body_stall if wanted else deadlines.first_byte
            self._set_deadline(limit, self._exchange_overdue)

    def expect_body(self) -> None:
        """The request's body must go on moving."""
        if not self.write_paused and not self._upstream_full:
            self._set_deadline(self._flow.settings.deadlines.body_stall, self._exchange_overdue)

    def expect_answer(self) -> None:
        """The request is complete; the upstream must begin to answer."""
        self._set_deadline(self._flow.settings.deadlines.first_byte, self._exchange_overdue)

    def _expect_head(self) -> None:
        """A head has begun on a connection that was idle; later bytes of it put nothing off."""
        if self._on_deadline == self._close_idle:
            self._set_deadline(self._flow.settings.deadlines.header, self._header_overdue)

    def clear_deadline(self) -> None:
        """Nothing is expected of anybody in particular time."""
        self._deadline = 0.0

    def answered(self, *, keep_alive: bool, linger: bool) -> None:
        """The exchange is over and its answer is written.

        ``linger``: the client may still be sending; closing now could destroy the answer on its way
        (RFC 9112 section 9.6).
        """
        self.exchange = None
        self._rested = self._upstream_full = False
        if not keep_alive or (self._eof and not self._buffer):
            if linger or self._buffer:
                self._linger()
            else:
                self._close()
            return
        deadlines = self._flow.settings.deadlines
        if self.write_paused:
            self._set_deadline(deadlines.body_stall, self.abort)
        else:
            self._set_deadline(deadlines.idle, self._close_idle)
        if self._buffer:
            self._next()
        else:
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
        """Drop the connection so that the client notices: by a FIN an answer without length would be whole."""
        sock: socket.socket = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()

    def detach(self) -> None:
        """The transport belongs to a tunnel now."""
        self.clear_deadline()

    def tunnel_over(self) -> None:
        """The tunnel this connection became is over."""
        self.exchange = None
        self._served.forget(self, self._address)

    # --- deadlines ------------------------------------------------------------------------------------

    def check_deadline(self, now: float) -> None:
        """Called by the sweep."""
        if self.exchange is None:
            if self._rested:
                self._sections = ()  # they hold credentials, and 4 kB each
            self._rested = True
        if self._deadline and now >= self._deadline:
            self._deadline = 0.0
            self._on_deadline()

    def close_if_idle(self) -> None:
        """Drain: a connection between requests has nothing to lose."""
        if self.exchange is None and not self._buffer and not self.transport.is_closing():
            self._close()

    def _set_deadline(self, seconds: float, act: Callable[[], None]) -> None:
        self._deadline = self._flow.clock() + seconds if seconds else 0.0
        self._on_deadline = act

    def _header_overdue(self) -> None:
        if self._buffer:
            self._refuse(EdgeError(errors.REQUEST_TIMEOUT, close=True))
        else:
            self._close()

    def _exchange_overdue(self) -> None:
        if self.exchange is not None and self.exchange.phase is Phase.RELAYING:
            self.exchange.overdue()

    def _close_idle(self) -> None:
        self._close()

    def _close(self) -> None:
        """Close when everything is written; a client that does not read it keeps its place only so long."""
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._set_deadline(self._flow.settings.deadlines.body_stall, self.abort)

    def _linger(self) -> None:
        """Close for writing and read on for a moment (RFC 9112 section 9.6)."""
        if self._eof:  # all that will ever come has been read
            self._close()
            return
        with contextlib.suppress(OSError, RuntimeError):
            if self.transport.can_write_eof():
                self.transport.write_eof()
        self._buffer = b""
        self.transport.set_protocol(_Lingering(self))
        self.transport.resume_reading()
        self._set_deadline(max(self._flow.settings.deadlines.linger, SWEEP_INTERVAL), self.abort)

    def _adjust_reading(self) -> None:
        """Read while somebody uses the bytes, or they fit into what may be held."""
        exchange = self.exchange
        wanted = not self._upstream_full
        busy = exchange is not None or self.write_paused
        if busy and len(self._buffer) >= self._flow.settings.wake.held_bytes:
            wanted = False
        if wanted is not self._reading and not self.transport.is_closing():
            self._reading = wanted
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()


def _has_half_ends(start: bytes) -> bool:
    """Whether a CR or an LF stands alone: such a head is bad already, and its end may never come."""
    ends = start.count(b"\r\n")
    return start.count(b"\n") != ends or start.count(b"\r") - start.endswith(b"\r") != ends


class _Lingering(asyncio.Protocol):
    """Reads on without listening, until the client closes or the sweep ends it."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    def eof_received(self) -> bool:
        self._connection.transport.close()
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connection.connection_lost(exc)


class Connections:
    """All client connections of one listener: admission by address, the sweep, drain."""

    def __init__(self, flow: Flow, trusted: tuple[IPv4Network | IPv6Network, ...]) -> None:
        self._flow = flow
        self._trusted = trusted
        self._trust_known: dict[str, bool] = {}
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

    def trusts(self, address: str) -> bool:
        """Whether a peer is one of our own proxies."""
        if not self._trusted:
            return False
        known = self._trust_known.get(address)
        if known is None:
            if len(self._trust_known) >= 4096:
                self._trust_known.clear()
            known = self._trust_known[address] = self._in_trusted(address)
        return known

    def _in_trusted(self, address: str) -> bool:
        try:
            ip = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(ip, "ipv4_mapped", None)
        return any((mapped or ip) in network for network in self._trusted)

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


__all__ = ["SWEEP_INTERVAL", "ClientConnection", "Connections"]
