"""Tunnels: real sockets on both sides, and every way two peers can send, stop, hang and leave."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable

import pytest

from edge.core.reports import End
from edge.core.settings import TcpSettings
from edge.traffic.liveness import Liveness
from edge.traffic.tunnel import Tunnel
from tests.flows.stage import until

MARK = 64 * 1024
"""The high-water mark of both transports, as `limits.buffer_bytes` sets it."""
READ = 256 * 1024
"""The most one read may bring: a buffer overshoots its mark by that much."""
FLOOD = 8 * 1024 * 1024
"""Far more than the kernel's buffers and ours hold together."""


class Before(asyncio.Protocol):
    """Whoever had the transport before the tunnel; it holds still, as the edge's own do by then."""

    transport: asyncio.Transport
    full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.transport.pause_reading()
        self.transport.set_write_buffer_limits(high=MARK)

    def pause_writing(self) -> None:
        self.full = True


class Peer:
    """The far end of one side: a plain socket that reads only when it is told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock

    async def send(self, data: bytes) -> None:
        """Send all of it, however long the other side makes us wait."""
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def read(self, size: int) -> bytes:
        """Exactly so many bytes."""
        data = b""
        while len(data) < size:
            part = await asyncio.get_running_loop().sock_recv(self.sock, size - len(data))
            assert part, f"ended after {len(data)} of {size} bytes"
            data += part
        return data

    async def rest(self) -> bytes:
        """Everything until the other side says that it will send no more."""
        parts = []
        while part := await asyncio.get_running_loop().sock_recv(self.sock, 1 << 20):
            parts.append(part)
        return b"".join(parts)

    def finish(self) -> None:
        """Say that we will send no more (FIN), and go on reading."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave with a RST, as a process does that dies with unread bytes."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


class Stage:
    """A tunnel between two peers, and how it ended. ``near`` are the tunnel's own transports."""

    def __init__(self, client: Peer, upstream: Peer, near: list[asyncio.Transport]) -> None:
        self.client, self.upstream, self.near = client, upstream, near
        self.ends: list[End] = []
        self.over = asyncio.Event()
        liveness = Liveness(TcpSettings(keepalive_idle=7, user_timeout=30.5))
        self.tunnel = Tunnel(near[0], near[1], self._ended, liveness)

    def _ended(self, end: End) -> None:
        self.ends.append(end)
        self.over.set()

    def ends_of(self, name: str) -> tuple[Peer, Peer]:
        """The peer of that name, and the other one."""
        return (self.client, self.upstream) if name == "client" else (self.upstream, self.client)

    def near_of(self, name: str) -> tuple[asyncio.Transport, asyncio.Transport]:
        """The transport that reads the peer of that name, and the one that writes to the other."""
        return (self.near[0], self.near[1]) if name == "client" else (self.near[1], self.near[0])

    def carried(self, name: str) -> int:
        """Bytes that came from the peer of that name so far."""
        return self.tunnel.bytes_in if name == "client" else self.tunnel.bytes_out

    async def carry(self, name: str, total: int) -> None:
        """Wait until so many bytes in all came from the peer of that name."""
        await until(lambda: self.carried(name) == total)

    def open(self, from_client: bytes = b"", from_upstream: bytes = b"") -> None:
        """Begin, with what came early."""
        self.tunnel.open(from_client=from_client, from_upstream=from_upstream)


async def connected() -> tuple[Peer, asyncio.Transport]:
    """A loopback connection with small kernel buffers: the peer, and the edge's transport."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.socket()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        far.connect(listener.getsockname())
        near, _ = listener.accept()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    far.setblocking(False)
    transport, _ = await asyncio.get_running_loop().create_connection(Before, sock=near)
    return Peer(far), transport


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    """Two peers and the tunnel between them, not yet open."""
    client, near_client = await connected()
    upstream, near_upstream = await connected()
    stage = Stage(client, upstream, [near_client, near_upstream])
    yield stage
    for transport in stage.near:
        transport.abort()
    for peer in (client, upstream):
        peer.sock.close()


@contextlib.asynccontextmanager
async def running(work: Awaitable[object]) -> AsyncIterator[asyncio.Future[object]]:
    """Something a peer does meanwhile; it has to come to its end."""
    task = asyncio.ensure_future(work)
    try:
        yield task
        await task
    finally:
        task.cancel()


BOTH = pytest.mark.parametrize("name", ["client", "upstream"])


# --- bytes ------------------------------------------------------------------------------------------


@BOTH
async def test_bytes_arrive_as_they_were_sent(stage: Stage, name: str) -> None:
    """Any bytes pass in either direction, in any sizes, unchanged and counted."""
    sender, receiver = stage.ends_of(name)
    stage.open()
    sent = b""
    for size in (1, 2, 125, 126, 65535, 65536, 300_000):
        data = hashlib.shake_256(b"%d" % size).digest(size)
        async with running(sender.send(data)):
            assert await receiver.read(size) == data
        sent += data
    assert stage.carried(name) == len(sent)
    assert stage.carried("upstream" if name == "client" else "client") == 0


async def test_both_directions_at_once(stage: Stage) -> None:
    """Both peers send more than all buffers hold at the same time, and neither blocks the other."""
    stage.open()
    up, down = b"u" * FLOOD, b"d" * FLOOD
    async with (
        running(stage.client.send(up)),
        running(stage.upstream.send(down)),
        running(stage.upstream.read(FLOOD)) as at_upstream,
    ):
        assert await stage.client.read(FLOOD) == down
        assert await at_upstream == up
    assert (stage.tunnel.bytes_in, stage.tunnel.bytes_out) == (FLOOD, FLOOD)


async def test_early_bytes_go_first(stage: Stage) -> None:
    """What came with the handshake precedes what comes after it, on both sides, and is counted."""
    await stage.client.send(b" then this")
    await stage.upstream.send(b" and the rest")
    stage.open(from_client=b"first that,", from_upstream=b"the greeting")
    assert await stage.upstream.read(21) == b"first that, then this"
    assert await stage.client.read(25) == b"the greeting and the rest"
    assert (stage.tunnel.bytes_in, stage.tunnel.bytes_out) == (21, 25)


async def test_transports_that_were_paused_are_read_again(stage: Stage) -> None:
    """Reading goes on after the hand-over, even without early bytes."""
    stage.open()
    assert all(transport.is_reading() for transport in stage.near)
    await stage.upstream.send(b"hello")
    assert await stage.client.read(5) == b"hello"


# --- the end ----------------------------------------------------------------------------------------


@BOTH
async def test_half_close_passes_and_the_other_way_stays_open(stage: Stage, name: str) -> None:
    """A FIN reaches the other peer as a FIN after all bytes; answers still flow; two FINs are the end."""
    first, last = stage.ends_of(name)
    stage.open()
    await first.send(b"that is all")
    first.finish()
    assert await last.rest() == b"that is all"
    assert not stage.over.is_set()
    await last.send(b"thank you" * 1000)
    assert await first.read(9000) == b"thank you" * 1000
    last.finish()
    assert await first.rest() == b""
    await stage.over.wait()
    assert stage.ends == [End.COMPLETE]


async def test_a_fin_from_before_the_tunnel_is_passed_on(stage: Stage) -> None:
    """A client may have sent its FIN before the 101: the upstream hears of it, and may still answer."""
    stage.tunnel.open(from_client=b"early", from_upstream=b"", client_ended=True)
    assert await stage.upstream.rest() == b"early"
    await stage.upstream.send(b"late")
    stage.upstream.finish()
    assert await stage.client.rest() == b"late"
    await stage.over.wait()
    assert stage.ends == [End.COMPLETE]


async def test_both_peers_finish_at_once(stage: Stage) -> None:
    """Crossing FINs lose no bytes and end the tunnel once."""
    stage.open()
    await stage.client.send(b"bye")
    await stage.upstream.send(b"goodbye")
    stage.client.finish()
    stage.upstream.finish()
    assert await stage.client.rest() == b"goodbye"
    assert await stage.upstream.rest() == b"bye"
    await stage.over.wait()
    assert stage.ends == [End.COMPLETE]


@pytest.mark.parametrize(
    ("name", "end"), [("client", End.CLIENT_GONE), ("upstream", End.UPSTREAM_GONE)]
)
async def test_a_lost_peer_ends_the_tunnel(stage: Stage, name: str, end: End) -> None:
    """A reset by one peer closes the other's connection and tells whose doing it was."""
    lost, other = stage.ends_of(name)
    stage.open()
    await lost.send(b"x")
    await other.read(1)
    lost.reset()
    assert await other.rest() == b""
    assert stage.ends == [end]
    assert stage.tunnel.closed


@pytest.mark.parametrize(
    ("name", "end"), [("client", End.CLIENT_GONE), ("upstream", End.UPSTREAM_GONE)]
)
async def test_a_peer_that_finished_and_then_left(stage: Stage, name: str, end: End) -> None:
    """After its FIN a peer still owes its presence: a reset later is a loss, not an orderly end."""
    lost, other = stage.ends_of(name)
    stage.open()
    lost.finish()
    assert await other.rest() == b""
    lost.reset()
    # Nobody polls a socket that has nothing more to say: the loss shows when it is written to.
    await other.send(b"are you there?")
    await stage.over.wait()
    assert stage.ends == [end]


@BOTH
async def test_what_a_lost_peer_sent_still_arrives(stage: Stage, name: str) -> None:
    """Bytes taken from a peer reach a slow reader in full, although their sender is long gone."""
    lost, slow = stage.ends_of(name)
    _, towards_slow = stage.near_of(name)
    stage.open()
    part, sent = b"last words" * 1000, 0
    while not towards_slow.get_write_buffer_size():  # until the kernel takes no more
        await lost.send(part)
        sent += 1
        await stage.carry(name, sent * len(part))
    lost.reset()
    await stage.over.wait()
    assert await slow.rest() == sent * part


async def test_close_delivers_what_was_written_and_is_told_once(stage: Stage) -> None:
    """The edge's own end of a tunnel: written bytes go out, then both peers see the end, once."""
    stage.open()
    data = b"tail " * 60_000
    await stage.upstream.send(data)
    await stage.carry("upstream", len(data))
    stage.tunnel.close(End.DRAINED)
    stage.tunnel.close(End.GRANT_ENDED)
    assert await stage.client.rest() == data
    assert await stage.upstream.rest() == b""
    assert stage.ends == [End.DRAINED]


async def test_a_client_that_is_gone_before_the_tunnel_opens(stage: Stage) -> None:
    """Its early bytes are delivered, then the upstream sees the end."""
    stage.near[0].abort()
    stage.open(from_client=b"e" * FLOOD)
    assert await stage.upstream.rest() == b"e" * FLOOD
    assert await stage.client.rest() == b""
    assert stage.ends == [End.CLIENT_GONE]


@BOTH
async def test_a_fin_for_a_peer_that_was_just_lost(stage: Stage, name: str) -> None:
    """The last FIN of one peer and the loss of the other in one turn of the loop: one end, no complaint."""
    first, other = stage.ends_of(name)
    from_first, towards_other = stage.near_of(name)
    stage.open()
    towards_other.abort()
    from_first.get_protocol().eof_received()  # as the loop does when both come in one turn
    assert await first.rest() == b""
    assert await other.rest() == b""
    assert len(stage.ends) == 1


# --- back-pressure ----------------------------------------------------------------------------------


@BOTH
async def test_a_peer_that_does_not_read_stops_the_other(stage: Stage, name: str) -> None:
    """With a reader that stands still the writer is stopped, memory stays bounded, nothing is lost."""
    sender, slow = stage.ends_of(name)
    from_sender, towards_slow = stage.near_of(name)
    stage.open()
    data = hashlib.shake_256(name.encode()).digest(FLOOD)
    async with running(sender.send(data)) as sending:
        await until(lambda: not from_sender.is_reading())
        assert MARK < towards_slow.get_write_buffer_size() <= MARK + READ
        assert not sending.done()
        stopped = stage.carried(name)
        assert stopped < FLOOD
        received = await slow.read(FLOOD)
    assert received == data
    assert stage.carried(name) == FLOOD
    assert from_sender.is_reading()


@BOTH
async def test_one_direction_stands_still_and_the_other_goes_on(stage: Stage, name: str) -> None:
    """A peer that reads nothing can still send: its bytes do not wait for those it does not take."""
    sender, slow = stage.ends_of(name)
    from_sender, _ = stage.near_of(name)
    stage.open()
    async with running(sender.send(b"x" * FLOOD)):
        await until(lambda: not from_sender.is_reading())
        await slow.send(b"but I say this")
        assert await sender.read(14) == b"but I say this"
        await slow.read(FLOOD)


@BOTH
async def test_early_bytes_count_for_back_pressure(stage: Stage, name: str) -> None:
    """Early bytes beyond the mark stop their sender at once, until the reader has caught up."""
    sender, slow = stage.ends_of(name)
    from_sender, towards_slow = stage.near_of(name)
    early = b"e" * FLOOD  # more than the kernel takes at once
    async with running(sender.send(b"l" * FLOOD)):
        stage.open(**{f"from_{name}": early})
        assert not from_sender.is_reading()
        held = towards_slow.get_write_buffer_size()
        assert await slow.read(1) == b"e"
        assert towards_slow.get_write_buffer_size() <= held
        assert await slow.read(2 * FLOOD - 1) == early[1:] + b"l" * FLOOD
    assert from_sender.is_reading()


@BOTH
async def test_a_peer_that_was_slow_already(stage: Stage, name: str) -> None:
    """A reader who still has bytes of before to read is not forgotten in the hand-over."""
    sender, slow = stage.ends_of(name)
    from_sender, towards_slow = stage.near_of(name)
    before = b"b" * FLOOD
    towards_slow.write(before)
    full = towards_slow.get_protocol().full
    assert full
    stage.tunnel.open(
        from_client=b"",
        from_upstream=b"",
        client_full=full and name == "upstream",
        upstream_full=full and name == "client",
    )
    async with running(sender.send(b"l" * FLOOD)):
        assert await slow.read(1) == b"b"
        assert not from_sender.is_reading()
        assert towards_slow.get_write_buffer_size() <= FLOOD
        assert await slow.read(2 * FLOOD - 1) == before[1:] + b"l" * FLOOD


async def test_a_peer_lost_while_it_stood_still(stage: Stage) -> None:
    """A reader who leaves while the writer is stopped for its sake ends the tunnel, and frees the writer."""
    stage.open()

    async def write() -> None:
        with contextlib.suppress(ConnectionError):
            await stage.upstream.send(b"x" * FLOOD)

    async with running(write()):
        await until(lambda: not stage.near[1].is_reading())
        stage.client.reset()
        await stage.over.wait()
    assert stage.ends == [End.CLIENT_GONE]


# --- silence ----------------------------------------------------------------------------------------


async def test_the_kernel_watches_silent_peers(stage: Stage) -> None:
    """Both connections are kept alive by the kernel, which gives up on undelivered bytes, as settings say."""
    stage.open()
    for transport in stage.near:
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_500


async def test_sockets_that_are_not_tcp() -> None:
    """Where the kernel has no such watch (Unix sockets), tunnels work without it."""
    loop = asyncio.get_running_loop()
    (far_client, near_client), (far_app, near_app) = socket.socketpair(), socket.socketpair()
    pairs = []
    for far, near in ((far_client, near_client), (far_app, near_app)):
        far.setblocking(False)
        transport, _ = await loop.create_unix_connection(Before, sock=near)
        pairs.append((Peer(far), transport))
    (client, near_client_transport), (app, near_app_transport) = pairs
    stage = Stage(client, app, [near_client_transport, near_app_transport])
    stage.open()
    await client.send(b"hello")
    assert await app.read(5) == b"hello"
    stage.tunnel.close(End.COMPLETE)
    assert await app.rest() == b""
    for peer in (client, app):
        peer.sock.close()
