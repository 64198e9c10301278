"""Sending again: what may be, what never is, and how often."""

from __future__ import annotations

import asyncio

import pytest

from tests.flows.scriptedapp import AppConnection
from tests.flows.stage import Stage
from tests.traffic.dialogue import OK, canary, ended, first, held, nothing, play, say


@pytest.mark.parametrize("how", [AppConnection.close, AppConnection.reset])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"])
async def test_a_reused_connection_that_closes_is_no_failure(
    stage: Stage, method: str, how
) -> None:
    """An idempotent request without a body, not a byte of its answer seen: sent again, once, elsewhere."""
    warm = say(OK + b"Content-Length: 0\r\n\r\n")
    app = await stage.app(first(warm, say(b"", how)))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        assert (await client.ask(box.get("/warm-up"))).status == 200
        assert (await client.ask(box.request(method, "/again"))).status == 200
        await canary(client, box, app)
    assert app.connections == 2
    assert sum(request.startswith(method.encode() + b" /again") for request in app.requests) == 2
    assert ended(stage) == {("2xx", "", "complete"): 3}


async def test_once_and_no_more(stage: Stage) -> None:
    """A second connection that closes under the same request is a failure of the app."""
    box, client = await play(stage, say(OK + b"Content-Length: 0\r\n\r\n"), nothing, nothing)
    assert (await client.ask(box.get("/warm-up"))).status == 200
    answer = await client.ask(box.get())
    assert (answer.status, answer.code) == (502, "preview_upstream_closed")
    await canary(client, box)
    client.close()


async def test_once_also_where_another_used_connection_is_idle(stage: Stage) -> None:
    """The second attempt may go over one that was used before, too: when that closes it is over."""
    release = asyncio.Event()
    warm = held(release, say(OK + b"Content-Length: 0\r\n\r\n"))
    app = await stage.app(first(warm, warm, nothing, nothing))
    box = stage.sandbox(app)
    async with await stage.client() as client, await stage.client() as other:
        for one in (client, other):
            await one.send(box.get("/warm-up"))
        await app.until(lambda: app.connections == 2 and len(app.requests) == 2)
        release.set()
        for one in (client, other):
            assert (await one.answer()).status == 200
        answer = await client.ask(box.get())
        assert (answer.status, answer.code) == (502, "preview_upstream_closed")
        assert len(app.requests) == 4 and app.connections == 2
        await canary(client, box)


@pytest.mark.parametrize(
    ("method", "body", "answer"),
    [
        ("POST", None, b""),
        ("PATCH", None, b""),
        ("PUT", b"x", b""),
        ("GET", None, b"H"),
        ("GET", None, b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    ],
)
async def test_what_is_never_sent_again(
    stage: Stage, method: str, body: bytes | None, answer: bytes
) -> None:
    """Not what may have an effect, not what has a body, not once a byte of an answer came."""
    warm = say(OK + b"Content-Length: 0\r\n\r\n")
    app = await stage.app(first(warm, say(answer, AppConnection.close)))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        assert (await client.ask(box.get("/warm-up"))).status == 200
        got = await client.ask(box.request(method, "/", body=body))
        assert (got.status, got.code) == (502, "preview_upstream_closed")
        assert len(app.requests) == 2
        await canary(client, box)
