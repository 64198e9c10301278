"""Every kind of request wakes its sandbox once, and arrives there as it was sent."""

from __future__ import annotations

import asyncio

import pytest

from edge.core.credentials import Family
from edge.core.records import State
from tests.flows.scriptedapp import AppConnection, fields_of
from tests.flows.scripts import after
from tests.flows.stage import Preview, Stage

MEGABYTE = 1 << 20


async def canary(stage: Stage, box: Preview) -> None:
    """A whole exchange with another sandbox: whatever the edge was about to do, it had the time for."""
    for _ in range(5):
        answer = await stage.ask(box.get("/canary"))
        assert (answer.status, answer.body) == (200, b"GET /canary HTTP/1.1\n")


def woken_once(stage: Stage, box: Preview) -> None:
    """The control plane saw one resume and began one incarnation."""
    assert stage.plane.counts["resume"] == 1
    assert stage.plane.incarnations[box.id] == 1
    assert stage.plane.sandboxes[box.id].incarnation == 2


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_a_request_of_any_method_wakes(stage: Stage, method: str) -> None:
    """The original request is answered by the resumed app, its own body included."""
    app = await stage.app()
    box = stage.sandbox(app, State.PAUSED)
    body = b"some bytes" if method in {"POST", "PUT", "PATCH"} else None
    answer = await stage.ask(box.request(method, "/a/b?c=%20d&e", body=body))
    assert answer.status == 200
    if method != "HEAD":
        assert answer.body == f"{method} /a/b?c=%20d&e HTTP/1.1\n".encode() + (body or b"")
    assert len(app.requests) == 1 and b"edge_token" not in app.requests[0]
    woken_once(stage, box)


@pytest.mark.parametrize("credential", ["cookie", "proxy"])
async def test_every_credential_wakes(stage: Stage, credential: str) -> None:
    """The continuation cookie and the proxy token wake as the edge token does."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    fields = box.cookie() if credential == "cookie" else box.proxy()
    assert (await stage.ask(box.get("/", fields, token=""))).status == 200
    woken_once(stage, box)


async def test_nothing_is_sent_before_the_resume_has_ended(stage: Stage) -> None:
    """While it waits the client hears nothing and the app is not even dialed; the window is passed on."""
    app, ready = await stage.app(), asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(app, State.PAUSED)
    waiting = asyncio.create_task(stage.ask(box.get()))
    await stage.plane.called("resume")
    await canary(stage, stage.sandbox(await stage.app()))
    assert not waiting.done() and app.connections == 0
    ready.set()
    assert (await waiting).status == 200
    (call,) = [call for call in stage.plane.calls if call.kind == "resume"]
    assert 0 < call.timeout <= 20
    woken_once(stage, box)


async def test_an_upload_waits_at_the_client(stage: Stage) -> None:
    """Of a streamed body only a bounded part is taken while it sleeps; all of it arrives in the end."""
    bodies: list[bytes] = []

    async def handler(connection: AppConnection) -> None:
        head = await connection.read_head()
        bodies.append(await connection.read_body(head))
        await connection.answer(b"thanks")

    app, ready = await stage.app(handler), asyncio.Event()
    stage.plane.on_resume = after(ready)
    box, other = stage.sandbox(app, State.PAUSED), stage.sandbox(await stage.app())
    body = bytes(range(256)) * (16 * MEGABYTE // 256)
    async with await stage.client() as client:
        client.writer.write(box.request("POST", "/up", b"Transfer-Encoding: chunked\r\n"))
        for start in range(0, len(body), 70_001):
            piece = body[start : start + 70_001]
            client.writer.write(b"%X\r\n%b\r\n" % (len(piece), piece))
        client.writer.write(b"0\r\n\r\n")
        await stage.plane.called("resume")
        left = -1
        while left != (left := client.writer.transport.get_write_buffer_size()):
            await canary(stage, other)  # as long as anything still moves
        # What has left us is what kernels buffer and the bounded part; megabytes would be the body.
        assert left > len(body) - 8 * MEGABYTE
        assert app.connections == 0
        ready.set()
        answer = await client.answer()
    assert (answer.status, answer.body) == (200, b"thanks")
    assert bodies == [body]
    assert fields_of(app.requests[0])[b"transfer-encoding"] == b"chunked"
    woken_once(stage, box)


async def test_a_body_that_came_with_its_head_is_sent_with_it(stage: Stage) -> None:
    """A small body is held through the wake, and the next request behind it is not mixed into it."""
    app, ready = await stage.app(), asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(app, State.PAUSED)
    async with await stage.client() as client:
        await client.send(box.request("POST", "/1", body=b"body") + box.get("/2"))
        await stage.plane.called("resume")
        ready.set()
        assert (await client.answer()).body == b"POST /1 HTTP/1.1\nbody"
        assert (await client.answer()).body == b"GET /2 HTTP/1.1\n"
    woken_once(stage, box)


async def test_a_client_that_expects_100_uploads_nothing_while_it_sleeps(stage: Stage) -> None:
    """``Expect`` goes to the app, the app's 100 comes back, and the edge says none of its own."""

    async def handler(connection: AppConnection) -> None:
        head = await connection.read_head()
        assert fields_of(head)[b"expect"] == b"100-continue"
        await connection.send(b"HTTP/1.1 100 Go on\r\nX-From: app\r\n\r\n")
        await connection.answer(await connection.read_body(head))

    app, ready = await stage.app(handler), asyncio.Event()
    stage.plane.on_resume = after(ready)
    box, other = stage.sandbox(app, State.PAUSED), stage.sandbox(await stage.app())
    async with await stage.client() as client:
        fields = b"Expect: 100-continue\r\nContent-Length: 5\r\n"
        await client.send(box.request("POST", "/", fields))
        invitation = asyncio.create_task(client.head())
        await stage.plane.called("resume")
        await canary(stage, other)
        assert not invitation.done(), "invited to upload while the sandbox sleeps"
        ready.set()
        invited = await invitation
        assert invited.head == b"HTTP/1.1 100 Go on\r\nX-From: app\r\n\r\n"
        await client.send(b"12345")
        answer = await client.answer()
    assert (answer.status, answer.body) == (200, b"12345")
    woken_once(stage, box)


@pytest.mark.parametrize("framing", ["chunked", "length unknown"])
async def test_events_arrive_one_by_one(stage: Stage, framing: str) -> None:
    """An event is with the client before the app has sent the next, so nothing gathers in between."""
    chunked = framing == "chunked"
    seen = asyncio.Semaphore(0)
    events = [b"data: %d\n\n" % n for n in range(20)]

    async def handler(connection: AppConnection) -> None:
        await connection.read_head()
        coding = b"Transfer-Encoding: chunked\r\n" if chunked else b""
        await connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n%b\r\n" % coding
        )
        for event in events:
            await connection.send(b"%X\r\n%b\r\n" % (len(event), event) if chunked else event)
            await seen.acquire()
        await connection.send(b"0\r\n\r\n" if chunked else b"")

    box = stage.sandbox(await stage.app(handler), State.PAUSED)
    async with await stage.client() as client:
        await client.send(box.get("/events", b"Accept: text/event-stream\r\n"))
        answer = await client.head()
        assert (answer.status, answer.value("content-type")) == (200, "text/event-stream")
        assert answer.values("transfer-encoding") == ["chunked"]
        for event in events:
            assert await client.chunk() == event
            seen.release()
        assert await client.chunk() == b""
    woken_once(stage, box)


async def test_a_client_that_left_is_not_forwarded(stage: Stage) -> None:
    """The wake goes on to its end, and the request of the one who left never reaches the app."""
    app, ready = await stage.app(), asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(app, State.PAUSED)
    client = await stage.client()
    await client.send(box.request("POST", "/gone", body=b"left behind"))
    await stage.plane.called("resume")
    client.end()
    assert await client.at_end()
    client.close()
    ready.set()
    await stage.plane.until(lambda: stage.plane.incarnations[box.id] == 1)
    assert (await stage.ask(box.get("/here"))).status == 200
    assert [head.split(b"\r\n")[0] for head in app.requests] == [b"GET /here HTTP/1.1"]
    woken_once(stage, box)


async def test_ten_sandboxes_wake_side_by_side(stage: Stage) -> None:
    """Wakes do not wait for each other: all resumes are asked for before any is answered."""
    ready = asyncio.Event()
    stage.plane.on_resume = after(ready)
    app = await stage.app()
    boxes = [stage.sandbox(app, State.PAUSED) for _ in range(10)]
    waiting = [asyncio.create_task(stage.ask(box.get(f"/{n}"))) for n, box in enumerate(boxes)]
    await stage.plane.called("resume", 10)
    ready.set()
    for n, answer in enumerate(await asyncio.gather(*waiting)):
        assert (answer.status, answer.body) == (200, f"GET /{n} HTTP/1.1\n".encode())
    assert stage.plane.counts["resume"] == 10
    assert [stage.plane.incarnations[box.id] for box in boxes] == [1] * 10


async def test_a_sandbox_sleeps_and_wakes_again_and_again(stage: Stage) -> None:
    """Each sleep costs one resume and one incarnation, on one and the same client connection."""
    app = await stage.app()
    box = stage.sandbox(app, State.PAUSED)
    async with await stage.client() as client:
        for n in range(1, 6):
            assert (await client.ask(box.get(f"/{n}"))).status == 200
            assert stage.plane.counts["resume"] == stage.plane.incarnations[box.id] == n
            await stage.heard(stage.plane.pause(box.id))
    assert app.connections == 5, "a connection outlived its incarnation"


async def test_a_proxy_token_is_no_way_round_the_families(stage: Stage) -> None:
    """An edge token in the proxy header wakes nobody."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    fields = f"x-nullspace-preview-proxy-token: {box.token(Family.EDGE)}\r\n".encode()
    answer = await stage.ask(box.get("/", fields, token=""))
    assert (answer.status, answer.code) == (401, "preview_proxy_token_invalid")
    assert stage.plane.asked == {"sandbox": 0, "grant": 0, "resume": 0}
