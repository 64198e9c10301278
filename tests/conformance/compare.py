"""``python -m tests.conformance.compare``: plays the cases to the peers and writes docs/conformance.md.

The same bytes, whole, with a request behind them, before the same app, which answers every request it
gets. What is not installed here is left out with the reason.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.processes import BenchError, Crew
from tests.conformance import peers, table
from tests.conformance.answered import AnswerObserver, answering
from tests.conformance.cases import Case, load
from tests.conformance.driver import TAIL
from tests.conformance.observed import (
    Recorder,
    Request,
    comparable,
    expected,
    own_statuses,
    sent,
    words,
)
from tests.conformance.wires import Wire

QUIET = 1.2
"""Seconds without a word after which a proxy is taken to wait for more."""


@dataclass
class Column:
    """What one peer did: the outcome of every case by theme and name, or why there is none."""

    label: str
    outcomes: dict[tuple[str, str], str] = field(default_factory=dict)
    missing: str = ""


class Observer:
    """One proxy with an app of its own behind it."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.port = 0
        self._news = asyncio.Event()

    def app(self) -> Recorder:
        """The app's protocol factory."""
        return Recorder(self.seen, self._news)

    async def outcome(self, case: Case) -> str:
        """What becomes of a case's bytes."""
        self.seen.clear()
        loop = asyncio.get_running_loop()
        _, client = await loop.create_connection(lambda: Wire(self._news), "127.0.0.1", self.port)
        asked = sent(case)
        client.transport.write(asked + TAIL)
        await self._until_quiet(client)
        waits = not client.ended and not client.unread
        received = client.unread
        await client.close()
        mine = [request for request in self.seen if request.target != "/tail"]
        told = words(mine, own_statuses(received)[:1], expected(case), asked)
        return told or ("waits" if waits else "closed" if not self.seen else "ignored")

    async def _until_quiet(self, client: Wire) -> None:
        """Until the connection ends (or will), the tail is answered, or nothing has happened for a while."""
        last, known = time.monotonic(), (-1, -1)
        while not client.ended and time.monotonic() < last + QUIET:
            self._news.clear()
            now = len(client.unread), len(self.seen)
            if now != known:
                last, known = time.monotonic(), now
            tail = bool(self.seen) and self.seen[-1].target == "/tail"
            if tail and client.unread.count(b"HTTP/1.1 ") >= len(self.seen):
                return
            # Envoy says so and ends a second later.
            if own_statuses(client.unread) and b"\nconnection: close\r" in client.unread.lower():
                return
            try:
                async with asyncio.timeout(0.1):
                    await self._news.wait()
            except TimeoutError:
                pass


async def column(peer: peers.Peer, directory: Path, cases: list[Case]) -> Column:
    """Play the cases to one peer."""
    try:
        found = Column(peer.label())
        for which, observer in ((comparable, Observer()), (answering, AnswerObserver())):
            chosen = [case for case in cases if which(case)]
            there = directory / which.__name__
            there.mkdir(exist_ok=True)
            with Crew(there) as crew:
                await _observe(observer, peer, crew, chosen, found)
        return found
    except BenchError as e:
        return Column(peer.name, missing=str(e))


async def _observe(
    observer: Observer | AnswerObserver,
    peer: peers.Peer,
    crew: Crew,
    cases: list[Case],
    found: Column,
) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(observer.app, "127.0.0.1", 0)
    try:
        observer.port, ready = peers.start(peer, crew, server.sockets[0].getsockname()[1])
        await asyncio.to_thread(ready)
        for case in cases:
            found.outcomes[case.theme, case.name] = await observer.outcome(case)
    finally:
        server.close()


async def compare(cases: list[Case], directory: Path) -> list[Column]:
    """Play the cases to every peer at once."""
    return list(await asyncio.gather(*(column(peer, directory, cases) for peer in peers.PEERS)))


def main() -> int:
    """Write the page; 1 when a peer could not be asked."""
    cases = load()
    with tempfile.TemporaryDirectory() as directory:
        columns = asyncio.run(compare(cases, Path(directory)))
    table.PAGE.write_text(table.page(cases, columns), "utf-8")
    for one in columns:
        print(f"{one.label}: {one.missing or f'{len(one.outcomes)} cases'}")
    return int(any(one.missing for one in columns))


if __name__ == "__main__":
    sys.exit(main())
