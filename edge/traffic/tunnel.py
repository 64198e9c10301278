"""Tunnels: after the 101, bytes flow both ways untouched until both sides have said they are done.

Each transport gets a `Side` as its new protocol; what one reads the other writes, and each waits for
the other's buffer. A FIN from one side reaches the other as a FIN (half-close); a lost connection ends both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from edge.core.frames import GOING_AWAY, FrameTracker, close_frame
from edge.core.reports import End
from edge.traffic.liveness import Liveness

GOODBYE = 1.0
"""Seconds a peer may take to answer a close frame."""


class Side(asyncio.Protocol):
    """One end of a tunnel: reads its transport, writes the other's."""

    __slots__ = ("_tunnel", "count", "eof", "frames", "full", "gone", "other", "transport")

    def __init__(self, tunnel: Tunnel, transport: asyncio.Transport) -> None:
        self._tunnel = tunnel
        self.transport = transport
        self.other: Side = self
        self.count = 0
        self.eof = False
        self.full = False
        self.gone: End = End.COMPLETE
        self.frames = FrameTracker()

    def data_received(self, data: bytes) -> None:
        """Bytes for the other side."""
        if self._tunnel.leaving:
            return  # after a close frame nothing else may follow (RFC 6455 section 5.5.1)
        self.count += len(data)
        self.frames.feed(data)
        self.other.transport.write(data)

    def eof_received(self) -> bool:
        """This side will send no more; it may still receive."""
        self.eof = True
        self.other.half_close()
        if self.other.eof or self._tunnel.leaving:
            self._tunnel.close(End.DRAINED if self._tunnel.leaving else End.COMPLETE)
        return True

    @property
    def may_say_goodbye(self) -> bool:
        """Whether a close frame may follow what this side has sent."""
        return self.frames.between_frames and not self.eof

    def half_close(self) -> None:
        """Tell our peer that the other side will send no more."""
        if self.transport.can_write_eof() and not self.transport.is_closing():
            with contextlib.suppress(OSError, RuntimeError):
                self.transport.write_eof()

    def connection_lost(self, exc: BaseException | None) -> None:
        """This side is gone, so the other side goes, after what was written to it."""
        self._tunnel.close(End.COMPLETE if exc is None and self.eof else self.gone)

    def pause_writing(self) -> None:
        """Our peer reads too slowly."""
        self.full = True
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Our peer has caught up."""
        self.full = False
        if not self.other.transport.is_closing():
            self.other.transport.resume_reading()


class Tunnel:
    """Two sides. ``on_close`` hears once how it ended. ``bytes_in`` go from client to upstream."""

    __slots__ = ("_client", "_goodbye", "_liveness", "_on_close", "_upstream", "closed")

    def __init__(
        self,
        client: asyncio.Transport,
        upstream: asyncio.Transport,
        on_close: Callable[[End], None],
        liveness: Liveness,
    ) -> None:
        self._client = Side(self, client)
        self._upstream = Side(self, upstream)
        self._client.other, self._upstream.other = self._upstream, self._client
        self._client.gone, self._upstream.gone = End.CLIENT_GONE, End.UPSTREAM_GONE
        self._on_close = on_close
        self._liveness = liveness
        self._goodbye: asyncio.TimerHandle | None = None
        self.closed = False

    @property
    def leaving(self) -> bool:
        """Whether both peers have been told goodbye."""
        return self._goodbye is not None

    @property
    def bytes_in(self) -> int:
        """Bytes from client to upstream so far."""
        return self._client.count

    @property
    def bytes_out(self) -> int:
        """Bytes from upstream to client so far."""
        return self._upstream.count

    def open(
        self,
        *,
        from_client: bytes,
        from_upstream: bytes,
        client_full: bool = False,
        upstream_full: bool = False,
        client_ended: bool = False,
    ) -> None:
        """Take both transports over; the bytes given came before that and go first.

        A transport tells of a full buffer once, and may have told its protocol before us: ``client_full``
        and ``upstream_full`` say so. It will tell us when there is room again. The same goes for a FIN:
        ``client_ended`` says that the client's came before the 101.
        """
        self._client.full, self._upstream.full = client_full, upstream_full
        for side in (self._client, self._upstream):
            side.transport.set_protocol(side)
            self._liveness.expect_delivery(side.transport.get_extra_info("socket"))
        if from_client:
            self._client.data_received(from_client)
        if from_upstream:
            self._upstream.data_received(from_upstream)
        for side in (self._client, self._upstream):
            if side.transport.is_closing():
                continue
            if side.other.full:  # of bytes from before, or of the early ones just written
                side.transport.pause_reading()
            else:
                side.transport.resume_reading()
        if client_ended:
            self._client.eof_received()

    def leave(self) -> None:
        """The edge is going: a close frame to each peer, and a moment to answer it. Idempotent.

        Where a stream stands in the middle of a frame there is no place for one, nor where it has ended
        already (a half-closed tunnel); when that is so both ways, the tunnel just ends.
        """
        if self.leaving or self.closed:
            return
        # What comes from the upstream goes to the client, and the other way round.
        tell_client, tell_upstream = self._upstream.may_say_goodbye, self._client.may_say_goodbye
        if not (tell_client or tell_upstream):
            self.close(End.DRAINED)
            return
        loop = asyncio.get_running_loop()
        self._goodbye = loop.call_later(GOODBYE, self.close, End.DRAINED)
        if tell_client:
            self._client.transport.write(close_frame(GOING_AWAY))
        if tell_upstream:
            self._upstream.transport.write(close_frame(GOING_AWAY, os.urandom(4)))

    def close(self, end: End) -> None:
        """End both sides; what was written before still goes out. Idempotent."""
        if self.closed:
            return
        self.closed = True
        if self._goodbye is not None:
            self._goodbye.cancel()
        self._client.transport.close()
        self._upstream.transport.close()
        self._on_close(end)
