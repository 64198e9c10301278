"""What the kernel is told about peers that may vanish, on real sockets of a real edge."""

from __future__ import annotations

import socket

import pytest

from edge.core.settings import TcpSettings
from edge.traffic.liveness import Liveness
from tests.flows.scriptedapp import AppConnection
from tests.flows.stage import MakeStage

linux_only = pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="has no TCP_USER_TIMEOUT"
)
NAMES = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")


def told(sock: socket.socket) -> list[int]:
    """SO_KEEPALIVE, and then the values of `NAMES`."""
    values = [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in NAMES]
    return [sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), *values]


async def switch(app: AppConnection) -> None:
    """Becomes a tunnel, and says nothing until its end."""
    await app.read_head()
    await app.send(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    await app.read_to_end()


def fresh() -> socket.socket:
    """A socket that nobody has told anything."""
    return socket.socket()


@linux_only
def test_zero_leaves_it_to_the_kernel() -> None:
    """Neither probes nor a bound; what the kernel had is left alone."""
    off = Liveness(TcpSettings(keepalive_idle=0, user_timeout=0))
    with fresh() as one, fresh() as untouched:
        off.probe(one)
        off.expect_delivery(one)
        assert told(one) == told(untouched)


def test_what_is_not_tcp_is_passed_over() -> None:
    """Unix sockets, closed ones and none at all: nothing happens."""
    liveness = Liveness(TcpSettings())
    one, other = socket.socketpair()
    with other:
        liveness.expect_delivery(one)
        one.close()
        liveness.expect_delivery(one)
    liveness.probe(None)


@linux_only
async def test_clients_and_apps_are_watched_from_the_start(make_stage: MakeStage) -> None:
    """A client's connection has all of it before it sends a byte; an app's has the probes alone, because
    `deadlines.first_byte` says how long an app may leave a request unread.
    """
    tcp = {"keepalive_idle": 41, "keepalive_interval": 7, "keepalive_count": 3, "user_timeout": 9.5}
    stage = await make_stage(tcp=tcp)
    app = await stage.app()
    box = stage.sandbox(app)
    async with await stage.client() as client:
        await client.ask(box.get("/"))
        (connection,) = stage.edge.connections
        assert told(connection.transport.get_extra_info("socket")) == [1, 41, 7, 3, 9500]
        (route,) = stage.edge.flow._routes._routes.values()
        (upstream,) = route._open
        assert told(upstream.transport.get_extra_info("socket")) == [1, 41, 7, 3, 0]


@linux_only
async def test_both_ends_of_a_tunnel_have_a_bound(make_stage: MakeStage) -> None:
    """Once bytes flow both ways there is no deadline of ours; the kernel's holds for the app, too."""
    stage = await make_stage(tcp={"user_timeout": 9.5})
    box = stage.sandbox(await stage.app(switch))
    async with await stage.client() as client:
        assert (await client.ask(box.upgrade())).status == 101
        (connection,) = stage.edge.connections
        assert connection.exchange is not None and connection.exchange.tunnel is not None
        tunnel = connection.exchange.tunnel
        for side in (tunnel._client, tunnel._upstream):
            assert told(side.transport.get_extra_info("socket"))[-1] == 9500
