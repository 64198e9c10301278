"""The load generator: what it accepts as an answer, and that it counts right on a real socket."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from bench.load import BadAnswer, FixedReader, Generator, HttpReader, Job
from bench.scenarios import request, upgrade
from bench.upstream import CLIENT_FRAME, SERVER_FRAME, App

ANSWER = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture
def app() -> Iterator[int]:
    """The bench's app on a thread of its own; yields its port."""
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(loop.create_server(App, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server.sockets[0].getsockname()[1]

    async def end() -> None:
        server.close()
        loop.stop()

    asyncio.run_coroutine_threadsafe(end(), loop)
    thread.join()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pytest.mark.parametrize("step", [1, 7, len(ANSWER)])
def test_answers_are_read_in_any_pieces(step: int) -> None:
    """Two answers in a row, cut anywhere, are two answers."""
    reader = HttpReader(5, b"hello")
    pieces = [ANSWER[at : at + step] for at in range(0, len(ANSWER), step)]
    for _ in range(2):
        assert [reader.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize(
    "answer",
    [
        ANSWER.replace(b"200 OK", b"503 No"),
        ANSWER.replace(b": 5", b": 6"),
        ANSWER.replace(b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        ANSWER.replace(b"hello", b"jello"),
        ANSWER + b"x",
    ],
)
def test_wrong_answers_are_not_counted(answer: bytes) -> None:
    """Status, length and the end of the body have to be right."""
    with pytest.raises(BadAnswer):
        HttpReader(5, b"hello").feed(answer)


def test_fixed_answers_have_to_be_exact() -> None:
    """A tunnel's answer may come in pieces, but not differ."""
    reader = FixedReader(b"pong")
    assert [reader.feed(b"po"), reader.feed(b"ng"), reader.feed(b"pong")] == [False, True, True]
    with pytest.raises(BadAnswer):
        reader.feed(b"pang")


@pytest.mark.parametrize("rate", [0.0, 200.0])
def test_requests_are_counted_and_timed(app: int, rate: float) -> None:
    """Closed loop and paced: answers come, none is bad, times are positive."""
    job = Job(
        port=app,
        requests=(
            request("POST", "/live/count", [("Host", "x"), ("Content-Length", "4")]) + "four",
        ),
        connections=3,
        seconds=0.2,
        warm_up=0.05,
        rate=rate,
        length=16,
        tail=f"{4:016d}",
    )
    outcome = Generator(job).run()
    assert (outcome.errors, outcome.first_error) == (0, "")
    assert outcome.answers >= 10
    assert 0 < outcome.p50 <= outcome.p99
    if rate:
        assert outcome.answers <= 1 + rate * (job.warm_up + job.seconds)


def test_tunnels_are_opened_and_echoed(app: int) -> None:
    """The handshake is answered by 101, every frame by one frame."""
    job = Job(
        port=app,
        opening=upgrade("/live/ws", "x"),
        requests=(CLIENT_FRAME.decode("latin-1"),),
        answer=SERVER_FRAME.decode("latin-1"),
        connections=2,
        seconds=0.1,
        warm_up=0.0,
    )
    outcome = Generator(job).run()
    assert (outcome.errors, outcome.first_error) == (0, "")
    assert outcome.answers >= 10


def test_a_proxy_that_answers_wrongly_ends_the_run(app: int) -> None:
    """Errors are counted and the first one is told."""
    job = Job(
        port=app,
        requests=(request("GET", "/live/now", [("Host", "x")]),),
        connections=1,
        seconds=5.0,
        length=99,
    )
    outcome = Generator(job).run()
    assert outcome.answers == 0
    assert outcome.errors
    assert "expected 99 bytes" in outcome.first_error
