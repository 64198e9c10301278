"""One connection to an app: what comes and goes on it, and when it can be used again."""

from __future__ import annotations

import asyncio

import pytest

from tests.flows.scriptedapp import AppConnection
from tests.flows.stage import Stage
from tests.traffic.dialogue import (
    EMPTY,
    HELD,
    PLENTY,
    SWITCH,
    canary,
    canary_of_its_own,
    count,
    dials,
    first,
    say,
    settled,
)


async def test_bytes_on_an_idle_connection(stage: Stage) -> None:
    """What an app sends when nobody asked ends the connection, and is no part of the next answer."""
    go = asyncio.Event()
    gone = asyncio.Event()

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(EMPTY)
        await go.wait()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned")
        await connection.read_to_end()
        gone.set()

    app = await stage.app(first(script))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        assert (await client.ask(box.get())).status == 200
        go.set()
        await gone.wait()
        await canary(client, box)
    assert app.connections == 2


@pytest.mark.parametrize("how", [AppConnection.close, AppConnection.reset])
async def test_a_connection_that_ends_under_its_first_exchange(stage: Stage, how) -> None:
    """By FIN or by RST: the exchange hears of it, and the route dials anew for the next."""
    app = await stage.app(first(say(b"", how)))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        answer = await client.ask(box.get())
        assert (answer.status, answer.code) == (502, "preview_upstream_closed")
        await canary(client, box)
    assert dials(stage) == {"connected": 2}


async def test_a_connection_with_unread_bytes_of_ours_is_not_reused(stage: Stage) -> None:
    """An app that answers without reading the request is done with that connection."""

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.answer(b"I know")
        await asyncio.Event().wait()

    app = await stage.app(first(script))
    box = stage.sandbox(app)
    client = await stage.client()
    sending = asyncio.create_task(client.send(box.request("POST", "/", body=bytes(PLENTY))))
    assert (await client.answer()).body == b"I know"
    client.close()
    await asyncio.wait([sending])
    sending.exception()
    await canary_of_its_own(stage, box)
    assert app.connections == 2


async def test_a_connection_that_became_a_tunnel_is_no_longer_kept(stage: Stage) -> None:
    """It belongs to the tunnel alone; requests meanwhile and after it dial."""

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(SWITCH)
        await connection.send(await connection.read_to_end())

    app = await stage.app(first(script))
    box = stage.sandbox(app)
    client = await stage.client()
    assert (await client.ask(box.upgrade())).status == 101
    await canary_of_its_own(stage, box)
    await client.send(b"through")
    client.end()
    assert await client.rest() == b"through"
    client.close()
    await canary_of_its_own(stage, box)
    assert app.connections == 2


async def test_slow_readers_on_both_sides(stage: Stage) -> None:
    """An app that stops to read, and a client that does, each stop the other; then all of it arrives."""
    go = asyncio.Event()

    async def script(connection: AppConnection, head: bytes) -> None:
        await go.wait()
        await count(connection, head)

    async def download(connection: AppConnection, _: bytes) -> None:
        await connection.answer(pattern)

    pattern = bytes(range(256)) * (PLENTY // 256)
    app, other = await stage.app(first(script, download)), stage.sandbox(await stage.app())
    box, client = stage.sandbox(app), await stage.client()
    transport = client.writer.transport
    sending = asyncio.create_task(client.send(box.request("POST", "/", body=pattern)))
    assert await settled(stage, other, transport.get_write_buffer_size) > PLENTY - HELD
    go.set()
    assert (await client.answer()).body == b"%d" % PLENTY
    await sending
    await client.send(box.get())
    await app.until(lambda: len(app.requests) == 2)
    for _ in range(5):
        await canary_of_its_own(stage, other)
    assert (await client.answer()).body == pattern
    await canary(client, box, app)
    client.close()
