"""Room that is full, budgets that are spent, an edge that is leaving: 503, and no wake for it."""

from __future__ import annotations

import asyncio

import pytest

from edge.core.records import State
from tests.flows.rawclient import RawClient
from tests.flows.scriptedapp import AppConnection
from tests.flows.scripts import after, hang
from tests.flows.stage import MakeStage, Preview, Stage, until
from tests.flows.test_failed_wakes import refused
from tests.flows.test_websocket_wakes import ACCEPTED


async def wait_in(stage: Stage, box: Preview, count: int) -> list[RawClient]:
    """So many more clients that wait for the box to wake."""
    before = stage.edge.admission.counts()["waiting"]
    clients = [await stage.client() for _ in range(count)]
    for client in clients:
        await client.send(box.get("/waited"))
    await until(lambda: stage.edge.admission.counts()["waiting"] == before + count)
    return clients


@pytest.mark.parametrize(
    ("limit", "other_sandbox", "other_grant"),
    [
        ("waiting", False, False),
        ("waiting_per_sandbox", True, False),
        ("waiting_per_grant", True, True),
        ("in_flight_per_sandbox", True, False),
    ],
)
async def test_no_room_to_wait(
    make_stage: MakeStage, limit: str, other_sandbox: bool, other_grant: bool
) -> None:
    """The one too many is refused at once; those inside are served; what is beside the limit has room.

    ``other_sandbox``, ``other_grant``: whether another sandbox, or another grant of this one, still
    has room when this one's is full.
    """
    stage = await make_stage(admission={limit: 3})
    ready = asyncio.Event()
    stage.plane.on_resume = after(ready)
    app = await stage.app()
    box, other = stage.sandbox(app, State.PAUSED), stage.sandbox(app, State.PAUSED)
    clients = await wait_in(stage, box, 3)
    refused(await stage.ask(box.get()), "preview_overloaded")
    same_sandbox = stage.preview(box.id)
    if other_grant:
        clients += await wait_in(stage, same_sandbox, 1)
    else:
        refused(await stage.ask(same_sandbox.get()), "preview_overloaded")
    if other_sandbox:
        clients += await wait_in(stage, other, 1)
    else:
        refused(await stage.ask(other.get()), "preview_overloaded")
    ready.set()
    for client in clients:
        assert (await client.answer()).body == b"GET /waited HTTP/1.1\n"
        client.close()
    # Room that was taken is given back.
    assert (await stage.ask(box.get())).status == 200
    assert stage.plane.incarnations[box.id] == 1


async def test_a_grant_has_so_many_wakes(make_stage: MakeStage) -> None:
    """A leaked link cannot wake for ever: its budget ends, another grant's is its own."""
    stage = await make_stage(wake={"budget_per_hour": 2})
    box = stage.sandbox(await stage.app(), State.PAUSED)
    for _ in range(2):
        assert (await stage.ask(box.get())).status == 200
        await stage.heard(stage.plane.pause(box.id))
    answer = await stage.ask(box.get())
    refused(answer, "preview_overloaded")
    assert stage.plane.counts["resume"] == 2
    assert (await stage.ask(stage.preview(box.id).get())).status == 200
    assert stage.plane.counts["resume"] == stage.plane.incarnations[box.id] == 3
    # The budget is for wakes: what runs is served under the spent grant as well.
    assert (await stage.ask(box.get())).status == 200


async def test_no_room_for_a_connection(make_stage: MakeStage) -> None:
    """A connection too many is told so and closed; one that ends makes room."""
    stage = await make_stage(admission={"connections": 2})
    box = stage.sandbox(await stage.app())
    async with await stage.client() as first, await stage.client() as second:
        for client in (first, second):
            assert (await client.ask(box.get())).status == 200
        async with await stage.client() as third:
            answer = await third.answer()
            refused(answer, "preview_overloaded")
            assert answer.value("connection") == "close"
            assert await third.at_end()
        first.close()
        await until(lambda: stage.edge.admission.counts()["connections"] == 1)
        assert (await stage.ask(box.get())).status == 200


async def test_an_edge_that_drains_lets_its_waiters_go(stage: Stage) -> None:
    """Those who wait for a wake hear ``edge_draining``, and the connection ends."""
    stage.plane.on_resume = hang
    box = stage.sandbox(await stage.app(), State.PAUSED)
    clients = await wait_in(stage, box, 5)
    await stage.stop_edge()
    for client in clients:
        answer = await client.answer()
        refused(answer, "edge_draining")
        assert answer.value("connection") == "close"
        assert await client.at_end()
        client.close()


async def test_a_drain_waits_for_a_wake_that_comes_in_time(make_stage: MakeStage) -> None:
    """Waiters have their time: a wake that ends within it is answered by the app, and then it is over."""
    stage = await make_stage(drain={"timeout": 30, "waiters": 30, "tunnels": 0})
    ready = asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(await stage.app(), State.PAUSED)
    (client,) = await wait_in(stage, box, 1)
    idle = await stage.client()
    stopping = asyncio.create_task(stage.stop_edge())
    assert await idle.at_end()  # the drain has begun
    idle.close()
    with pytest.raises(ConnectionRefusedError):
        await stage.client()
    ready.set()
    answer = await client.answer()
    assert (answer.status, answer.body) == (200, b"GET /waited HTTP/1.1\n")
    assert answer.value("connection") == "close"
    assert await client.at_end()
    client.close()
    await stopping
    assert stage.plane.incarnations[box.id] == 1


@pytest.mark.parametrize("half", ["client", "app"])
async def test_a_drain_ends_tunnels_that_are_half_closed(stage: Stage, half: str) -> None:
    """Who has said that he will send no more is sent no close frame in his name; the drain goes on."""

    async def handler(connection: AppConnection) -> None:
        await connection.read_head()
        await connection.send(ACCEPTED)
        if half == "app":
            connection.end()
        await connection.read_to_end()
        await asyncio.Event().wait()

    app = await stage.app(handler)
    async with await stage.client() as client:
        assert (await client.ask(stage.sandbox(app).upgrade())).status == 101
        if half == "client":
            client.end()
            await until(lambda: app.played[0].ended)
        else:
            assert await client.at_end()
        await stage.stop_edge()
        await client.rest()
    await app.until(lambda: app.played[0].ended)
    assert stage.edge.admission.counts()["tunnels"] == 0
