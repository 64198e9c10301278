"""Clients of the fleet: requests at once, requests one after the other, connections that stay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Self

import aiohttp

from bench.fleet.world import Visit
from bench.processes import BenchError
from bench.scenarios import request, upgrade

PATIENCE = 60.0
"""Seconds an answer may take."""


class Clients:
    """All of them share one session, which opens as many connections as it takes."""

    def __init__(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def ask(self, port: int, visit: Visit, status: int = 200) -> float:
        """Seconds until the answer. Raises `BenchError` for another status than expected."""
        return (await self._answer(port, visit, status))[0]

    async def arrive(self, ports: Sequence[int], visit: Visit) -> tuple[list[float], list[int]]:
        """Ask several edges at once: seconds until each answer, and when (`bench.upstream`) the app got each request."""
        answers = await asyncio.gather(*(self._answer(port, visit, 200) for port in ports))
        return [taken for taken, _ in answers], [int(body) for _, body in answers]

    async def _answer(self, port: int, visit: Visit, status: int) -> tuple[float, bytes]:
        began = time.perf_counter()
        url = f"http://127.0.0.1:{port}{visit.target}"
        try:
            async with self._session.get(url, headers=visit.fields) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as e:
            raise BenchError(f"{visit.sandbox_id} was not answered: {e!r}") from None
        if answer.status != status:
            raise BenchError(f"{visit.sandbox_id} was answered {answer.status}: {body[:200]!r}")
        return time.perf_counter() - began, body

    async def wake(self, ports: Sequence[int], visit: Visit) -> list[float]:
        """Ask several edges at once for one sandbox."""
        return await asyncio.gather(*(self.ask(port, visit) for port in ports))

    async def in_turn(
        self, asked: Iterable[tuple[int, Visit]], at_once: int, status: int = 200
    ) -> list[float]:
        """Ask for all of them, ``at_once`` at a time."""
        left, times = iter(asked), list[float]()

        async def some() -> None:
            for port, visit in left:
                times.append(await self.ask(port, visit, status))

        await asyncio.gather(*(some() for _ in range(at_once)))
        return times

    async def json(self, url: str, payload: object = None) -> dict[str, object]:
        """What the bench's own servers say."""
        timeout = aiohttp.ClientTimeout(total=600)
        method = "GET" if payload is None else "POST"
        async with self._session.request(method, url, json=payload, timeout=timeout) as answer:
            return dict(await answer.json())

    async def text(self, url: str) -> str:
        """A page."""
        async with self._session.get(url) as answer:
            return await answer.text()


class Held:
    """Connections that stay open, each with one request sent."""

    def __init__(self) -> None:
        self._writers: list[asyncio.StreamWriter] = []

    async def waiters(self, port: int, visits: Sequence[Visit], count: int) -> None:
        """Requests that get no answer for now."""
        for number in range(count):
            visit = visits[number % len(visits)]
            await self._open(port, request("GET", visit.target, list(visit.fields.items())))

    async def tunnels(self, port: int, visit: Visit, count: int) -> None:
        """WebSockets that say nothing. Raises `BenchError` for another answer."""
        head = upgrade(visit.target, visit.fields["Host"])
        for _ in range(count):
            reader = await self._open(port, head)
            answer = await reader.readuntil(b"\r\n\r\n")
            if not answer.startswith(b"HTTP/1.1 101 "):
                raise BenchError(f"a WebSocket was answered {answer[:200]!r}")

    async def _open(self, port: int, head: str) -> asyncio.StreamReader:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        self._writers.append(writer)
        writer.write(head.encode("latin-1"))
        await writer.drain()
        return reader

    def close(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
