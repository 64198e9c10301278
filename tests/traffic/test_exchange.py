"""One request and its answer: every way in which either side can frame, stop, misbehave or leave."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress

import pytest

from edge.core.records import GrantStatus, State, Transport
from edge.traffic.exchange import Exchange
from tests.flows.rawclient import Answer, RawClient
from tests.flows.scriptedapp import AppConnection, fields_of
from tests.flows.scripts import after
from tests.flows.stage import UPGRADE, MakeStage, Stage, until
from tests.traffic.dialogue import (
    CHUNKED,
    OK,
    OVER,
    Script,
    canary,
    canary_of_its_own,
    ended,
    ended_so,
    first,
    held,
    idle,
    nothing,
    old,
    play,
    say,
    visibly_cut,
)

# --- answers that are whole -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "answer", "expected", "survives"),
    [
        ("GET", OK + b"Content-Length: 5\r\n\r\nhello", b"hello", True),
        ("GET", OK + CHUNKED + b"\r\n2;ext=1\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello", True),
        ("GET", OK + b"Content-Length: 0\r\n\r\n", b"", True),
        ("HEAD", OK + b"Content-Length: 5\r\n\r\n", b"", True),
        ("HEAD", OK + CHUNKED + b"\r\n", b"", True),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", True),
        ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
        (
            "GET",
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
            b"hello",
            True,
        ),
        ("GET", OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
        ("DELETE", b"HTTP/1.1 599 \r\nContent-Length: 1\r\n\r\nx", b"x", True),
    ],
)
async def test_whole_answers(
    stage: Stage, method: str, answer: bytes, expected: bytes, survives: bool
) -> None:
    """Every framing of an answer ends where it ends, and leaves both connections as it should."""
    app = await stage.app(first(say(answer)))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        got = await client.ask(box.request(method))
        assert got.body == expected and got.value("connection") is None
        assert got.status == int(answer.split()[1])
        await canary(client, box)
    assert app.connections == (1 if survives else 2)
    assert sum(ended(stage).values()) == 2


async def test_an_exchange_that_is_over_is_gone_at_once(stage: Stage) -> None:
    """It does not wait for the garbage collector, with its head and whatever credentials are in that."""
    answer = OK + b"Content-Length: 2\r\n\r\nhi"
    box, client = await play(stage, say(answer), say(answer))
    async with client:
        await client.ask(box.request("GET"))
        gc.collect()
        gc.disable()
        try:
            await client.ask(box.request("GET"))
            await until(lambda: not any(type(one) is Exchange for one in gc.get_objects()))
        finally:
            gc.enable()


async def test_an_answer_that_ends_with_its_connection(stage: Stage) -> None:
    """Unknown length: chunked for a client that can tell its end then, whose connection goes on."""
    box, client = await play(stage, say(OK + b"\r\nuntil the end", AppConnection.close))
    answer = await client.ask(box.get())
    assert answer.body == b"until the end" and answer.values("transfer-encoding") == ["chunked"]
    await canary(client, box)
    client.close()


@pytest.mark.parametrize("answer", [OK + b"\r\nall", OK + CHUNKED + b"\r\n3\r\nall\r\n0\r\n\r\n"])
async def test_unknown_length_to_an_old_client(stage: Stage, answer: bytes) -> None:
    """HTTP/1.0 knows no chunks: the connection ends with the answer, even if it asked to keep it."""
    box, client = await play(stage, say(answer, AppConnection.end))
    await client.send(old(box.get(), b"Connection: keep-alive\r\n"))
    got = await client.answer()
    assert got.body == b"all" and got.value("transfer-encoding") is None
    assert got.value("connection") == "close"
    client.close()


async def test_an_old_client(stage: Stage) -> None:
    """HTTP/1.0: one request a connection unless it asks for more, and no interim answers."""
    hint = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + b"Content-Length: 1\r\n\r\nx"
    box, client = await play(stage, say(hint))
    answer = await client.ask(old(box.get(), b"Connection: keep-alive\r\n"))
    assert (answer.body, answer.value("connection"), answer.interim) == (b"x", "keep-alive", [])
    answer = await client.ask(old(box.get("/once")))
    assert (answer.body, answer.value("connection")) == (b"GET /once HTTP/1.1\n", "close")
    assert await client.at_end()
    client.close()
    async with await stage.client() as client:  # the edge's own errors keep to it, too
        answer = await client.ask(old(box.get(token=""), b"Connection: keep-alive\r\n"))
        assert (answer.status, answer.value("connection")) == (401, "keep-alive")
        assert (await client.ask(old(box.get(token="")))).value("connection") == "close"
        assert await client.at_end()


async def test_interim_answers_are_relayed_as_they_come(stage: Stage) -> None:
    """103 reaches the client before the final answer exists; its fields are kept."""
    release = asyncio.Event()

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style>\r\n\r\n")
        await release.wait()
        await connection.answer(b"done")

    box, client = await play(stage, script)
    await client.send(box.get())
    hint = await client.head()
    assert (hint.status, hint.value("link")) == (103, "</style>")
    release.set()
    assert (await client.answer()).body == b"done"
    await canary(client, box)
    client.close()


async def test_trailers(stage: Stage) -> None:
    """An answer's trailers arrive behind its body, those that frame or route do not; the next head has none."""
    trailers = b"X-Sum: 1\r\nContent-Length: 9\r\n"
    body = CHUNKED + b"Trailer: X-Sum\r\n\r\n1\r\nx\r\n0\r\n" + trailers + b"\r\n"
    box, client = await play(stage, say(OK + body))
    await client.send(box.get())
    head = await client.head()
    assert head.value("trailer") == "X-Sum"
    assert await client.exactly(6) == b"1\r\nx\r\n"
    assert await client.reader.readuntil(b"\r\n\r\n") == b"0\r\nX-Sum: 1\r\n\r\n"
    await canary(client, box)
    client.close()


# --- requests -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1 << 20, 5, 1], ids=["whole", "pieces", "bytes"])
async def test_a_chunked_upload_is_framed_anew(stage: Stage, size: int) -> None:
    """Extensions and trailers of the client end at the edge, and what is behind is the next request."""
    seen: list[bytes] = []

    async def script(connection: AppConnection, head: bytes) -> None:
        while chunk := await connection.read_chunk():
            seen.append(chunk)
        assert fields_of(head)[b"transfer-encoding"] == b"chunked"
        await connection.answer(b"thanks")

    app = await stage.app(first(script))
    box = stage.sandbox(app)
    data = box.request("POST", "/", CHUNKED + b"Trailer: X-T\r\n")
    data += b"5;a=b\r\nhello\r\n0001\r\n!\r\n0\r\nX-T: 1\r\n\r\n" + box.get("/next")
    async with await stage.client() as client:
        for at in range(0, len(data), size):
            await client.send(data[at : at + size])
        assert (await client.answer()).body == b"thanks"
        assert (await client.answer()).body == b"GET /next HTTP/1.1\n"
        await canary(client, box, app)
    (connection,) = app.played
    assert b"".join(seen) == b"hello!"
    assert b";a=b" not in connection.received and b"X-T" not in connection.received


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_expect_100_continue(stage: Stage, method: str) -> None:
    """`Expect` goes to the app and the 100 is the app's; then the body goes and the answer comes."""

    async def script(connection: AppConnection, head: bytes) -> None:
        assert fields_of(head)[b"expect"] == b"100-continue"
        await connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await connection.answer(await connection.read_body(head))

    box, client = await play(stage, script)
    request = box.request(method, "/", b"Expect: 100-continue\r\n", body=b"hello")
    await client.send(request[:-5])
    assert (await client.head()).status == 100
    await client.send(request[-5:])
    assert (await client.answer()).body == b"hello"
    await canary(client, box)
    client.close()


async def test_an_expectation_that_is_refused(stage: Stage) -> None:
    """A final answer instead of 100: the client gets it, and the connections end, for the body never comes."""
    app = await stage.app(first(say(b"")))

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.answer(b"too big", b"413 Content Too Large")

    app = await stage.app(first(script))
    box = stage.sandbox(app)
    client = await stage.client()
    await client.send(box.request("POST", "/", b"Expect: 100-continue\r\nContent-Length: 5\r\n"))
    answer = await client.answer()
    assert (answer.status, answer.body) == (413, b"too big")
    assert await client.at_end()
    await canary_of_its_own(stage, box)
    assert app.connections == 2
    client.close()


async def test_an_early_final_answer_while_the_upload_runs(stage: Stage) -> None:
    """It arrives whole although the client goes on sending; the rest is read over for a moment."""

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.read_exactly(10)
        await connection.answer(b"enough")

    app = await stage.app(first(script))
    box = stage.sandbox(app)
    client = await stage.client()
    await client.send(box.request("POST", "/", b"Content-Length: 5000000\r\n") + b"x" * 10)
    assert (await client.answer()).body == b"enough"
    for _ in range(20):
        await client.send(b"x" * 10_000)
    assert await client.at_end()
    client.close()
    await canary_of_its_own(stage, box)
    assert app.connections == 2 and ended(stage)["2xx", "", "complete"] == 2


async def test_an_upload_that_runs_on_under_its_answer(stage: Stage) -> None:
    """Request and answer may overlap: both arrive whole, and the connections go on."""

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(OK + CHUNKED + b"\r\n")
        for _ in range(3):
            piece = await connection.read_exactly(4)
            await connection.send(b"4\r\n%b\r\n" % piece)
        await connection.send(b"0\r\n\r\n")

    app = await stage.app(first(script))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        await client.send(box.request("POST", "/", b"Content-Length: 12\r\n"))
        assert (await client.head()).status == 200
        for piece in (b"abcd", b"efgh", b"ijkl"):
            await client.send(piece)
            assert await client.chunk() == piece
        assert await client.chunk() == b""
        await canary(client, box, app)


@pytest.mark.parametrize("begun", [False, True], ids=["held", "under way"])
async def test_a_body_that_is_malformed(stage: Stage, begun: bool) -> None:
    """Chunks that cannot be read end the exchange with 400, the client's connection and the app's."""

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.read_to_end()

    app = await stage.app(first(script) if begun else first())
    box = stage.sandbox(app)
    client = await stage.client()
    head = box.request("POST", "/", CHUNKED)
    if begun:
        await client.send(head + b"1\r\nx\r\n")
        await app.until(lambda: len(app.requests) == 1)
        await client.send(b"nonsense\r\n")
    else:
        await client.send(head + b"nonsense\r\n" + box.get("/smuggled"))
    answer = await client.answer()
    assert (answer.status, answer.code) == (400, "bad_request")
    assert answer.value("connection") == "close"
    assert await client.at_end()
    client.close()
    await canary_of_its_own(stage, box)
    assert not any(b"smuggled" in connection.received for connection in app.played)
    assert app.connections == (2 if begun else 1)


async def test_a_body_that_turns_malformed_under_its_answer(stage: Stage) -> None:
    """With an answer under way there is no room for a 400: it ends truncated, for all to see."""

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(OK + b"Content-Length: 10\r\n\r\nhalf ")
        await connection.read_to_end()

    box, client = await play(stage, script)
    await client.send(box.request("POST", "/", CHUNKED) + b"1\r\nx\r\n")
    assert (await client.head()).status == 200
    assert await client.exactly(5) == b"half "
    await client.send(b"nonsense\r\n")
    assert await client.at_end()
    client.close()
    await ended_so(stage, "2xx", "", "client_gone")
    await canary_of_its_own(stage, box)


@pytest.mark.parametrize(
    ("body", "survives"),
    [
        (b"Content-Length: 5\r\n\r\nhello", True),
        (CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\n", True),
        (b"Content-Length: 5\r\n\r\nhel", False),
        (CHUNKED + b"\r\nnonsense\r\n", False),
    ],
)
async def test_a_refusal_reads_over_the_body_that_came(
    stage: Stage, body: bytes, survives: bool
) -> None:
    """A refused upload leaves the connection usable exactly if all of its body is there already."""
    box, client = await play(stage)
    request = box.request("POST", "/", body, token="").removesuffix(b"\r\n")
    await client.send(request)
    answer = await client.answer()
    assert (answer.status, answer.code) == (401, "edge_token_missing")
    assert answer.value("connection") == (None if survives else "close")
    if survives:
        await canary(client, box)
    else:
        assert await client.at_end()
        await canary_of_its_own(stage, box)
    client.close()


# --- apps that fail -------------------------------------------------------------------------------------


dropped = say(b"", AppConnection.reset)


INVALID = {
    "garbage": b"\x00\x01 this is no HTTP",
    "other version": b"HTTP/2 200 OK\r\n\r\n",
    "no CR": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bad field": OK + b"a b: c\r\n\r\n",
    "two lengths": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "big head": OK + b"X: " + b"y" * 66_000,
    "many interims": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40,
    "unsolicited 101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    "bad first chunk": OK + CHUNKED + b"\r\nzz\r\n",
}


@pytest.mark.parametrize("case", INVALID)
async def test_an_answer_that_is_invalid(stage: Stage, case: str) -> None:
    """Told as 502 while nothing of it went out; the client's connection goes on, the app's does not."""
    app = await stage.app(first(say(INVALID[case])))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        answer = await client.ask(box.get())
        assert (answer.status, answer.code) == (502, "preview_upstream_invalid")
        assert len(answer.interim) <= 32  # what came in one read with the mistake is not relayed
        await canary(client, box)
    assert app.connections == 2
    assert ended(stage)["5xx", "preview_upstream_invalid", "upstream_invalid"] == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "script",
    [nothing, dropped, say(b"HTTP/1.1 20", AppConnection.close), say(OK, AppConnection.reset)],
    ids=["nothing", "reset", "half a line", "half a head"],
)
async def test_an_app_that_leaves_before_it_answers(
    stage: Stage, script: Script, method: str
) -> None:
    """502 on a fresh connection, never a second attempt: who knows what the app did."""
    app = await stage.app(first(script))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        answer = await client.ask(box.request(method, body=b"x" if method == "POST" else None))
        assert (answer.status, answer.code) == (502, "preview_upstream_closed")
        await canary(client, box)
    assert len(app.requests) == 2
    assert ended(stage)["5xx", "preview_upstream_closed", "upstream_gone"] == 1


TRUNCATED = {
    "length": OK + b"Content-Length: 10\r\n\r\nhalf",
    "chunked": OK + CHUNKED + b"\r\n4\r\nhalf\r\n",
    "inside a chunk": OK + CHUNKED + b"\r\n8\r\nhalf",
    "bad chunk": OK + CHUNKED + b"\r\n4\r\nhalf\r\nzz\r\n",
}


async def truncated(client: RawClient) -> bytes:
    """The body as far as it came; fails for one that a client could take for whole."""
    head = await client.head()
    assert head.status == 200
    rest = b""
    with suppress(ConnectionError):
        rest = await client.rest()
    assert not rest.endswith(b"0\r\n\r\n"), "the client believes that this is all"
    if head.value("content-length"):
        assert len(rest) < int(head.value("content-length") or 0)
    return rest


@pytest.mark.parametrize("how", [AppConnection.close, AppConnection.reset])
@pytest.mark.parametrize("case", TRUNCATED)
async def test_a_truncated_answer_arrives_truncated(stage: Stage, case: str, how) -> None:
    """Half an answer is never made a whole one: no last chunk, no missing byte is made up."""

    async def script(connection: AppConnection, _: bytes) -> object:
        *front, last = TRUNCATED[case].partition(b"half")
        await connection.send(b"".join(front))
        await told.wait()  # by then the client has it: a reset must not overtake it
        await connection.send(last)
        how(connection)
        return OVER

    told = asyncio.Event()
    box, client = await play(stage, script)
    await client.send(box.get())
    data = await client.reader.readuntil(b"half")
    told.set()
    client.reader._buffer[:0] = data  # to be read again, as a whole
    assert b"half" in await truncated(client)
    client.close()
    await until(lambda: idle(stage))
    assert not ended(stage)["2xx", "", "complete"]
    await canary_of_its_own(stage, box)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_an_answer_without_length_that_is_reset(stage: Stage, version: str) -> None:
    """Only a FIN is an end: after a reset an old client sees a reset, any other one a missing last chunk."""
    told = asyncio.Event()

    async def script(connection: AppConnection, _: bytes) -> object:
        await connection.send(OK + b"\r\nhalf")
        await told.wait()
        connection.reset()
        return OVER

    box, client = await play(stage, script)
    await client.send(old(box.get()) if version == "1.0" else box.get())
    await client.reader.readuntil(b"half")
    told.set()
    await visibly_cut(client, version)
    client.close()
    await ended_so(stage, "2xx", "", "upstream_gone")
    await canary_of_its_own(stage, box)


@pytest.mark.parametrize("surplus", [b"x", OK + b"Content-Length: 3\r\n\r\nbad"])
@pytest.mark.parametrize(
    "answer", [OK + b"Content-Length: 2\r\n\r\nok", OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\n\r\n"]
)
async def test_bytes_behind_an_answer(stage: Stage, answer: bytes, surplus: bytes) -> None:
    """What an app sends beyond its answer is nobody's: the connection to it ends, the client's goes on."""
    app = await stage.app(first(say(answer + surplus)))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        assert (await client.ask(box.get())).body == b"ok"
        await canary(client, box)
    assert app.connections == 2


async def test_an_answer_before_its_request_is_read(stage: Stage) -> None:
    """An answer that comes while the request is still on its way is relayed, and ends what it must."""

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.answer(b"I know")
        await connection.read_to_end()

    box, client = await play(stage, script)
    await client.send(box.request("POST", "/", b"Content-Length: 9\r\n") + b"x")
    assert (await client.answer()).body == b"I know"
    assert await client.at_end()
    client.close()
    await canary_of_its_own(stage, box)


# --- clients that leave ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["finish", "reset"])
async def test_a_client_gone_in_its_upload(stage: Stage, how: str) -> None:
    """The app learns of it by the end of its connection, never by a request that looks whole."""
    bodies: list[bytes] = []

    async def script(connection: AppConnection, _: bytes) -> None:
        with suppress(ConnectionError):
            bodies.append(await connection.read_to_end())
        over.set()

    over = asyncio.Event()
    app = await stage.app(first(script))
    box = stage.sandbox(app)
    client = await stage.client()
    await client.send(box.request("POST", "/", CHUNKED) + b"4\r\nhalf\r\n")
    await app.until(lambda: bool(app.played) and app.played[0].received.endswith(b"half\r\n"))
    if how == "finish":
        client.end()
    else:
        client.reset()
    await over.wait()
    assert not any(b"0\r\n\r\n" in body for body in bodies)
    await ended_so(stage, "0xx", "", "client_gone")
    client.close()
    await canary_of_its_own(stage, box)
    assert idle(stage)


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 5\r\n\r\nhello", CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("whole", [True, False])
async def test_an_upload_and_its_fin_at_once(stage: Stage, body: bytes, whole: bool) -> None:
    """A FIN while records are looked up and the app is dialed: answered if all came, else never forwarded."""
    app = await stage.app()
    box = stage.sandbox(app)
    request = box.request("POST", "/", body).removesuffix(b"\r\n")
    async with await stage.client() as client:
        await client.send(request if whole else request[:-1])
        client.end()
        if whole:
            assert (await client.answer()).body == b"POST / HTTP/1.1\nhello"
        assert await client.at_end()
    assert not app.requests or whole
    await canary_of_its_own(stage, box)
    assert app.connections == 1 and idle(stage)


async def test_a_client_gone_in_its_download(stage: Stage) -> None:
    """The app is stopped: its connection ends, and everything taken for the exchange is given back."""

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(OK + b"Content-Length: 1000000000\r\n\r\n")
        with suppress(ConnectionError):
            while True:
                await connection.send(b"x" * 65536)
        over.set()

    over = asyncio.Event()
    box, client = await play(stage, script)
    await client.send(box.get())
    await client.exactly(1000)
    client.reset()
    await over.wait()
    await ended_so(stage, "2xx", "", "client_gone")
    await canary_of_its_own(stage, box)
    assert idle(stage)


async def test_a_client_gone_before_its_answer(stage: Stage) -> None:
    """While the app thinks, a client that leaves takes the request's connection with it."""

    async def script(connection: AppConnection, _: bytes) -> None:
        with suppress(ConnectionError):
            await connection.read_to_end()
        over.set()

    over = asyncio.Event()
    app = await stage.app(first(script))
    box = stage.sandbox(app)
    client = await stage.client()
    await client.send(box.get())
    await app.until(lambda: len(app.requests) == 1)
    client.reset()
    await over.wait()
    await ended_so(stage, "0xx", "", "client_gone")
    await canary_of_its_own(stage, box)


@pytest.mark.parametrize("how", ["finish", "reset"])
async def test_a_client_gone_while_it_waits(stage: Stage, how: str) -> None:
    """Its place is free at once and its request goes nowhere, while the wake goes on for others."""
    app, ready = await stage.app(), asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(app, State.PAUSED)
    leaving, staying = await stage.client(), await stage.client()
    await leaving.send(box.request("POST", "/gone", body=b"x"))
    await stage.plane.called("resume")
    await staying.send(box.get("/stays"))
    await until(lambda: stage.edge.admission.counts()["waiting"] == 2)
    if how == "finish":
        leaving.end()
    else:
        leaving.reset()
    await until(lambda: stage.edge.admission.counts()["waiting"] == 1)
    ready.set()
    assert (await staying.answer()).body == b"GET /stays HTTP/1.1\n"
    await canary(staying, box, app)
    assert not any(b"/gone" in request for request in app.requests)
    assert stage.plane.incarnations[box.id] == 1
    leaving.close()
    staying.close()


# --- upgrades -------------------------------------------------------------------------------------------

SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSet-Cookie: a=b\r\n\r\n"
)


async def tunnel(connection: AppConnection, _: bytes) -> None:
    """Accept with bytes right behind, echo five, then echo until the client finishes."""
    await connection.send(SWITCH + b"welcome")
    await connection.send(await connection.read_exactly(5))
    await connection.send(b"[" + await connection.read_to_end() + b"]")


async def test_an_upgrade_becomes_a_tunnel(stage: Stage) -> None:
    """The app's own handshake comes back, bytes of both sides that came early go first, FINs pass."""
    app = await stage.app(first(tunnel))
    box = stage.sandbox(app)
    client = await stage.client()
    await client.send(box.upgrade() + b"early")
    answer = await client.answer()
    assert answer.status == 101 and answer.value("set-cookie") == "a=b"
    assert answer.value("upgrade") == "websocket" and answer.value("connection") == "Upgrade"
    assert await client.exactly(12) == b"welcomeearly"
    assert stage.edge.admission.counts()["tunnels"] == 1
    await client.send(b"\x00\xffbytes")
    client.end()
    assert await client.rest() == b"[\x00\xffbytes]"
    client.close()
    await ended_so(stage, "1xx", "", "complete")
    assert idle(stage) and not stage.edge.connections
    await canary_of_its_own(stage, box)


async def test_a_tunnel_that_a_side_drops(stage: Stage) -> None:
    """A lost client ends the app's side, and the place is given back."""
    over = asyncio.Event()

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(SWITCH)
        with suppress(ConnectionError):
            await connection.read_to_end()
        over.set()

    box, client = await play(stage, script)
    assert (await client.ask(box.upgrade())).status == 101
    client.reset()
    await over.wait()
    await ended_so(stage, "1xx", "", "client_gone")
    assert idle(stage)
    await canary_of_its_own(stage, box)


async def test_an_upgrade_that_is_refused(stage: Stage) -> None:
    """The app's refusal comes back as it is, and the connection ends: what follows is no request."""
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    app = await stage.app(first(say(refusal)))
    box = stage.sandbox(app)
    client = await stage.client()
    await client.send(box.upgrade() + b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await client.answer()
    assert (answer.status, answer.body, answer.value("connection")) == (403, b"no", "close")
    assert await client.at_end()
    client.close()
    await canary_of_its_own(stage, box)
    assert (app.connections, len(app.requests)) == (1, 2)


async def test_an_upgrade_the_edge_refuses(stage: Stage) -> None:
    """The JSON error instead of the 101, though a browser asks; the app hears nothing."""
    app = await stage.app()
    box = stage.sandbox(app)
    async with await stage.client() as client:
        request = box.upgrade("/", b"Accept: text/html\r\n", kind=Transport.HTTP)
        answer = await client.ask(request)
        assert (answer.status, answer.code) == (403, "edge_token_scope_mismatch")
        await canary(client, box)
    assert len(app.requests) == 1


async def test_an_upgrade_to_something_else(stage: Stage) -> None:
    """A 101 to another protocol than was asked for is no answer."""
    other = SWITCH.replace(b"Upgrade: websocket", b"Upgrade: h2c")
    box, client = await play(stage, say(other))
    answer = await client.ask(box.upgrade())
    assert (answer.status, answer.code) == (502, "preview_upstream_invalid")
    client.close()
    await canary_of_its_own(stage, box)


# --- cut short by the world -----------------------------------------------------------------------------


async def test_who_waits_when_the_edge_goes(make_stage: MakeStage) -> None:
    """Parked or dialing, it is told so: nothing of it was sent."""
    stage = await make_stage(wake={"refused_retry": 60})
    stage.plane.on_resume = after(asyncio.Event())
    parked, dialing = await stage.client(), await stage.client()
    await parked.send(stage.sandbox(await stage.app(), State.PAUSED).get())
    await dialing.send(stage.sandbox(await stage.app(listening=False)).get())
    await stage.plane.called("resume")
    await until(lambda: stage.edge.admission.counts()["exchanges"] == 1)
    await stage.stop_edge()
    for client in (parked, dialing):
        answer = await client.answer()
        assert (answer.status, answer.code) == (503, "edge_draining")
        client.close()


@pytest.mark.parametrize("begun", [False, True], ids=["no answer yet", "answer under way"])
async def test_an_exchange_whose_sandbox_stops(stage: Stage, begun: bool) -> None:
    """Paused under it by order: 502 as long as nothing went out, else a truncated answer."""

    async def script(connection: AppConnection, _: bytes) -> None:
        if begun:
            await connection.send(OK + b"Content-Length: 10\r\n\r\nhalf")
        await connection.read_to_end()

    app = await stage.app(first(script))
    box = stage.sandbox(app)
    client = await stage.client()
    await client.send(box.get())
    await app.until(lambda: len(app.requests) == 1)
    if begun:
        await client.reader.readuntil(b"half")
    stage.plane.pause(box.id)
    if begun:
        assert await client.at_end()
        await ended_so(stage, "2xx", "", "sandbox_left_running")
    else:
        answer = await client.answer()
        assert (answer.status, answer.code) == (502, "preview_upstream_closed")
    client.close()
    await canary_of_its_own(stage, box)  # which wakes it
    assert stage.plane.incarnations[box.id] == 1


async def test_a_tunnel_whose_sandbox_stops(stage: Stage) -> None:
    """Tunnels end with the execution that they led to."""
    box, client = await play(stage, tunnel)
    await client.ask(box.upgrade())
    stage.plane.pause(box.id)
    assert await client.rest() == b"welcome"
    await ended_so(stage, "1xx", "", "sandbox_left_running")
    client.close()
    await canary_of_its_own(stage, box)


@pytest.mark.parametrize("begun", [False, True], ids=["no answer yet", "answer under way"])
@pytest.mark.parametrize(
    ("disabled", "code"),
    [("grant", "preview_grant_disabled"), ("sandbox", "preview_sandbox_disabled")],
)
async def test_an_exchange_that_an_operator_ends(
    stage: Stage, disabled: str, code: str, begun: bool
) -> None:
    """The error, as long as nothing went out; else a truncated answer, and the reason in the metrics."""

    async def script(connection: AppConnection, _: bytes) -> None:
        if begun:
            await connection.send(OK + b"Content-Length: 10\r\n\r\nhalf")
        await connection.read_to_end()

    app = await stage.app(first(script))
    box = stage.sandbox(app)
    client = await stage.client()
    await client.send(box.get())
    await app.until(lambda: len(app.requests) == 1)
    if begun:
        await client.reader.readuntil(b"half")
    if disabled == "grant":
        stage.plane.change_grant(box.grant, status=GrantStatus.DISABLED)
    else:
        stage.plane.change_sandbox(box.id, previews_disabled=True)
    end = "grant_ended" if disabled == "grant" else "previews_disabled"
    if begun:
        assert await client.at_end()
        await ended_so(stage, "2xx", "", end)
    else:
        answer = await client.answer()
        assert (answer.status, answer.code) == (403, code)
        await ended_so(stage, "4xx", code, end)
    client.close()


def shape(answer: Answer) -> tuple[int, str | None, str | None]:
    """What an error looks like from outside."""
    return answer.status, answer.value("content-type"), answer.value("connection")


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        (b"Sec-Fetch-Mode: navigate\r\n", "text/html; charset=utf-8"),
        (b"Accept: text/html\r\n", "text/html; charset=utf-8"),
        (b"Accept: */*\r\n", "application/json"),
        (b"Sec-Fetch-Mode: cors\r\nAccept: text/html\r\n", "application/json"),
    ],
)
async def test_errors_by_who_asks(stage: Stage, fields: bytes, kind: str) -> None:
    """Pages for people, JSON for programs, both with the connection kept, HEAD without a body."""
    box, client = await play(stage, nothing, nothing)
    assert shape(await client.ask(box.get("/", fields))) == (502, kind, None)
    assert shape(await client.ask(box.request("HEAD", "/", fields))) == (502, kind, None)
    assert shape(await client.ask(box.get("/", fields + b"Connection: close\r\n", token=""))) == (
        401,
        kind,
        "close",
    )
    assert await client.at_end()
    client.close()
    await canary_of_its_own(stage, box)


async def test_what_an_upgrade_says_to_the_app(stage: Stage) -> None:
    """The handshake's fields arrive, rebuilt by the edge where they are hop by hop."""
    app = await stage.app(first(tunnel))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        assert (await client.ask(box.upgrade("/ws"))).status == 101
    fields = fields_of(app.requests[0])
    assert fields[b"upgrade"] == b"websocket" and fields[b"connection"] == b"Upgrade"
    assert fields[b"sec-websocket-key"] in UPGRADE


async def test_what_an_exchange_says_of_itself(stage: Stage) -> None:
    """Its repr names where it goes and how far it is, and no credential."""
    release = asyncio.Event()
    app = await stage.app(first(held(release)))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        await client.send(box.get("/"))
        await app.until(lambda: len(app.requests) == 1)
        (exchange,) = stage.edge.flow.active()
        assert repr(exchange) == f"<Exchange GET {box.host} RELAYING sent=MAYBE>"
        assert (exchange.sandbox_id, exchange.port) == (box.id, box.port)
        release.set()
        await client.answer()


async def test_released_waiters_do_not_change_places(stage: Stage) -> None:
    """Answers held back by the app are still each client's own."""
    events = [asyncio.Event() for _ in range(4)]
    app = await stage.app(first(*[held(event) for event in events]))
    box = stage.sandbox(app)
    clients = [await stage.client() for _ in events]
    for i, client in enumerate(clients):
        await client.send(box.get(f"/{i}"))
        await app.until(lambda count=i + 1: len(app.requests) == count)
    for i in (2, 0, 3, 1):
        events[i].set()
        assert (await clients[i].answer()).body == b"GET /%d HTTP/1.1\n" % i
    for client in clients:
        await canary(client, box, app)
        client.close()
