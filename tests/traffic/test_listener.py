"""The client's side: keep-alive, pipelining, deadlines and limits, each followed by a canary where one survives."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.flows.rawclient import RawClient
from tests.flows.scriptedapp import AppConnection
from tests.flows.stage import MakeStage, Preview, Stage, until
from tests.traffic.dialogue import (
    HELD,
    OVER,
    PLENTY,
    SWITCH,
    Clock,
    canary,
    canary_of_its_own,
    count,
    ended,
    ended_so,
    first,
    held,
    idle,
    later,
    settled,
)

MANY = 40
ADDRESS = "127.0.0.1"


def numbered(box: Preview, count: int = MANY) -> list[bytes]:
    """Requests that can be told apart, some with bodies of both framings."""
    requests = []
    for i in range(count):
        if i % 3 == 1:
            requests.append(box.request("POST", f"/{i}", body=b"body %d" % i))
        elif i % 3 == 2:
            chunks = b"2;x=y\r\nbo\r\n5\r\ndy %02d\r\n0\r\n\r\n" % i
            requests.append(box.request("PUT", f"/{i}", b"Transfer-Encoding: chunked\r\n") + chunks)
        else:
            requests.append(box.get(f"/{i}"))
    return requests


def echoed(i: int) -> bytes:
    """What the app says to the request of that number."""
    if i % 3 == 1:
        return b"POST /%d HTTP/1.1\nbody %d" % (i, i)
    return b"PUT /%d HTTP/1.1\nbody %02d" % (i, i) if i % 3 == 2 else b"GET /%d HTTP/1.1\n" % i


# --- keep-alive and pipelining ------------------------------------------------------------------------


async def test_a_connection_serves_many_requests(stage: Stage) -> None:
    """Requests one after the other share the client's connection and the app's."""
    app = await stage.app()
    box = stage.sandbox(app)
    async with await stage.client() as client:
        for i, request in enumerate(numbered(box)):
            answer = await client.ask(request)
            assert (answer.status, answer.body) == (200, echoed(i))
            assert answer.value("connection") is None
    assert app.connections == 1


@pytest.mark.parametrize("size", [1 << 20, 1000, 7], ids=["whole", "pieces", "crumbs"])
async def test_pipelined_requests_are_answered_in_order(stage: Stage, size: int) -> None:
    """Request N gets answer N, however the bytes of many requests are cut, over one upstream connection."""
    app = await stage.app()
    box = stage.sandbox(app)
    data = b"".join(numbered(box))
    async with await stage.client() as client:
        for at in range(0, len(data), size):
            await client.send(data[at : at + size])
        for i in range(MANY):
            assert (await client.answer()).body == echoed(i)
        await canary(client, box, app)
    assert app.connections == 1


async def test_refusals_keep_their_place_in_the_pipeline(stage: Stage) -> None:
    """Answers of the edge and of the app come in the order of their requests, bodies read over."""
    app = await stage.app()
    box = stage.sandbox(app)
    requests = numbered(box, 9)
    for i in (1, 3, 5, 6):  # one with a body of each framing among them
        requests[i] = requests[i].replace(b"edge_token=", b"no_token=")
    async with await stage.client() as client:
        await client.send(b"".join(requests))
        for i in range(9):
            answer = await client.answer()
            if i in (1, 3, 5, 6):
                assert (answer.status, answer.code) == (401, "edge_token_missing")
            else:
                assert answer.body == echoed(i)
        await canary(client, box, app)


async def test_the_next_request_waits_for_the_answer_before_it(stage: Stage) -> None:
    """A pipelined request goes nowhere while the one before it is unanswered."""
    release = asyncio.Event()
    app = await stage.app(first(held(release)))
    box, other = stage.sandbox(app), stage.sandbox(await stage.app())
    async with await stage.client() as client:
        await client.send(box.get("/slow") + box.get("/next"))
        await app.until(lambda: len(app.requests) == 1)
        await canary_of_its_own(stage, other)
        assert (app.connections, len(app.requests)) == (1, 1)
        release.set()
        assert (await client.answer()).body == b"GET /slow HTTP/1.1\n"
        assert (await client.answer()).body == b"GET /next HTTP/1.1\n"
        await canary(client, box, app)


async def test_an_empty_line_before_a_request_is_ignored(stage: Stage) -> None:
    """RFC 9112 section 2.2: a CR LF left over by the request before does no harm."""
    app = await stage.app()
    box = stage.sandbox(app)
    async with await stage.client() as client:
        for _ in range(2):
            assert (await client.ask(b"\r\n" + box.get("/"))).status == 200
        await canary(client, box, app)


async def flood(client: RawClient, data: bytes) -> None:
    """Send for as long as the edge takes it."""
    with suppress(ConnectionError):
        await client.send(data)


async def test_pipelined_bytes_wait_in_a_bounded_buffer(stage: Stage) -> None:
    """While an answer is awaited, the client is stopped after a bounded number of bytes; none is lost."""
    release = asyncio.Event()
    app = await stage.app(first(held(release), count))
    box, other = stage.sandbox(app), stage.sandbox(await stage.app())
    client = await stage.client()
    body = bytes(range(256)) * (PLENTY // 256)
    await client.send(box.get("/slow"))
    await app.until(lambda: len(app.requests) == 1)
    transport = client.writer.transport
    sending = asyncio.create_task(flood(client, box.request("POST", "/next", body=body)))
    left = await settled(stage, other, transport.get_write_buffer_size)
    assert left > PLENTY - HELD
    release.set()
    assert (await client.answer()).body == b"GET /slow HTTP/1.1\n"
    assert (await client.answer()).body == b"%d" % PLENTY
    await sending
    await canary(client, box, app)
    client.close()


async def slow_client(stage: Stage) -> RawClient:
    """A client whose kernel holds little for it, and that reads only when it is told to."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (ADDRESS, stage.edge.port))
    return RawClient(*await asyncio.open_connection(sock=sock))


async def test_a_client_that_asks_and_never_reads_is_stopped(stage: Stage) -> None:
    """Answers nobody reads do not pile up: no further request is begun until they are taken."""
    app = await stage.app()
    box, other = stage.sandbox(app), stage.sandbox(await stage.app())
    client, body = await slow_client(stage), b"b" * 200_000
    sending = asyncio.create_task(flood(client, box.request("POST", "/", body=body) * 100))
    begun = await settled(stage, other, lambda: len(app.requests))
    assert begun < 60, "the edge went on asking for a client that reads nothing"
    for _ in range(100):
        assert (await client.answer()).body == b"POST / HTTP/1.1\n" + body
    await sending
    await canary(client, box, app)
    client.close()


async def test_a_stranger_that_asks_and_never_reads_is_stopped(stage: Stage) -> None:
    """Refusals nobody reads do not pile up either; a FIN behind the last request loses none of them."""
    other, many = stage.sandbox(await stage.app()), 20_000
    client = await slow_client(stage)

    def refused() -> int:
        return ended(stage)["4xx", "preview_host_unknown", "complete"]

    await client.send(b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n" * many)
    client.end()
    assert await settled(stage, other, refused) < many
    for _ in range(many):
        await client.reader.readuntil(b"\r\n\r\n{")
        await client.reader.readuntil(b"}")
    assert await client.at_end()
    assert refused() == many
    client.close()


@pytest.mark.parametrize("fields", [b"", b"Connection: close\r\n"], ids=["kept", "ending"])
async def test_an_answer_nobody_reads_to_its_end(make_stage: MakeStage, fields: bytes) -> None:
    """However much of an answer is left in whichever buffer: its connection is not held for ever by it."""
    clock = Clock()
    stage = await make_stage(clock=clock)

    async def sized(connection: AppConnection, head: bytes) -> None:
        await connection.answer(bytes(int(head.split()[1][1:]) * 60_000))

    many = 80  # up to more than the kernel holds, in steps smaller than what the edge holds
    app = await stage.app(first(*[sized] * many))
    box, other = stage.sandbox(app), stage.sandbox(await stage.app())
    clients = [await slow_client(stage) for _ in range(many)]
    for i, client in enumerate(clients):
        await client.send(box.get(f"/{i}", fields))
    stuck = await settled(stage, other, lambda: stage.edge.admission.counts()["exchanges"])
    assert stuck > 0, "the largest should not have fitted"
    await clock.run(lambda: not stage.edge.connections, step=10)
    assert ended(stage)["2xx", "", "client_stalled"] > 0
    for client in clients:
        client.reset()


async def test_requests_per_connection(make_stage: MakeStage) -> None:
    """The last request a connection may bring is answered with its announced end; no further one is looked at."""
    stage = await make_stage(limits={"requests_per_connection": 3})
    app = await stage.app()
    box = stage.sandbox(app)
    async with await stage.client() as client:
        await client.send(b"".join(box.get(f"/{i}") for i in range(5)))
        answers = [await client.answer() for _ in range(3)]
        assert await client.at_end()
    assert [a.value("connection") for a in answers] == [None, None, "close"]
    assert len(app.requests) == 3
    await canary_of_its_own(stage, box)
    assert app.connections == 1


async def test_refusals_count_as_requests(make_stage: MakeStage) -> None:
    """A refused request takes its turn on the connection, too."""
    stage = await make_stage(limits={"requests_per_connection": 2})
    box = stage.sandbox(await stage.app())
    async with await stage.client() as client:
        assert (await client.ask(box.get(token=""))).status == 401
        assert (await client.ask(box.get())).value("connection") == "close"
        assert await client.at_end()


# --- half-closed clients --------------------------------------------------------------------------------


async def test_a_half_closed_client_gets_every_answer(stage: Stage) -> None:
    """Complete requests before a FIN are answered, all of them, and then the connection ends."""
    app = await stage.app()
    box = stage.sandbox(app)
    async with await stage.client() as client:
        await client.send(b"".join(numbered(box, 9)))
        client.end()
        for i in range(9):
            assert (await client.answer()).body == echoed(i)
        assert await client.at_end()
    await canary_of_its_own(stage, box)
    assert app.connections == 1


async def test_a_half_closed_client_waits_for_a_slow_answer(stage: Stage) -> None:
    """A FIN while the app thinks changes nothing."""
    release = asyncio.Event()
    app = await stage.app(first(held(release)))
    box, other = stage.sandbox(app), stage.sandbox(await stage.app())
    async with await stage.client() as client:
        await client.send(box.get("/slow"))
        await app.until(lambda: len(app.requests) == 1)
        client.end()
        await canary_of_its_own(stage, other)
        release.set()
        assert (await client.answer()).body == b"GET /slow HTTP/1.1\n"
        assert await client.at_end()
    assert ended(stage)["2xx", "", "complete"] == 2


@pytest.mark.parametrize("data", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: a\r\n"])
async def test_a_client_that_finishes_before_its_request(stage: Stage, data: bytes) -> None:
    """A FIN before the end of a head ends the connection without a word."""
    async with await stage.client() as client:
        await client.send(data)
        client.end()
        assert await client.at_end()
    assert not ended(stage)


async def test_a_client_that_finishes_in_the_pipeline(stage: Stage) -> None:
    """An incomplete request behind a complete one is dropped; the complete one is answered."""
    app = await stage.app()
    box = stage.sandbox(app)
    async with await stage.client() as client:
        await client.send(box.get("/whole") + box.get("/half")[:-3])
        client.end()
        assert (await client.answer()).body == b"GET /whole HTTP/1.1\n"
        assert await client.at_end()
    await canary_of_its_own(stage, box)
    assert len(app.requests) == 2


# --- heads that are refused -----------------------------------------------------------------------------


def head(*lines: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    """A request head of these lines."""
    return b"\r\n".join([line, *lines, b"", b""])


REFUSED = {
    "request line": (head(b"Host: a", line=b"GET  / HTTP/1.1"), 400, "bad_request"),
    "no host": (head(), 400, "bad_request"),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400, "bad_request"),
    "LF first": (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
    "not HTTP": (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", 400, "bad_request"),
    "two lengths": (
        head(b"Host: a", b"Content-Length: 1", b"Content-Length: 2"),
        400,
        "bad_request",
    ),
    "long line": (
        head(b"Host: a", line=b"GET /%b HTTP/1.1" % (b"a" * 20_000)),
        431,
        "request_header_too_large",
    ),
    "many fields": (head(b"Host: a", *[b"X: y"] * 200), 431, "request_header_too_large"),
    "big head": (head(b"Host: a", b"X: " + b"y" * 65536), 431, "request_header_too_large"),
    "endless head": (b"GET / HTTP/1.1\r\nX: " + b"y" * 66_000, 431, "request_header_too_large"),
    "trace": (head(b"Host: a", line=b"TRACE / HTTP/1.1"), 405, "method_not_allowed"),
    "connect": (
        head(b"Host: a:1", line=b"CONNECT a:1 HTTP/1.1"),
        405,
        "method_not_allowed",
    ),
}


@pytest.mark.parametrize("place", ["first", "later"])
@pytest.mark.parametrize("case", REFUSED)
async def test_a_head_that_is_refused_ends_the_connection(
    stage: Stage, case: str, place: str
) -> None:
    """What cannot be understood is answered as JSON with a close, and nothing behind it is looked at."""
    data, status, code = REFUSED[case]
    app = await stage.app()
    box = stage.sandbox(app)
    async with await stage.client() as client:
        if place == "later":
            await canary(client, box)
        await client.send(data)
        if case != "endless head":
            await flood(client, box.get("/smuggled"))
        answer = await client.answer()
        assert (answer.status, answer.code) == (status, code)
        assert answer.value("connection") == "close"
        assert answer.value("content-type") == "application/json"
        assert answer.value("x-request-id") == answer.json["request_id"]
        allow = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
        assert answer.value("allow") == (allow if status == 405 else None)
        assert await client.at_end()
    await canary_of_its_own(stage, box)
    assert not any(b"smuggled" in request for request in app.requests)
    assert ended(stage)["4xx", code, "complete"] == 1


@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b" / HTTP/1.1\r\nHost: a\r\nBad line\r\n\r\n", 400),
        (b" / HTTP/1.1\r\nHost: a\nX: y", 400),
        (b"  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b" / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n", 400),
        (b" / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b" /" + b"x" * 70_000, 431),
    ],
    ids=["field", "bare LF", "blanks", "length", "fields", "size"],
)
async def test_a_head_request_that_is_refused_unread_gets_no_body(
    stage: Stage, rest: bytes, status: int
) -> None:
    """RFC 9110 section 9.3.2: the fields are those of GET's answer, and after them nothing."""
    heads = {}
    for method in (b"HEAD", b"GET"):
        async with await stage.client() as client:
            await client.send(method + rest)
            answer = await client.answer(method)
            assert answer.status == status and int(answer.values("content-length")[0]) > 100
            assert len(answer.body) == (
                0 if method == b"HEAD" else int(answer.values("content-length")[0])
            )
            heads[method] = [name for name, _ in answer.fields]
            assert await client.at_end()
    assert heads[b"HEAD"] == heads[b"GET"]


async def test_a_head_of_the_largest_size_passes(stage: Stage) -> None:
    """Up to the limit a head is served: 64 kB, byte for byte."""
    app = await stage.app()
    box = stage.sandbox(app)
    value = b"v" * (65_000 - len(box.get()))
    async with await stage.client() as client:
        assert (await client.ask(box.get("/", b"X-Big: %b\r\n" % value))).status == 200
        assert b"X-Big: " + value in app.requests[0]
        await canary(client, box, app)


# --- deadlines ------------------------------------------------------------------------------------------


async def test_a_silent_client_is_closed_at_the_header_deadline(timed: Stage, clock: Clock) -> None:
    """Without a byte of a request there is nothing to answer: the connection ends after 10 s, not before."""
    silent = await timed.client()
    await canary_of_its_own(timed, timed.sandbox(await timed.app()))  # by now it was accepted
    clock.advance(5)
    younger = await timed.client()
    await canary_of_its_own(timed, timed.sandbox(await timed.app()))
    clock.advance(6)
    assert await silent.at_end()
    await canary(younger, timed.sandbox(await timed.app()))
    silent.close()
    younger.close()


async def test_a_head_that_drips_is_answered_408(timed: Stage, clock: Clock) -> None:
    """Further bytes do not put the deadline off: it holds for the head as a whole."""
    box = timed.sandbox(await timed.app())
    client = await timed.client()
    for byte in box.get()[:11]:
        await client.send(bytes([byte]))
        await canary_of_its_own(timed, box)
        await later(timed, clock, 0.9)
    clock.advance(0.2)
    answer = await client.answer()
    assert (answer.status, answer.code) == (408, "request_timeout")
    assert answer.value("connection") == "close"
    assert await client.at_end()
    client.close()


async def test_a_head_in_time_is_served(timed: Stage, clock: Clock) -> None:
    """A head that takes its time within the deadline is answered, and the deadline is over with it."""
    release = asyncio.Event()
    app = await timed.app(first(held(release)))
    box = timed.sandbox(app)
    client = await timed.client()
    await client.send(box.get()[:20])
    await canary_of_its_own(timed, timed.sandbox(await timed.app()))
    await later(timed, clock, 9)
    await client.send(box.get()[20:])
    await app.until(lambda: len(app.requests) == 1)
    await later(timed, clock, 9)
    release.set()
    assert (await client.answer()).status == 200
    await canary(client, box, app)
    client.close()


async def test_an_idle_client_is_closed_after_its_time(timed: Stage, clock: Clock) -> None:
    """A kept-alive connection ends 75 s after its last answer, without a word; a younger one does not."""
    box = timed.sandbox(await timed.app())
    old, young = await timed.client(), await timed.client()
    await canary(old, box)
    await later(timed, clock, 40)
    await canary(young, box)
    await later(timed, clock, 36)
    assert await old.at_end()
    await canary(young, box)
    old.close()
    young.close()


async def test_a_later_head_has_its_own_deadline(timed: Stage, clock: Clock) -> None:
    """On a kept-alive connection too a head that began has 10 s, not what is left of the idle time."""
    box = timed.sandbox(await timed.app())
    client = await timed.client()
    await canary(client, box)
    await later(timed, clock, 60)
    await client.send(box.get()[:20])
    await canary_of_its_own(timed, box)
    clock.advance(11)
    answer = await client.answer()
    assert (answer.status, answer.code) == (408, "request_timeout")
    assert await client.at_end()
    client.close()


async def test_deadlines_can_be_off(make_stage: MakeStage, clock: Clock) -> None:
    """Zero means never."""
    stage = await make_stage(clock=clock, deadlines={"header": 0, "idle": 0, "first_byte": 0})
    release = asyncio.Event()
    app = await stage.app(first(held(release)))
    box = stage.sandbox(app)
    client, silent = await stage.client(), await stage.client()
    await client.send(box.get("/slow"))
    await app.until(lambda: len(app.requests) == 1)
    for _ in range(2):
        await later(stage, clock, 10_000)
        await canary_of_its_own(stage, stage.sandbox(await stage.app()))
    release.set()
    assert (await client.answer()).body == b"GET /slow HTTP/1.1\n"
    await later(stage, clock, 10_000)
    await canary_of_its_own(stage, stage.sandbox(await stage.app()))
    await canary(client, box)
    await canary(silent, box)
    client.close()
    silent.close()


# --- the lingering close --------------------------------------------------------------------------------


async def test_a_client_still_sending_gets_the_answer(stage: Stage) -> None:
    """A refusal is not destroyed by a reset while the client goes on sending; then both sides end."""
    client = await stage.client()
    await client.send(head(b"Host: a", line=b"BAD"))
    answer = await client.answer()
    assert answer.status == 400
    for _ in range(50):
        await client.send(b"x" * 10_000)
    assert await client.at_end()
    client.close()
    await until(lambda: not stage.edge.connections)


async def test_lingering_ends(timed: Stage, clock: Clock) -> None:
    """A client that never closes is dropped when the time for reading on is over."""
    client = await timed.client()
    await client.send(b"BAD\r\n\r\n")
    assert (await client.answer()).status == 400
    assert await client.at_end()
    assert len(timed.edge.connections) == 1
    clock.advance(3)
    await until(lambda: not timed.edge.connections)
    client.close()


async def test_a_refused_client_that_has_finished(stage: Stage) -> None:
    """Nothing more will come from it, so there is nothing to wait for: answered and closed at once."""
    async with await stage.client() as client:
        await client.send(b"BAD\r\n\r\n")
        client.end()
        assert (await client.answer()).status == 400
        assert await client.at_end()
    await until(lambda: not stage.edge.connections)


async def test_refusals_a_finished_client_never_reads(make_stage: MakeStage) -> None:
    """A client that asks, finishes and reads nothing keeps its place only for the stall deadline."""
    clock = Clock()
    stage = await make_stage(clock=clock)
    other, many = stage.sandbox(await stage.app()), 9_000
    client = await slow_client(stage)
    await client.send(b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n" * many + b"BAD\r\n\r\n")
    client.end()
    await settled(stage, other, lambda: ended(stage)["4xx", "preview_host_unknown", "complete"])
    await clock.run(lambda: not stage.edge.connections, step=10)
    client.reset()


# --- what exchanges ask of it ---------------------------------------------------------------------------


async def test_bodies_of_both_directions_wait_for_slow_readers(stage: Stage) -> None:
    """A client is stopped for an app that does not read, and an app for a client, on one connection."""
    go = asyncio.Event()
    pattern = bytes(range(256)) * (PLENTY // 256)

    async def upload(connection: AppConnection, head: bytes) -> None:
        await go.wait()
        await count(connection, head)

    async def download(connection: AppConnection, _: bytes) -> None:
        await connection.answer(pattern)

    app = await stage.app(first(upload, download))
    box, other = stage.sandbox(app), stage.sandbox(await stage.app())
    client = await stage.client()
    sending = asyncio.create_task(client.send(box.request("POST", "/", body=pattern)))
    left = await settled(stage, other, client.writer.transport.get_write_buffer_size)
    assert left > PLENTY - HELD
    go.set()
    assert (await client.answer()).body == b"%d" % PLENTY
    await sending
    await client.send(box.get())
    await app.until(lambda: len(app.requests) == 2)
    await settled(stage, other, lambda: 0)
    assert (await client.answer()).body == pattern
    await canary(client, box, app)
    client.close()


async def test_an_app_that_answers_before_it_has_read_a_whole_body(stage: Stage) -> None:
    """The last bytes of a body may find the app's buffer full; with its answer the client is read again."""
    release = asyncio.Event()
    app = await stage.app(first(held(release)))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        await client.send(box.request("POST", "/", body=b"all of it"))
        await app.until(lambda: len(app.requests) == 1)
        (connection,) = stage.edge.connections
        assert connection.exchange is not None
        upstream = connection.exchange.upstream
        assert upstream is not None
        upstream.pause_writing()  # the loop's word; how much a kernel takes is no test's to know
        release.set()
        assert (await client.answer()).body == b"POST / HTTP/1.1\nall of it"
        await canary(client, box)


async def test_a_body_that_overlaps_its_answer_and_a_reader_that_is_slow(
    timed: Stage, clock: Clock
) -> None:
    """While the client does not read its answer its body may stand still; when it reads, its time runs again."""
    pattern = bytes(range(256)) * (PLENTY // 256)

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % PLENTY)
        await connection.send(pattern)
        await connection.read_exactly(5)

    app = await timed.app(first(script))
    box, other = timed.sandbox(app), timed.sandbox(await timed.app())
    client = await timed.client()
    await client.send(box.request("POST", "/", b"Content-Length: 5\r\n") + b"1234")
    await app.until(lambda: len(app.requests) == 1)
    await settled(timed, other, lambda: 0)
    assert (await client.head()).status == 200
    assert await client.exactly(PLENTY) == pattern
    assert await client.at_end()  # the body was not complete when its answer was
    client.close()
    await canary_of_its_own(timed, box)


@pytest.mark.parametrize("how", ["app", "client"])
async def test_half_an_answer_without_length_is_reset(stage: Stage, how: str) -> None:
    """An old client could take it for whole, so it does not get a FIN; one that is lost itself is forgotten."""
    told = asyncio.Event()

    async def script(connection: AppConnection, _: bytes) -> object:
        await connection.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await told.wait()
        connection.reset()
        return OVER

    box, client = stage.sandbox(await stage.app(first(script))), await stage.client()
    await client.send(box.get().replace(b"HTTP/1.1", b"HTTP/1.0", 1))
    await client.reader.readuntil(b"half")
    if how == "app":
        told.set()
        with pytest.raises(ConnectionResetError):
            await client.rest()
    else:
        client.reset()
        await ended_so(stage, "2xx", "", "client_gone")
        told.set()
    client.close()
    await until(lambda: not stage.edge.connections)
    await canary_of_its_own(stage, box)


async def test_tunnels_have_no_deadlines_and_keep_their_place(timed: Stage, clock: Clock) -> None:
    """A silent tunnel stays for hours; its connection is counted until it ends, and no longer."""

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(SWITCH)
        await connection.send(await connection.read_to_end())

    box, client = timed.sandbox(await timed.app(first(script))), await timed.client()
    timed.plane.change_grant(box.grant, expires_at=time.time() + 100_000)
    assert (await client.ask(box.upgrade(exp=time.time() + 100_000))).status == 101
    for _ in range(3):
        await later(timed, clock, 10_000)
        await canary_of_its_own(timed, timed.sandbox(await timed.app()))
    await until(lambda: len(timed.edge.connections) == 1)
    counts = timed.edge.admission.counts()
    assert (counts["tunnels"], counts["exchanges"], counts["connections"]) == (1, 0, 1)
    await client.send(b"still here")
    client.end()
    assert await client.rest() == b"still here"
    await until(lambda: timed.edge.admission.counts()["connections"] == 0)
    assert idle(timed) and not timed.edge.connections
    client.close()


# --- room for connections -------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["connections", "connections_per_address"])
async def test_connections_beyond_the_limit(make_stage: MakeStage, limit: str) -> None:
    """One too many is told so and closed; when another leaves there is room again."""
    stage = await make_stage(admission={limit: 2})
    box = stage.sandbox(await stage.app())
    one, two = await stage.client(), await stage.client()
    await canary(one, box)
    await canary(two, box)
    three = await stage.client()
    answer = await three.answer()
    assert (answer.status, answer.code) == (503, "preview_overloaded")
    assert answer.value("connection") == "close" and answer.value("retry-after") == "5"
    assert await three.at_end()
    three.close()
    await canary(one, box)
    two.close()
    await until(lambda: len(stage.edge.connections) == 1)
    four = await stage.client()
    await canary(four, box)
    one.close()
    four.close()
    await until(lambda: stage.edge.admission.counts()["connections"] == 0)


# --- who the client is ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trusted", "scheme", "chain"),
    [([], b"https", b"127.0.0.1"), (["127.0.0.0/8"], b"http", b"192.0.2.7, 127.0.0.1")],
)
async def test_forwarded_fields_are_believed_from_trusted_peers(
    make_stage: MakeStage, trusted: list[str], scheme: bytes, chain: bytes
) -> None:
    """What the app is told about the client is the truth, appended to a trusted proxy's word only."""
    stage = await make_stage(trusted_proxies=trusted)
    app = await stage.app()
    box = stage.sandbox(app)
    fields = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
    async with await stage.client() as client:
        assert (await client.ask(box.get("/", fields))).status == 200
        await canary(client, box, app)
    assert b"\r\nX-Forwarded-For: %b\r\n" % chain in app.requests[0]
    assert b"\r\nX-Forwarded-Proto: %b\r\n" % scheme in app.requests[0]


async def test_clients_on_a_unix_socket(stage: Stage, tmp_path: Path) -> None:
    """A listener on a Unix socket serves as well; its clients have no address."""
    app = await stage.app()
    box = stage.sandbox(app)
    path = tmp_path / "edge"
    server = await asyncio.get_running_loop().create_unix_server(
        stage.edge.connections.protocol, str(path)
    )
    client = RawClient(*await asyncio.open_unix_connection(str(path)))
    assert (await client.ask(box.get("/unix"))).body == b"GET /unix HTTP/1.1\n"
    (connection,) = stage.edge.connections
    assert repr(connection) == "<ClientConnection unix idle>"
    assert b"\r\nX-Forwarded-For: unix\r\n" in app.requests[0]
    client.close()
    server.close()


async def test_what_a_connection_says_of_itself(stage: Stage) -> None:
    """Its repr names the peer and what it is busy with, and no credential."""
    release = asyncio.Event()
    app = await stage.app(first(held(release)))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        await client.send(box.get("/secret"))
        await app.until(lambda: len(app.requests) == 1)
        (connection,) = stage.edge.connections
        exchange = f"<Exchange GET {box.host} RELAYING sent=MAYBE>"
        assert repr(connection) == f"<ClientConnection {ADDRESS} {exchange}>"
        release.set()
        await client.answer()


async def test_a_client_that_resets_between_requests(stage: Stage) -> None:
    """Nothing is left of a connection that was dropped."""
    box = stage.sandbox(await stage.app())
    client = await stage.client()
    await canary(client, box)
    client.reset()
    await until(lambda: not stage.edge.connections)
    assert idle(stage)
    await canary_of_its_own(stage, box)
