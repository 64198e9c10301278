"""The load generator: fixed bytes out, every answer checked, times kept. One thread, its own process.

``python -m bench.load`` reads a `Job` as JSON on standard input and prints an `Outcome` as JSON. With
``rate`` 0 every connection sends its next request as soon as the answer is there (closed loop); with a
rate, requests leave at that pace over whichever connection is idle.
"""

from __future__ import annotations

import gc
import json
import re
import select
import selectors
import socket
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any, Protocol

from bench.stats import percentile

MAX_ERRORS = 50
PATIENCE = 5.0
"""Seconds without any answer after which a run is given up."""

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+) *\r\n", re.IGNORECASE)


class BadAnswer(Exception):
    """The answer is not the expected one."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to do. Bytes travel as Latin-1 text.

    Requests take turns, whichever connection they go out on. ``opening`` (may be empty) is sent once
    per connection and must be answered by 101. ``answer`` is the whole answer where there is no HTTP in
    it (a tunnel); otherwise a 200 with ``length`` bytes that end in ``tail`` is expected. ``seconds``
    are measured after ``warm_up`` seconds that are not.
    """

    port: int
    requests: tuple[str, ...]
    connections: int
    seconds: float
    warm_up: float = 0.3
    rate: float = 0.0
    opening: str = ""
    answer: str = ""
    length: int = 0
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. ``answers`` counts all good ones, warm-up included; times are in seconds."""

    answers: int
    per_second: float
    p50: float
    p99: float
    errors: int
    first_error: str


class Reader(Protocol):
    """Reads answers off one connection."""

    def feed(self, data: bytes) -> bool:
        """Whether the answer is complete. Raises `BadAnswer`."""


class HttpReader:
    """Answers with a status of 200 and a length that is known beforehand; just as much HTTP as that."""

    __slots__ = ("_head", "_left", "_length", "_tail")

    def __init__(self, length: int, tail: bytes) -> None:
        self._length = length
        self._tail = tail
        self._left = 0
        self._head = b""

    def feed(self, data: bytes) -> bool:
        if self._left:
            return self._body(data, len(data))
        data = self._head + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._head = data
            return False
        self._head = b""
        if not data.startswith(b"HTTP/1.1 200 "):
            raise BadAnswer(data[:300].decode("latin-1"))
        found = _LENGTH.search(data, 0, end + 2)
        if found is None or int(found[1]) != self._length:
            raise BadAnswer(f"expected {self._length} bytes: {data[:300].decode('latin-1')}")
        self._left = self._length
        return self._body(data, len(data) - end - 4)

    def _body(self, data: bytes, size: int) -> bool:
        self._left -= size
        if self._left > 0:
            return False
        if self._left < 0 or not data.endswith(self._tail[-size:]):
            raise BadAnswer(f"other bytes than expected: {data[-100:].decode('latin-1')}")
        return True


class FixedReader:
    """Answers that are always the same bytes."""

    __slots__ = ("_answer", "_held")

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._held = b""

    def feed(self, data: bytes) -> bool:
        data = self._held + data
        if data == self._answer:
            self._held = b""
            return True
        if not self._answer.startswith(data):
            raise BadAnswer(f"other bytes than expected: {data[:100]!r}")
        self._held = data
        return False


class Connection:
    """One connection and its answer under way. ``since`` is when the request left, in nanoseconds."""

    __slots__ = ("reader", "since", "socket")

    def __init__(self, job: Job) -> None:
        self.socket = socket.create_connection(("127.0.0.1", job.port), PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.since = 0
        if job.opening:
            self._open(job.opening.encode("latin-1"))
        # A timeout would cost a poll() before every call; readiness is known from the poller.
        self.socket.settimeout(None)
        self.reader: Reader = (
            FixedReader(job.answer.encode("latin-1"))
            if job.answer
            else HttpReader(job.length, job.tail.encode("latin-1"))
        )

    def _open(self, opening: bytes) -> None:
        self.socket.sendall(opening)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            data = self.socket.recv(65536)
            head += data
            if not data or len(head) > 65536:
                raise BadAnswer(f"handshake: {head[:300].decode('latin-1')}")
        if not head.startswith(b"HTTP/1.1 101 "):
            raise BadAnswer(f"handshake: {head[:300].decode('latin-1')}")


class Poller:
    """epoll where there is one: `selectors` costs half as much again per answer."""

    def __init__(self) -> None:
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._selector = None if self._epoll else selectors.DefaultSelector()

    def add(self, fd: int) -> None:
        if self._epoll:
            self._epoll.register(fd, select.EPOLLIN)
        elif self._selector:
            self._selector.register(fd, selectors.EVENT_READ)

    def drop(self, fd: int) -> None:
        if self._epoll:
            self._epoll.unregister(fd)
        elif self._selector:
            self._selector.unregister(fd)

    def close(self) -> None:
        for poller in (self._epoll, self._selector):
            if poller:
                poller.close()

    def ready(self, timeout: float) -> list[int]:
        if self._epoll:
            return [fd for fd, _ in self._epoll.poll(timeout)]
        assert self._selector is not None
        return [key.fd for key, _ in self._selector.select(timeout)]


class Generator:
    """One run of one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._requests = cycle([request.encode("latin-1") for request in job.requests])
        self._poller = Poller()
        self._connections: dict[int, Connection] = {}
        self._idle: deque[Connection] = deque()
        self._latencies: list[int] = []
        self._answers = 0
        self._errors = 0
        self._first_error = ""
        self._measure_from = self._until = 0

    def run(self) -> Outcome:
        try:
            for _ in range(self._job.connections):
                self._connect()
            started = time.perf_counter_ns()
            self._measure_from = started + int(self._job.warm_up * 1e9)
            self._until = self._measure_from + int(self._job.seconds * 1e9)
            if self._job.rate:
                self._paced(started)
            else:
                self._closed_loop()
        finally:
            for connection in self._connections.values():
                connection.socket.close()
            self._poller.close()
        return self._outcome()

    def _closed_loop(self) -> None:
        while self._idle:
            self._send(self._idle.popleft(), time.perf_counter_ns())
        while self._busy():
            self._serve(PATIENCE)

    def _busy(self) -> bool:
        return len(self._idle) < len(self._connections) and self._errors < MAX_ERRORS

    def _paced(self, started: int) -> None:
        gap = int(1e9 / self._job.rate)
        due = started
        while due < self._until and self._errors < MAX_ERRORS:
            now = time.perf_counter_ns()
            while due <= now and self._idle:
                # Waiting for an idle connection is the proxy's fault and counts; our own sleep
                # (poll rounds up to milliseconds) is not and does not.
                self._send(self._idle.popleft(), now if now - due < 2_000_000 else due)
                due += gap
            self._serve(max(0.0, (due - now) / 1e9) if self._idle else PATIENCE)
        while self._busy():
            self._serve(PATIENCE)

    def _connect(self) -> None:
        connection = Connection(self._job)
        fd = connection.socket.fileno()
        self._connections[fd] = connection
        self._idle.append(connection)
        self._poller.add(fd)

    def _send(self, connection: Connection, now: int) -> None:
        connection.since = now
        connection.socket.sendall(next(self._requests))

    def _serve(self, timeout: float) -> None:
        ready = self._poller.ready(timeout)
        if not ready and timeout >= PATIENCE:
            self._errors = MAX_ERRORS
            self._first_error = self._first_error or f"no answer for {PATIENCE:g} s"
        for fd in ready:
            connection = self._connections[fd]
            try:
                data = connection.socket.recv(262144)
                if not data:
                    raise BadAnswer("connection closed")
                if connection.reader.feed(data):
                    self._answered(connection)
            except (BadAnswer, OSError) as e:
                self._failed(fd, str(e))

    def _answered(self, connection: Connection) -> None:
        now = time.perf_counter_ns()
        self._answers += 1
        if self._measure_from <= now < self._until:
            self._latencies.append(now - connection.since)
        if self._job.rate or now >= self._until:
            self._idle.append(connection)
        else:
            self._send(connection, now)

    def _failed(self, fd: int, why: str) -> None:
        self._errors += 1
        self._first_error = self._first_error or why
        self._poller.drop(fd)
        self._connections.pop(fd).socket.close()
        if self._errors < MAX_ERRORS:
            self._connect()
            if not self._job.rate:
                self._send(self._idle.pop(), time.perf_counter_ns())

    def _outcome(self) -> Outcome:
        times = sorted(self._latencies)
        return Outcome(
            answers=self._answers,
            per_second=len(times) / self._job.seconds,
            p50=percentile(times, 50) / 1e9,
            p99=percentile(times, 99) / 1e9,
            errors=self._errors,
            first_error=self._first_error,
        )


def main() -> None:
    job: dict[str, Any] = json.load(sys.stdin)
    gc.disable()  # Nothing here makes cycles, and a collection would show as a proxy's p99.
    try:
        outcome = Generator(Job(**job)).run()
    except (BadAnswer, OSError) as e:
        outcome = Outcome(0, 0.0, 0.0, 0.0, MAX_ERRORS, str(e))
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
