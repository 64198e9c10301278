"""Stalls: who is stopped by whom, whose turn it was when a deadline passes, and who may be gone."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from tests.flows.scriptedapp import AppConnection
from tests.flows.stage import Stage, until
from tests.traffic.dialogue import (
    CHUNKED,
    HELD,
    OK,
    PLENTY,
    Clock,
    canary,
    canary_of_its_own,
    count,
    ended,
    first,
    idle,
    later,
    old,
    play,
    settled,
    visibly_cut,
)


@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 200"])
async def test_an_app_that_never_answers(timed: Stage, clock: Clock, interim: bytes) -> None:
    """504 after 300 s, not before; the client's connection goes on."""

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(interim)
        await connection.read_to_end()

    app = await timed.app(first(script))
    box, other = timed.sandbox(app), timed.sandbox(await timed.app())
    client, younger = await timed.client(), await timed.client()
    await client.send(box.get())
    await app.until(lambda: len(app.requests) == 1)
    if interim.endswith(b"\r\n"):
        await client.head()
    await later(timed, clock, 250)
    await canary(younger, other)
    clock.advance(70)
    answer = await client.answer()
    assert (answer.status, answer.code) == (504, "preview_upstream_timeout")
    await until(lambda: not timed.edge.unready())
    await canary(younger, other)
    await canary(client, box)
    assert ended(timed)["5xx", "preview_upstream_timeout", "upstream_stalled"] == 1
    client.close()
    younger.close()


async def test_an_answer_that_began_may_take_its_time(timed: Stage, clock: Clock) -> None:
    """Streams are silent for as long as they like: only the first byte has a deadline."""
    release = asyncio.Event()

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(OK + CHUNKED + b"\r\n1\r\na\r\n")
        await release.wait()
        await connection.send(b"1\r\nb\r\n0\r\n\r\n")

    box, client = await play(timed, script)
    await client.send(box.get())
    assert (await client.head()).status == 200
    assert await client.chunk() == b"a"
    for _ in range(3):
        await later(timed, clock, 1000)
        await canary_of_its_own(timed, timed.sandbox(await timed.app()))
    release.set()
    assert await client.chunk() == b"b"
    assert await client.chunk() == b""
    await canary(client, box)
    client.close()


async def test_an_upload_that_stalls(timed: Stage, clock: Clock) -> None:
    """A body that does not move for 60 s is answered 408; every byte of it starts the time anew."""
    app = await timed.app()
    box = timed.sandbox(app)
    client = await timed.client()
    await client.send(box.request("POST", "/", b"Content-Length: 100\r\n"))
    for sent in range(1, 4):
        await later(timed, clock, 40)
        await client.send(b"x")
        await app.until(
            lambda count=sent: bool(app.played) and app.played[0].received.endswith(b"x" * count)
        )
    clock.advance(61)
    answer = await client.answer()
    assert (answer.status, answer.code) == (408, "request_timeout")
    assert answer.value("connection") == "close"
    assert await client.at_end()
    client.close()
    await until(lambda: not timed.edge.unready())
    await canary_of_its_own(timed, box)
    assert ended(timed)["4xx", "request_timeout", "client_stalled"] == 1


@pytest.mark.parametrize("length", [b"Content-Length: 10\r\n", b""])
async def test_an_upload_that_stalls_under_its_answer(
    timed: Stage, clock: Clock, length: bytes
) -> None:
    """With an answer under way there is no 408: it ends truncated, by a reset where nothing else shows it."""

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(OK + length + b"\r\nhalf")
        await connection.read_to_end()

    box, client = await play(timed, script)
    await client.send(old(box.request("POST", "/", b"Content-Length: 100\r\n")))
    assert (await client.head()).status == 200
    assert await client.exactly(4) == b"half"
    await client.send(b"x")
    await canary_of_its_own(timed, timed.sandbox(await timed.app()))
    await clock.run(lambda: bool(ended(timed)["2xx", "", "client_stalled"]), step=20)
    if length:
        assert await client.rest() == b""
    else:
        with pytest.raises(ConnectionResetError):
            await client.rest()
    client.close()
    await until(lambda: not timed.edge.unready())
    await canary_of_its_own(timed, box)


class Source:
    """An app that sends ``PLENTY`` and counts what it got rid of."""

    def __init__(self, fields: bytes = b"Content-Length: %d\r\n" % PLENTY) -> None:
        self.fields = fields
        self.sent = 0
        self.failed = asyncio.Event()

    async def script(self, connection: AppConnection, _: bytes) -> None:
        """Play the download."""
        await connection.send(OK + self.fields + b"\r\n")
        piece = bytes(range(256)) * 256
        try:
            while self.sent < PLENTY:
                await connection.send(piece)
                self.sent += len(piece)
        except ConnectionError:
            self.failed.set()


async def test_a_reader_that_stands_still_stops_the_app(stage: Stage) -> None:
    """The app is stopped while the client does not read, memory stays bounded, and not a byte is lost."""
    source, other = Source(), stage.sandbox(await stage.app())
    app = await stage.app(first(source.script))
    box = stage.sandbox(app)
    client = await stage.client()
    await client.send(box.get())
    assert await settled(stage, other, lambda: source.sent) < HELD
    assert (await client.answer()).body == bytes(range(256)) * (PLENTY // 256)
    await canary(client, box, app)
    client.close()


@pytest.mark.parametrize("fields", [b"Content-Length: %d\r\n" % PLENTY, b""])
async def test_a_reader_that_never_reads_is_given_up(
    timed: Stage, clock: Clock, fields: bytes
) -> None:
    """After the stall deadline it ends for the client's fault, visibly cut, and the app is let go."""
    source, other = Source(fields), timed.sandbox(await timed.app())
    box, client = await play(timed, source.script)
    await client.send(old(box.get()))
    assert await settled(timed, other, lambda: source.sent) < HELD
    await clock.run(source.failed.is_set, step=20)
    assert ended(timed)["2xx", "", "client_stalled"] == 1
    with pytest.raises(ConnectionResetError):
        await client.answer()
    client.close()
    await until(lambda: not timed.edge.unready())
    await canary_of_its_own(timed, box)


class Sink:
    """An app that reads an upload when it is told to."""

    def __init__(self) -> None:
        self.read = asyncio.Event()
        self.began = asyncio.Event()

    async def script(self, connection: AppConnection, head: bytes) -> None:
        """Play the upload."""
        self.began.set()
        await self.read.wait()
        await count(connection, head)


async def test_an_app_that_does_not_read_stops_the_client(stage: Stage) -> None:
    """The client is stopped while the app does not read; then all of it arrives."""
    sink, other = Sink(), stage.sandbox(await stage.app())
    app = await stage.app(first(sink.script))
    box = stage.sandbox(app)
    client = await stage.client()
    body = bytes(range(256)) * (PLENTY // 256)
    sending = asyncio.create_task(client.send(box.request("POST", "/", body=body)))
    await sink.began.wait()
    left = await settled(stage, other, client.writer.transport.get_write_buffer_size)
    assert left > PLENTY - HELD
    sink.read.set()
    assert (await client.answer()).body == b"%d" % PLENTY
    await sending
    await canary(client, box, app)
    client.close()


async def test_an_app_that_never_reads_is_given_up(timed: Stage, clock: Clock) -> None:
    """Its time runs as for an answer, and it is the app's fault: 504, not the client's 408."""
    sink, other = Sink(), timed.sandbox(await timed.app())
    app = await timed.app(first(sink.script))
    box = timed.sandbox(app)
    client = await timed.client()

    async def upload() -> None:
        with suppress(ConnectionError):
            await client.send(box.request("POST", "/", body=bytes(range(256)) * (PLENTY // 256)))

    sending = asyncio.create_task(upload())
    await sink.began.wait()
    await settled(timed, other, client.writer.transport.get_write_buffer_size)
    clock.advance(100)
    await until(lambda: not timed.edge.unready())
    await canary_of_its_own(timed, other)
    await clock.run(
        lambda: bool(ended(timed)["5xx", "preview_upstream_timeout", "upstream_stalled"]), step=50
    )
    answer = await client.answer()
    assert (answer.status, answer.code) == (504, "preview_upstream_timeout")
    client.close()
    await sending
    sink.read.set()
    await until(lambda: not timed.edge.unready())
    await canary_of_its_own(timed, box)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_a_stream_for_a_client_that_may_be_gone(
    timed: Stage, clock: Clock, version: str
) -> None:
    """After its FIN only bytes tell whether a client reads on: a silent answer ends, visibly cut."""

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(OK + b"\r\nhalf")
        await connection.read_to_end()

    box, client = await play(timed, script)
    await client.send(old(box.get()) if version == "1.0" else box.get())
    await client.reader.readuntil(b"half")
    client.end()
    await clock.run(lambda: bool(ended(timed)["2xx", "", "client_gone"]), step=10)
    await visibly_cut(client, version)
    client.close()
    await until(lambda: not timed.edge.unready())
    await canary_of_its_own(timed, box)
    assert idle(timed)
