"""Plays one case: a client, the real edge, an app; then proves what is left of both connections.

Every run ends with a canary, a plain request whose every byte is known, on the same client and the
same upstream connection where these survive, else on new ones. A byte too many, too few or of another
message anywhere before it shows there.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum

from tests.conformance import stage
from tests.conformance.cases import Case, Step, as_bytes
from tests.conformance.wires import Wire, is_whole, length_of, until

_ASK = "GET /{} HTTP/1.1\nHost: {{host}}\n{{pass}}\n"
_SEEN = "GET /{} HTTP/1.1\nHost: {{host}}\n{{added}}\n"
CANARY = as_bytes(_ASK.format("canary"))
CANARY_SEEN = as_bytes(_SEEN.format("canary"))
CANARY_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\ncanary"
TAIL = as_bytes(_ASK.format("tail"))
TAIL_SEEN = as_bytes(_SEEN.format("tail"))
TAIL_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntail"
STALE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nstale"
"""What follows an answer on trial: an answer that nobody asked for."""


class Feed(Enum):
    """How the bytes on trial are written."""

    WHOLE = "whole"
    BYTES = "byte by byte"
    TAIL = "with a tail"
    AGAIN = "twice on one connection"

    def piece(self, data: bytes) -> int:
        """Bytes in one write. A head of many kB goes in pieces, or the machine is tried, not the edge."""
        if self is not Feed.BYTES:
            return max(1, len(data))
        return 1 if len(data) < 4000 else 997


class App:
    """The app: every connection that the edge made to it, and what came on it."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self.wires: list[Wire] = []

    def accept(self) -> Wire:
        """The protocol factory."""
        wire = Wire(self._news)
        self.wires.append(wire)
        return wire

    async def speaker(self, beginning: bytes = b"") -> Wire:
        """The connection on which the edge says something (that begins so)."""

        def speaking() -> list[Wire]:
            return [wire for wire in self.speaking() if wire.unread.startswith(beginning)]

        told = f"the app waits for {beginning!r}"
        await until(self._news, speaking, lambda: f"{told}, has {self.speaking()}")
        wires = speaking()
        assert len(wires) == 1, f"two requests at once: {wires}"
        return wires[0]

    def speaking(self) -> list[Wire]:
        """Every connection with unexpected bytes."""
        return [wire for wire in self.wires if wire.unread]

    async def hang_up(self) -> None:
        """End every connection, and wait until the edge has seen it."""
        for wire in self.wires:
            if not wire.gone.is_set():
                wire.transport.write_eof()
                await wire.until(lambda wire=wire: wire.ended, "the edge keeps a dead connection")
                await wire.close()
        self.wires.clear()

    def quiet(self) -> None:
        """Nothing may have come that nobody expected."""
        assert not self.speaking(), f"the app was sent {self.speaking()}"


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[App, int]]:
    """An app and its port."""
    app = App()
    server = await asyncio.get_running_loop().create_server(app.accept, "127.0.0.1", 0)
    try:
        yield app, server.sockets[0].getsockname()[1]
    finally:
        for wire in app.wires:
            await wire.close()
        server.close()
        await server.wait_closed()


@dataclass
class Run:
    """One case, fed in one way."""

    case: Case
    feed: Feed
    app: App
    edge_port: int

    async def play(self) -> None:
        """The whole of it. Raises AssertionError."""
        case = self.case
        await self.app.hang_up()
        self.upstream: Wire | None = None
        self.client = await self._connect()
        self.others: list[Wire] = []
        self.closed = "client" in case.closes
        try:
            if case.reused:
                await self._plain(CANARY, CANARY_SEEN, CANARY_ANSWER)
            for _ in range(2 if self.feed is Feed.AGAIN else 1):
                for number, step in enumerate(case.steps):
                    await self._step(step, number)
            if case.broken is not None:
                await self._cut(case.broken)
            elif case.refused is not None:
                await self._refused(*case.refused)
            await self._aftermath()
        finally:
            for wire in (self.client, *self.others):
                await wire.close()

    # --- the dialogue ---------------------------------------------------------------------------------

    async def _step(self, step: Step, number: int) -> None:
        match step.who, step.act:
            case "client", "sends":
                data = step.data + self._tail("client", number, TAIL)
                await self.client.send(data, self.feed.piece(data))
            case "client", "gets":
                await self.client.take_message(step.data, "the client")
            case "client", "closes":
                self.client.transport.write_eof()
            case "client", "resets":
                _reset(self.client)
            case "app", "gets":
                self.upstream = await self.app.speaker()
                await self.upstream.take_message(step.data, "the app")
            case "app", "sends":
                assert self.upstream is not None
                data = step.data + self._tail("app", number, STALE)
                await self.upstream.send(data, self.feed.piece(data))
            case "app", "closes":
                assert self.upstream is not None
                self.upstream.transport.write_eof()
            case "app", "resets":
                assert self.upstream is not None
                _reset(self.upstream)
            case _:
                raise ValueError(step)

    def _tail(self, side: str, number: int, tail: bytes) -> bytes:
        """What follows the last bytes on trial, when this is they."""
        last = max(n for n, s in enumerate(self.case.steps) if (s.who, s.act) == (side, "sends"))
        tailed = self.feed is Feed.TAIL and side == self.case.side and number == last
        return tail if tailed else b""

    # --- what the client gets instead of an answer ----------------------------------------------------

    async def _refused(self, status: int, code: str) -> None:
        head = await self.client.head("the client")
        line, *fields = head.lower().split(b"\r\n")
        assert line.startswith(b"http/1.1 %d " % status), f"expected {status} {code}, got {head!r}"
        closing = b"connection: close" in fields
        self.closed = closing
        if "either" not in self.case.closes:
            assert closing is ("client" in self.case.closes), f"close={closing} in {head!r}"
        size = length_of(head)
        if self.case.steps[0].data.startswith(b"HEAD "):
            # RFC 9110 section 9.3.2: no body. A head that could not be read was not a HEAD to the edge.
            if not closing:
                return
            await self.client.until(lambda: self.client.ended, "the client waits for the end")
            size = min(size, len(self.client.unread))
            if not size:
                return
        await self.client.until(
            lambda: len(self.client.unread) >= size or self.client.ended, "the error's body"
        )
        body, self.client.unread = self.client.unread[:size], self.client.unread[size:]
        assert json.loads(body)["code"] == code, f"expected {code}, got {body!r}"

    async def _cut(self, expected: bytes) -> None:
        """A broken answer: an error while that is possible, else the beginning and a visible cut."""
        head = await self.client.head("the client")
        if head.startswith(b"HTTP/1.1 502 "):
            self.client.unread = head + b"\r\n\r\n" + self.client.unread
            await self._refused(502, "preview_upstream_invalid")
            return
        assert head + b"\r\n\r\n" == expected, f"the client got {head!r}"
        await self.client.until(lambda: self.client.ended, "the answer must be cut")
        whole = is_whole(head + b"\r\n\r\n" + self.client.unread)
        assert not whole or self.client.reset, f"not visibly cut: {self.client.unread!r}"
        self.client.unread = b""
        await self._reconnect()
        self.closed = False

    # --- afterwards -----------------------------------------------------------------------------------

    async def _aftermath(self) -> None:
        case = self.case
        tailed = self.feed is Feed.TAIL and not case.no_tail
        if case.tunnel:
            await self._through_the_tunnel(tailed)
            return
        if self.closed:
            await self.client.end("the client")
            await self._reconnect()
        elif tailed and case.side == "client":
            await self._answer(TAIL_SEEN, TAIL_ANSWER)
        if self.upstream is not None and (
            "upstream" in case.closes or (tailed and case.side == "app")
        ):
            await self.upstream.end("the app")
            await self.upstream.close()
            self.upstream = None
        if not case.partial:
            self.app.quiet()
        await self._plain(CANARY, CANARY_SEEN, CANARY_ANSWER)
        assert not self.client.unread, f"the client got more: {self.client.unread!r}"
        if case.partial:
            await self._incomplete()
        self.app.quiet()

    async def _plain(self, ask: bytes, seen: bytes, answer: bytes) -> None:
        """A request without any trouble."""
        await self.client.send(ask, len(ask))
        await self._answer(seen, answer)

    async def _answer(self, seen: bytes, answer: bytes) -> None:
        """The next request must be this one, on the same upstream connection if there is one."""
        speaker = await self.app.speaker(seen[:12] if self.case.partial else b"")
        if self.upstream is not None:
            assert speaker is self.upstream, "another upstream connection was used"
        self.upstream = speaker
        await speaker.take(seen, "the app")
        await speaker.send(answer, len(answer))
        await self.client.take(answer, "the client")

    async def _incomplete(self) -> None:
        """What the app saw of a request that was refused half-way must end without ever being whole."""
        for wire in self.app.speaking():
            await wire.until(lambda wire=wire: wire.ended, "a half request must be cut")
            assert not is_whole(wire.unread), f"the app saw a whole request: {wire.unread!r}"
            wire.unread = b""

    async def _through_the_tunnel(self, tailed: bool) -> None:
        assert self.upstream is not None
        if tailed and self.case.side == "client":
            await self.upstream.take(TAIL, "the app")
        elif tailed:
            await self.client.take(STALE, "the client")
        for sender, reader in ((self.client, self.upstream), (self.upstream, self.client)):
            await sender.send(b"\0any bytes\r\n\r\n", 64)
            await reader.take(b"\0any bytes\r\n\r\n", "the other end of the tunnel")
        self.client.transport.write_eof()
        await self.upstream.end("the app")
        await self.upstream.close()
        await self.client.end("the client")
        self.upstream = None
        await self._reconnect()
        await self._plain(CANARY, CANARY_SEEN, CANARY_ANSWER)
        self.app.quiet()

    async def _connect(self) -> Wire:
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(Wire, "127.0.0.1", self.edge_port)
        return wire

    async def _reconnect(self) -> None:
        self.others.append(self.client)
        self.client = await self._connect()


def _reset(wire: Wire) -> None:
    """Leave the impolite way."""
    sock: socket.socket = wire.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wire.transport.abort()


async def play(case: Case) -> None:
    """The case in every feed, before one edge."""
    async with listening() as (app, app_port), stage.serving(app_port) as edge:
        for feed in Feed:
            if (feed is Feed.TAIL and case.no_tail) or (feed is Feed.AGAIN and not case.repeats):
                continue
            try:
                await Run(case, feed, app, edge.port).play()
            except AssertionError as e:
                raise AssertionError(f"{feed.value}: {e}") from e
