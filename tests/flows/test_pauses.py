"""A sandbox that is paused, moved or destroyed while requests come in, wait and run."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from edge.core.records import State
from tests.flows.rawclient import RawClient
from tests.flows.scriptedapp import AppConnection
from tests.flows.scripts import Call, after, hang, resume, told
from tests.flows.stage import Preview, Stage, until
from tests.flows.test_failed_wakes import refused
from tests.flows.test_websocket_wakes import ACCEPTED, shout


class Gate:
    """An app that reads a request, then answers when it is let."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, connection: AppConnection) -> None:
        while await connection.read_head():
            await self.open.wait()
            await connection.answer(b"done")


async def waits(stage: Stage, request: bytes) -> RawClient:
    """A client whose request waits for the sandbox."""
    before = stage.edge.admission.counts()["waiting"]
    client = await stage.client()
    await client.send(request)
    await until(lambda: stage.edge.admission.counts()["waiting"] == before + 1)
    return client


async def pausing(stage: Stage, box: Preview) -> int:
    """Publish ``pausing``; the number in flight that the edge acknowledges."""
    record = stage.plane.change_sandbox(box.id, state=State.PAUSING)
    await stage.plane.until(lambda: any(a.version == record.version for a in stage.plane.acks))
    (ack,) = [ack for ack in stage.plane.acks if ack.version == record.version]
    assert (ack.edge, ack.sandbox_id) == ("edge-1", box.id)
    return ack.in_flight


async def test_a_pause_for_inactivity_waits_for_what_is_under_way(stage: Stage) -> None:
    """The barrier counts the open exchange; the sandbox runs on, and nobody notices anything."""
    gate = Gate()
    app = await stage.app(gate)
    box = stage.sandbox(app)
    async with await stage.client() as first:
        await first.send(box.get("/1"))
        await app.until(lambda: len(app.requests) == 1)
        assert await pausing(stage, box) == 1
        second = await waits(stage, box.get("/2"))
        assert len(app.requests) == 1, "a request was let into a sandbox being paused"
        stage.plane.change_sandbox(box.id, state=State.RUNNING)
        await app.until(lambda: len(app.requests) == 2)
        gate.open.set()
        for client in (first, second):
            assert (await client.answer()).body == b"done"
        second.close()
    assert stage.plane.counts["resume"] == 0


async def test_a_request_that_meets_a_pause_wakes_it_again(stage: Stage) -> None:
    """Nothing under way: zero is acknowledged, the sandbox is paused, and who came meanwhile wakes it."""
    app = await stage.app()
    box = stage.sandbox(app)
    assert (await stage.ask(box.get("/before"))).status == 200
    assert await pausing(stage, box) == 0
    client = await waits(stage, box.request("POST", "/meanwhile", body=b"body"))
    assert stage.plane.counts["resume"] == 0
    stage.plane.pause(box.id)
    assert (await client.answer()).body == b"POST /meanwhile HTTP/1.1\nbody"
    client.close()
    assert stage.plane.counts["resume"] == stage.plane.incarnations[box.id] == 1
    assert len(app.requests) == 2


async def test_an_edge_answers_for_sandboxes_it_never_served(stage: Stage) -> None:
    """Every edge acknowledges every pause, or the control plane would wait for it in vain."""
    box = stage.sandbox(await stage.app())
    assert await pausing(stage, box) == 0
    assert stage.plane.asked == {"sandbox": 0, "grant": 0, "resume": 0}


async def test_a_silent_tunnel_is_not_under_way(stage: Stage) -> None:
    """An open WebSocket does not hold up a pause for inactivity; the pause ends it."""
    app = await stage.app(shout)
    box = stage.sandbox(app)
    async with await stage.client() as client:
        assert (await client.ask(box.upgrade())).status == 101
        assert await client.exactly(5) == b"hello"
        assert await pausing(stage, box) == 0
        await client.send(b"still here")
        assert await client.exactly(10) == b"still here"
        stage.plane.pause(box.id)
        assert await client.at_end()


@pytest.mark.parametrize("end", [State.RUNNING, State.PAUSED])
async def test_a_pause_without_auto_resume(stage: Stage, end: State) -> None:
    """While it is being paused it may go on running, so requests wait; once paused they are refused."""
    box = stage.sandbox(await stage.app(), auto_resume=False)
    assert (await stage.ask(box.get())).status == 200
    assert await pausing(stage, box) == 0
    client = await waits(stage, box.get())
    if end is State.RUNNING:
        stage.plane.change_sandbox(box.id, state=State.RUNNING)
        assert (await client.answer()).status == 200
    else:
        stage.plane.pause(box.id)
        refused(await client.answer(), "sandbox_paused_auto_resume_disabled", retryable=False)
    client.close()
    assert stage.plane.counts["resume"] == 0


async def test_an_ordered_pause_cuts_what_is_under_way(stage: Stage) -> None:
    """No byte of an answer yet: 502. In the middle of one: truncated, so that it shows. Then it wakes again."""

    async def handler(connection: AppConnection) -> None:
        head = await connection.read_head()
        if head.startswith(b"GET /half "):
            await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            await connection.send(b"4\r\nhalf\r\n")
        if head.startswith(b"GET /again "):
            await connection.answer(b"again")
        await connection.read_to_end()

    app = await stage.app(handler)
    box = stage.sandbox(app)
    async with await stage.client() as silent, await stage.client() as half:
        await silent.send(box.get("/silent"))
        await half.send(box.get("/half"))
        assert (await half.head()).status == 200
        assert await half.chunk() == b"half"
        await app.until(lambda: len(app.requests) == 2)
        stage.plane.pause(box.id)
        answer = await silent.answer()
        assert (answer.status, answer.code) == (502, "preview_upstream_closed")
        assert await half.at_end(), "the answer looks complete"
        assert stage.plane.counts["resume"] == 0
        assert (await silent.ask(box.get("/again"))).body == b"again"
    assert stage.plane.counts["resume"] == stage.plane.incarnations[box.id] == 1


async def test_a_resume_that_somebody_else_began_is_waited_for(stage: Stage) -> None:
    """The API resumes it: the request waits for that, and asks for no resume of its own."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    stage.plane.change_sandbox(box.id, state=State.RESUMING)
    client = await waits(stage, box.get())
    stage.plane.begin_incarnation(box.id)
    assert (await client.answer()).status == 200
    client.close()
    assert stage.plane.counts["resume"] == 0


async def test_a_resume_by_the_api_overtakes_ours(stage: Stage) -> None:
    """The change says that it runs while our call still hangs: nobody waits for the answer."""
    stage.plane.on_resume = hang
    box = stage.sandbox(await stage.app(), State.PAUSED)
    client = await waits(stage, box.get())
    await stage.plane.called("resume")
    stage.plane.begin_incarnation(box.id)
    assert (await client.answer()).status == 200
    client.close()
    assert stage.plane.counts["resume"] == stage.plane.incarnations[box.id] == 1


async def test_the_answer_may_come_before_the_news(stage: Stage) -> None:
    """A resume whose answer overtakes the change is believed as it is."""

    async def untold(call: Call) -> web.StreamResponse:
        return told(call.plane.begin_incarnation(call.id, tell=False))

    stage.plane.on_resume = untold
    box = stage.sandbox(await stage.app(), State.PAUSED)
    assert (await stage.ask(box.get())).status == 200
    assert stage.plane.counts["resume"] == stage.plane.incarnations[box.id] == 1


async def test_paused_again_before_the_request_was_sent(stage: Stage) -> None:
    """Resumed and at once paused by an order: the waiting request wakes it a second time."""

    async def and_pause(call: Call) -> web.StreamResponse:
        call.plane.on_resume = resume
        call.plane.begin_incarnation(call.id, tell=False)
        return told(call.plane.pause(call.id, tell=False))

    stage.plane.on_resume = and_pause
    box = stage.sandbox(await stage.app(), State.PAUSED)
    assert (await stage.ask(box.get())).status == 200
    assert stage.plane.incarnations[box.id] == stage.plane.counts["resume"] == 2


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [(State.DESTROYED, 404, "sandbox_not_found"), (State.ERROR, 503, "sandbox_error")],
)
async def test_the_sandbox_ends_while_it_is_waited_for(
    stage: Stage, end: State, status: int, code: str
) -> None:
    """Destroyed or broken in the middle of a wake: all waiters hear it at once."""
    stage.plane.on_resume = after(asyncio.Event())
    box = stage.sandbox(await stage.app(), State.PAUSED)
    clients = [await waits(stage, box.get()) for _ in range(3)]
    stage.plane.change_sandbox(box.id, state=end, upstream=None)
    for client in clients:
        answer = await client.answer()
        assert (answer.status, answer.code) == (status, code)
        client.close()
    answer = await stage.ask(box.get())
    assert (answer.status, answer.code) == (status, code)
    assert stage.plane.counts["resume"] == 1


async def test_destroyed_under_an_open_tunnel(stage: Stage) -> None:
    """When the sandbox is gone its tunnels end, and a valid token is told 404 whatever its grant says."""

    async def handler(connection: AppConnection) -> None:
        await connection.read_head()
        await connection.send(ACCEPTED)
        await connection.read_to_end()

    box = stage.sandbox(await stage.app(handler))
    async with await stage.client() as client:
        assert (await client.ask(box.upgrade())).status == 101
        stage.plane.change_sandbox(box.id, state=State.DESTROYED, upstream=None)
        assert await client.at_end()
    answer = await stage.ask(box.get())
    assert (answer.status, answer.code) == (404, "sandbox_not_found")
