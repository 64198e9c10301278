"""Draining: idle connections go at once, what is under way is finished, what cannot be is told or cut in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from edge.core.records import State
from tests.flows.rawclient import RawClient
from tests.flows.scriptedapp import AppConnection
from tests.flows.scripts import after
from tests.flows.stage import MakeStage, Stage, until
from tests.traffic.dialogue import SWITCH, canary, ended, first, held, idle

PATIENT = {"timeout": 30, "waiters": 30, "tunnels": 30}
GOING_AWAY = b"\x88\x02\x03\xe9"


async def websocket(connection: AppConnection, _: bytes) -> None:
    """Accept the upgrade, answer a close frame with one, end."""
    await connection.send(SWITCH)
    await connection.read_exactly(8)  # masked, as a client's frames are
    await connection.send(GOING_AWAY)


@asynccontextmanager
async def draining(stage: Stage) -> AsyncIterator[asyncio.Task[None]]:
    """The edge drains; at the end it has stopped. An idle connection tells when the drain has begun."""
    box = stage.sandbox(await stage.app())
    async with await stage.client() as quiet:
        await canary(quiet, box)
        stopping = asyncio.create_task(stage.stop_edge())
        assert await quiet.at_end()
        yield stopping
        await stopping
    assert idle(stage) and not stage.edge.connections


async def test_idle_connections_are_closed_at_once(make_stage: MakeStage) -> None:
    """Kept-alive ones and ones that never sent a byte; nobody new is let in."""
    stage = await make_stage(drain=PATIENT)
    silent = await stage.client()
    await until(lambda: len(stage.edge.connections) == 1)
    async with draining(stage) as stopping:
        assert await silent.at_end()
        await stopping
    with pytest.raises(ConnectionRefusedError):
        await stage.client()
    silent.close()


@pytest.mark.parametrize("pipelined", [False, True])
async def test_exchanges_under_way_are_finished(make_stage: MakeStage, pipelined: bool) -> None:
    """They get their whole answer, which announces the end of the connection; nothing more is begun."""
    stage, release = await make_stage(drain=PATIENT), asyncio.Event()
    app = await stage.app(first(held(release)))
    box, client = stage.sandbox(app), await stage.client()
    await client.send(box.get("/slow") + (box.get("/next") if pipelined else b""))
    await app.until(lambda: len(app.requests) == 1)
    async with draining(stage) as stopping:
        assert not stopping.done()
        release.set()
        answer = await client.answer()
        assert (answer.body, answer.value("connection")) == (b"GET /slow HTTP/1.1\n", "close")
        assert await client.at_end()
    assert len(app.requests) == 1
    client.close()


@pytest.mark.parametrize("good", [True, False])
async def test_a_head_that_has_begun_is_heard_out(make_stage: MakeStage, good: bool) -> None:
    """A request whose first bytes were there is answered, or refused, and the connection ends with it."""
    stage = await make_stage(drain=PATIENT)
    box, client = stage.sandbox(await stage.app()), await stage.client()
    await canary(client, box)
    request = box.get("/begun") if good else box.get("/begun", token="")
    await client.send(request[:30])
    async with draining(stage):
        await client.send(request[30:])
        answer = await client.answer()
        assert (answer.status, answer.value("connection")) == (200 if good else 401, "close")
        assert await client.at_end()
    client.close()


async def test_streams_go_on_to_their_end(make_stage: MakeStage) -> None:
    """An answer that has begun is not cut while there is time."""
    stage, release = await make_stage(drain=PATIENT), asyncio.Event()

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
        await release.wait()
        await connection.send(b" last")

    box, client = stage.sandbox(await stage.app(first(script))), await stage.client()
    await client.send(box.get())
    assert (await client.head()).status == 200
    async with draining(stage):
        assert await client.exactly(5) == b"first"
        release.set()
        assert await client.rest() == b" last"
    client.close()


async def test_waiters_are_answered_at_their_deadline(make_stage: MakeStage) -> None:
    """Who still waits for a wake then is told to try elsewhere: 503, retryable, connection closed."""
    stage = await make_stage(drain={"timeout": 30, "waiters": 0.2, "tunnels": 0})
    stage.plane.on_resume = after(asyncio.Event())
    box, client = stage.sandbox(await stage.app(), State.PAUSED), await stage.client()
    await client.send(box.get())
    await stage.plane.called("resume")
    async with draining(stage):
        answer = await client.answer()
        assert (answer.status, answer.code) == (503, "edge_draining")
        assert answer.value("retry-after") == "5" and answer.value("connection") == "close"
        assert await client.at_end()
    client.close()


async def test_who_connects_as_the_edge_begins_to_drain(stage: Stage) -> None:
    """The kernel may have accepted a connection just before: it is told why it is closed."""
    stage.edge.flow.draining = True
    async with await stage.client() as client:
        answer = await client.answer()
        assert (answer.status, answer.code, answer.value("connection")) == (
            503,
            "edge_draining",
            "close",
        )
        assert await client.at_end()
    assert not len(stage.edge.connections)


async def test_waiters_that_are_served_in_time(make_stage: MakeStage) -> None:
    """A wake that ends before the deadline serves its waiters as ever."""
    stage, ready = await make_stage(drain=PATIENT), asyncio.Event()
    stage.plane.on_resume = after(ready)
    box, client = stage.sandbox(await stage.app(), State.PAUSED), await stage.client()
    await client.send(box.get("/woken"))
    await stage.plane.called("resume")
    async with draining(stage):
        ready.set()
        answer = await client.answer()
        assert (answer.body, answer.value("connection")) == (b"GET /woken HTTP/1.1\n", "close")
    client.close()


async def tunnels(stage: Stage, many: int) -> list[RawClient]:
    """So many open tunnels."""
    box = stage.sandbox(await stage.app(first(*[websocket] * many)))
    clients = [await stage.client() for _ in range(many)]
    for client in clients:
        assert (await client.ask(box.upgrade())).status == 101
    return clients


async def test_tunnels_are_closed_spread_over_their_time(make_stage: MakeStage) -> None:
    """Not all at once, or their clients would all be back at once; each with a close frame to both peers."""
    stage = await make_stage(drain={"timeout": 30, "waiters": 0, "tunnels": 2})
    clients = await tunnels(stage, 8)
    async with draining(stage):
        endings = [asyncio.create_task(client.rest()) for client in clients]
        done, open_still = await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
        assert done and open_still
        assert [await ending for ending in endings] == [GOING_AWAY] * 8
        for client in clients:
            client.close()
    assert ended(stage)["1xx", "", "drained"] == 8


async def test_tunnels_are_all_closed_when_their_time_is_none(make_stage: MakeStage) -> None:
    """Zero seconds are no spread: all of them at once, and none is forgotten."""
    stage = await make_stage(drain={"timeout": 30, "waiters": 0, "tunnels": 0})
    clients = await tunnels(stage, 3)
    async with draining(stage):
        for client in clients:
            assert await client.rest() == GOING_AWAY
            client.close()
    assert ended(stage)["1xx", "", "drained"] == 3


async def test_a_tunnel_that_ends_by_itself_meanwhile(make_stage: MakeStage) -> None:
    """Its turn comes to nothing, and the drain goes on."""
    stage = await make_stage(drain=PATIENT)
    (client,) = await tunnels(stage, 1)
    async with draining(stage):
        client.reset()
    assert ended(stage)["1xx", "", "client_gone"] == 1


@pytest.mark.parametrize("timeout", [0, 0.3])
async def test_what_is_left_is_cut_when_time_is_up(make_stage: MakeStage, timeout: float) -> None:
    """Unanswered: 503. Answered in part: truncated. Waiting for a port: 503. Tunnels and heads: closed."""
    stage = await make_stage(
        drain={"timeout": timeout, "waiters": 30, "tunnels": 30}, wake={"refused_retry": 60}
    )

    async def half(connection: AppConnection, _: bytes) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await connection.read_to_end()

    async def stuck(connection: AppConnection, _: bytes) -> None:
        await connection.read_to_end()

    thinking = await stage.app(first(stuck))
    streaming = await stage.app(first(half))
    refusing = await stage.app(listening=False)
    stage.plane.on_resume = after(asyncio.Event())
    unanswered, begun, dialing, waiting = [await stage.client() for _ in range(4)]
    (tunnel,) = await tunnels(stage, 1)
    dripping = await stage.client()
    await unanswered.send(stage.sandbox(thinking).get())
    await begun.send(stage.sandbox(streaming).get())
    await dialing.send(stage.sandbox(refusing).get())
    await waiting.send(stage.sandbox(await stage.app(), State.PAUSED).get())
    await dripping.send(b"GET / HT")
    await thinking.until(lambda: len(thinking.requests) == 1)
    assert (await begun.head()).status == 200
    await stage.plane.called("resume")
    await until(lambda: stage.edge.admission.counts()["exchanges"] == 3)
    stopping = asyncio.create_task(stage.stop_edge())
    for client in (unanswered, dialing, waiting):
        answer = await client.answer()
        assert (answer.status, answer.code) == (503, "edge_draining")
        assert await client.at_end()
        client.close()
    for client in (begun, dripping, tunnel):
        with suppress(ConnectionResetError):
            assert await client.rest() in (b"half", b"", GOING_AWAY)
        client.close()
    await stopping
    assert idle(stage) and not stage.edge.connections
    assert ended(stage)["2xx", "", "drained"] == 1
    assert ended(stage)["5xx", "edge_draining", "drained"] == 3
