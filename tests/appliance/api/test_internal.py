"""The internal API: what an edge does, on the wire, and with the edge's own client."""

from __future__ import annotations

import asyncio
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from aiohttp import WSServerHandshakeError
from pydantic import SecretStr
from service import PAUSES, TOKEN, Service, until

from edge.appliance.api import internal
from edge.core.records import SandboxRecord, State
from edge.core.settings import ControlPlaneSettings
from edge.state.http import HttpStatePort
from edge.state.port import (
    Change,
    Heartbeat,
    RefusalReason,
    ResumeRefused,
    Resync,
    Usage,
    UsageBatch,
)


async def test_the_edges_own_client_is_served(service: Service) -> None:
    """Records, wake, refusals, usage and acks through `HttpStatePort`, nothing else in between."""
    sandbox = await service.create(**PAUSES)
    settings = ControlPlaneSettings(
        url=f"http://127.0.0.1:{service.plane.port}", token=SecretStr(TOKEN)
    )
    port = HttpStatePort(settings, "edge-1")
    try:
        record = await port.sandbox(sandbox)
        assert record is not None and record.state is State.RUNNING and record.incarnation == 1
        assert await port.sandbox("sb_unknown1") is None
        assert await port.grant("pvg_unknown") is None
        await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
        wakes = [port.resume(sandbox, 1, "preview", 10) for _ in range(20)]
        records = await asyncio.gather(*wakes)
        assert {(r.state, r.incarnation) for r in records} == {(State.RUNNING, 2)}
        with pytest.raises(ResumeRefused) as refused:
            await port.resume("sb_unknown1", 1, "preview", 10)
        assert refused.value.reason is RefusalReason.NOT_FOUND
        other = await service.create(timeout_action="hibernate")
        await service.api("POST", f"/v1/sandboxes/{other}/hibernate")
        with pytest.raises(ResumeRefused) as refused:
            await port.resume(other, 1, "preview", 10)
        assert refused.value.reason is RefusalReason.AUTO_RESUME_DISABLED
        _, preview = await service.api("GET", f"/v1/sandboxes/{sandbox}/ports/80/preview-url")
        grant = preview["grant"]["id"]
        batch = UsageBatch("edge-1", 7, (Usage(sandbox, grant, requests=2, bytes_in=5),))
        for _ in range(3):
            await port.report(batch)
        _, listed = await service.api("GET", f"/v1/sandboxes/{sandbox}/preview-urls")
        assert (listed["items"][0]["use_count"], listed["items"][0]["bytes_in_count"]) == (2, 5)
        await port.ack(sandbox, 99, 0)
        async with aclosing(port.watch(0)) as events:  # type: ignore[type-var]
            assert isinstance(await anext(events), Resync)
    finally:
        await port.close()


async def test_changes_are_seen_in_order_and_again_after_a_gap(service: Service) -> None:
    """A watcher that comes back with its cursor misses nothing."""
    async with service.watch("edge-1") as watcher:
        first = await watcher.next()
        assert isinstance(first, Heartbeat)
        sandbox = await service.create(**PAUSES)
        created, running = await watcher.change(), await watcher.change()
        assert [c.record.state for c in (created, running)] == ["creating", "running"]
        assert created.cursor == first.cursor + 1
    await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
    await service.api("DELETE", f"/v1/sandboxes/{sandbox}")
    async with service.watch("edge-1", running.cursor) as watcher:
        states = [(await watcher.change()).record.state for _ in range(3)]
        assert states == ["pausing", "paused", "destroyed"]
        assert isinstance(await watcher.next(), Heartbeat)
    _, record = await service.edge("GET", f"sandboxes/{sandbox}")
    assert record["state"] == "destroyed"


async def test_the_barrier_end_to_end(service: Service) -> None:
    """Two edges: one with a request in flight keeps the sandbox awake, then both let it pause."""
    async with service.watch("a") as first, service.watch("b") as second:
        assert isinstance(await first.next(), Heartbeat) and isinstance(
            await second.next(), Heartbeat
        )
        sandbox = await service.create(**PAUSES, inactivity_timeout_ms=50)

        async def ack(edge: str, version: int, in_flight: int) -> None:
            body = {"edge": edge, "sandbox_id": sandbox, "version": version, "in_flight": in_flight}
            assert await service.edge("POST", "acks", body) == (204, None)

        pausing = await first.until("pausing")
        await ack("a", pausing.version, 0)
        await ack("b", pausing.version, 1)
        running = await first.until("running")
        assert running.version == pausing.version + 1
        assert running.incarnation == pausing.incarnation
        pausing = await first.until("pausing")
        await ack("a", pausing.version, 0)
        await ack("b", pausing.version, 0)
        assert (await first.until("paused")).version == pausing.version + 1
        assert (await second.until("paused")).incarnation == 1


async def test_an_edge_is_alive_while_its_socket_is_open(service: Service) -> None:
    """Membership follows the socket, whoever closes it."""
    edges = service.plane.parts.edges
    async with service.watch("a") as watcher:
        await watcher.next()
        assert edges.live == {"a"}
    await until(lambda: not edges.live)


async def test_a_server_that_stops_ends_its_watchers(service: Service) -> None:
    """Edges are let go at once, not after a time-out."""
    async with service.watch("a") as watcher:
        await watcher.next()
        async with asyncio.timeout(5):
            await service.plane.stop()
            while not watcher.socket.closed:
                await watcher.socket.receive()


@asynccontextmanager
async def taking_nothing(service: Service) -> AsyncIterator[sockets.socket]:
    """The socket of an edge "a" that reads nothing, and to which nothing more can be sent."""
    loop, parts = asyncio.get_running_loop(), service.plane.parts
    runner = service.plane._runner
    assert runner is not None and runner.server is not None
    with sockets.socket() as raw:
        raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await loop.sock_connect(raw, ("127.0.0.1", service.plane.port))
        head = (
            "GET /internal/edge/v1/events?edge=a HTTP/1.1\r\nHost: plane\r\n"
            f"Authorization: Bearer {TOKEN}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        await loop.sock_sendall(raw, head.encode())
        await until(lambda: parts.edges.live == {"a"}, 20)
        version = 0
        while not any(one._drain_waiter for one in runner.server.connections):
            for _ in range(200):
                version += 1
                long = SandboxRecord(
                    "sb_" + "x" * 3000, State.RUNNING, version, 1, auto_resume=False
                )
                parts.feed.publish(long)
            await asyncio.sleep(0.01)
        yield raw


async def test_a_server_that_stops_lets_go_of_an_edge_that_takes_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its handler comes to its end, as if nobody had been in the middle of sending."""
    ended = []
    watch = internal._watch

    async def told(*what: object) -> None:
        await watch(*what)  # type: ignore[arg-type]
        ended.append(True)

    monkeypatch.setattr(internal, "_watch", told)
    async with taking_nothing(service):
        await service.plane.stop()
    assert ended


@pytest.mark.parametrize("says", [b"", b"\xff" * 20])
async def test_an_edge_that_takes_nothing_is_gone(
    service: Service, monkeypatch: pytest.MonkeyPatch, says: bytes
) -> None:
    """It does not hold up pauses, whatever it says itself; and nothing is kept for it."""
    monkeypatch.setattr(internal, "STALL", 1.0)
    runner = service.plane._runner
    assert runner is not None and runner.server is not None
    async with taking_nothing(service) as raw:
        await asyncio.get_running_loop().sock_sendall(raw, says)
        await until(lambda: not service.plane.parts.edges.live, 20)
        await until(lambda: not runner.server.connections, 20)


@pytest.mark.parametrize(
    "query",
    ["", "edge=", "edge=a&cursor=x", "edge=a&cursor=-1", "edge=a&cursor=", "edge=" + "x" * 300],
)
async def test_watches_that_cannot_be(service: Service, query: str) -> None:
    """A bad query is 400 before the upgrade; so is a request that asks for none."""
    status, error = await service.edge("GET", f"events?{query}")
    assert (status, error["code"]) == (400, "invalid_request")
    status, _ = await service.edge("GET", "events?edge=a")
    assert status == 400
    with pytest.raises(WSServerHandshakeError, match="401"):
        await service.session.ws_connect("/internal/edge/v1/events?edge=a")


@pytest.mark.parametrize("cursor", [0, 1, 10**17])
async def test_unknown_cursors_are_told(service: Service, cursor: int) -> None:
    """Too old or from elsewhere: resync first, then live."""
    async with service.watch("a", cursor) as watcher:
        resync = await watcher.next()
        assert isinstance(resync, Resync)
        await service.create()
        change = await watcher.change()
        assert isinstance(change, Change) and change.cursor == resync.cursor + 1


@pytest.mark.parametrize(
    "path", ["sandboxes/sb_no", "grants/pvg_no", "sandboxes/%00", "grants/..%2f"]
)
async def test_unknown_records(service: Service, path: str) -> None:
    """The 404 carries the code that edges look for."""
    status, error = await service.edge("GET", path)
    assert (status, error["code"]) == (404, "not_found")
    status, error = await service.edge("POST", "sandboxes/sb_no/resume", {"paused_incarnation": 1})
    assert (status, error["code"]) == (404, "not_found")
