"""Memory: how much more the edge holds while it carries a body that does not fit anywhere."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bench.machine import forget_peak, peak_rss, rss_of_tree
from bench.peers import Contender
from bench.processes import BenchError
from bench.scenarios import body_fields, browser_fields, request
from bench.world import LIVE, RUNNING, World, host_of

BAR = 64 << 20
"""Bytes it may be more."""
SAMPLE_EVERY = 0.02
DAWDLE = 1.0
"""Seconds the reader of a download reads nothing at first, while the app sends what it can."""


@dataclass(frozen=True, slots=True)
class MemoryResult:
    """One body. ``growth`` is bytes above what was held before; ``seconds`` how long it took."""

    name: str
    size: int
    growth: int
    seconds: float


def prepare(world: World) -> list[tuple[str, str]]:
    """The header of both requests."""
    return browser_fields(host_of(RUNNING, LIVE), world.cookie(RUNNING, LIVE))


def measure_memory(
    edge: Contender, fields: list[tuple[str, str]], size: int
) -> Iterator[MemoryResult]:
    """A download whose reader dawdles first, then an upload. Raises `BenchError` on a wrong answer."""

    def download() -> None:
        _download(edge.port, request("GET", f"/live/bytes/{size}", fields), size)

    def upload() -> None:
        _upload(edge.port, request("POST", "/live/count", [*fields, *body_fields(size)]), size)

    yield _watched(edge.pid, "download", size, download)
    yield _watched(edge.pid, "upload", size, upload)


def _watched(pid: int, name: str, size: int, work: Callable[[], None]) -> MemoryResult:
    forget_peak(pid)
    before = highest = rss_of_tree(pid)
    over = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not over.wait(SAMPLE_EVERY):
            highest = max(highest, rss_of_tree(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    started = time.perf_counter()
    try:
        work()
    finally:
        over.set()
        watcher.join()
    # The kernel's own high-water mark sees what falls between two samples.
    highest = max(highest, peak_rss(pid) or 0)
    return MemoryResult(name, size, highest - before, time.perf_counter() - started)


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 60)


def _download(port: int, head: str, size: int) -> None:
    with _connect(port) as client:
        client.sendall(head.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += _received(client, 4096)
        status, _, rest = answer.partition(b"\r\n\r\n")
        if not status.startswith(b"HTTP/1.1 200 "):
            raise BenchError(f"the download was answered {status[:100]!r}")
        time.sleep(DAWDLE)
        left = size - len(rest)
        room = bytearray(1 << 20)
        while left > 0:
            count = client.recv_into(room)
            if not count:
                raise BenchError(f"the download ended {left} bytes early")
            left -= count


def _upload(port: int, head: str, size: int) -> None:
    block = bytes(1 << 20)
    with _connect(port) as client:
        client.sendall(head.encode())
        left = size
        while left > 0:
            client.sendall(block[: min(left, len(block))])
            left -= len(block)
        answer = b""
        while not (b"\r\n\r\n" in answer and len(answer.partition(b"\r\n\r\n")[2]) >= 16):
            answer += _received(client, 4096)
        if not answer.endswith(b"%016d" % size):
            raise BenchError(f"the upload was answered {answer[-200:]!r}")


def _received(client: socket.socket, size: int) -> bytes:
    data = client.recv(size)
    if not data:
        raise BenchError("the edge closed the connection early")
    return data
