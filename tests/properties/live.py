"""A real edge between a client and an app that both do as a generated plan says.

The app gives every request it reads a *mark*, puts it into its answer, and notes what it saw. Marks
cannot be made up by a flipped bit, so a mark in the wrong answer means that two answers changed places.
"""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import h11

from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State, Transport, Upstream
from tests.core.wires import cut
from tests.flows.rawclient import RawClient
from tests.flows.scriptedapp import AppConnection
from tests.flows.stage import LONG_AGO, PORT, Preview, Stage, until
from tests.properties.exchanges import TOKEN_HERE
from tests.properties.readers import Got, answer_by_h11

PATIENCE = 20.0
"""Seconds after which something hangs. Every plan here ends by itself, whatever the deadlines are."""
TUNNEL_PATH = b"/tunnel"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
MARK = b"<m%08x>"
_MARK = re.compile(rb"<m([0-9a-f]{8})>")
_SPREAD = 0x9E3779B1
"""Odd, so that counting up visits every mark once, and neighbours differ in many bits."""
MARK_HERE = MARK % 0


def mark_of(serial: int) -> bytes:
    """The mark of the app's request of that number, from 1."""
    return MARK % (serial * _SPREAD % 2**32)


class Plan(NamedTuple):
    """What the app does with one request. `MARK_HERE` in ``wire`` becomes the request's mark.

    ``early``: before the request's body has come. ``end``: ``keep``, ``close`` or ``reset`` the
    connection afterwards. ``places`` is where ``wire`` is cut into writes.
    """

    wire: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + MARK_HERE
    early: bool = False
    end: str = "keep"
    places: Sequence[int] = ()


@dataclass
class Seen:
    """One request as the app read it. ``complete``: its end was seen."""

    mark: bytes
    method: bytes
    target: bytes
    fields: tuple[tuple[bytes, bytes], ...] = ()
    payload: bytes = b""
    complete: bool = False


@dataclass
class Live:
    """The stage with one sandbox; `app` plays what is in it, `talk` its clients."""

    stage: Stage
    preview: Preview
    token: bytes
    socket_token: bytes
    crashes: list[str]
    plans: dict[bytes, Plan] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    serial: int = 0
    said_by_app: tuple[bytes, Sequence[int]] = (b"", ())
    heard_by_app: bytes | None = None
    tokens: dict[str, bytes] = field(default_factory=dict)
    """Further ones, by names that a test gives them."""

    def begin(self, plans: dict[bytes, Plan]) -> None:
        """A new example: plans by the path that is asked for; other paths get plain answers."""
        self.plans, self.seen, self.faults = plans, [], []

    def spelled(self, data: bytes, *, websocket: bool = False) -> bytes:
        """A request with a real token where one belongs."""
        return data.replace(TOKEN_HERE, self.socket_token if websocket else self.token)

    async def talk(self, data: bytes, places: Sequence[int] = (), *, end: str = "wait") -> bytes:
        """Send, read everything. ``end``: ``wait`` for the edge to close, send a ``fin`` first, or ``reset``."""
        async with asyncio.timeout(PATIENCE), await RawClient.open(self.stage.edge.port) as client:
            received = b""
            try:
                await send_cut(client, data, places)
                if end == "reset":
                    # Without this an abort is a FIN: of a client that still wants its answer.
                    sock = client.writer.get_extra_info("socket")
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    client.reset()
                    return b""
                if end == "fin":
                    client.end()
                while more := await client.reader.read(65536):
                    received += more
            except ConnectionError:
                pass  # how an answer ends that has no other way to show that it is cut short
            return received

    async def settle(self) -> None:
        """The example is over: nothing is counted any more, nothing crashed, the app saw no nonsense.

        Idle connections to the app are dropped, so that every example begins alike.
        """
        edge = self.stage.edge
        try:
            await until(lambda: not any(edge.admission.counts().values()), PATIENCE)
        except TimeoutError:
            held = [repr(one) for one in edge.connections] + list(map(repr, edge.flow.active()))
            raise AssertionError(f"still counted: {edge.admission.counts()} {held}") from None
        edge.flow.close()
        assert not list(edge.flow.active()) and not edge.flow.waiting()
        assert not self.crashes, self.crashes
        assert not self.faults, self.faults

    async def app(self, connection: AppConnection) -> None:
        """The app's side of one connection; h11 reads what the edge writes, strictly."""
        rest = b""
        while True:
            reader = h11.Connection(h11.SERVER, max_incomplete_event_size=200_000)
            if rest:
                reader.receive_data(rest)
            head = await self._event(connection, reader)
            if not isinstance(head, h11.Request):
                return
            self.serial += 1
            fields = tuple((bytes(name), bytes(value)) for name, value in head.headers.raw_items())
            seen = Seen(mark_of(self.serial), bytes(head.method), bytes(head.target), fields)
            self.seen.append(seen)
            if seen.target.startswith(TUNNEL_PATH):
                await self._tunnel(connection, reader.trailing_data[0])
                return
            plan = self.plans.get(seen.target.partition(b"?")[0], Plan())
            if plan.early and not await self._answer(connection, plan, seen):
                return
            while isinstance(event := await self._event(connection, reader), h11.Data):
                seen.payload += bytes(event.data)
            seen.complete = isinstance(event, h11.EndOfMessage)
            if not seen.complete:
                return
            rest = reader.trailing_data[0]
            if not plan.early and not await self._answer(connection, plan, seen):
                return

    async def _tunnel(self, connection: AppConnection, early: bytes) -> None:
        """Take the upgrade, say everything that is planned, hear everything there is."""
        says, where = self.said_by_app
        hears = asyncio.ensure_future(connection.read_to_end())
        try:
            for part in cut(SWITCHING + says, list(where)):
                await connection.send(part)
                await asyncio.sleep(0)
            connection.end()
            self.heard_by_app = early + await hears
        finally:
            hears.cancel()

    async def _event(self, connection: AppConnection, reader: h11.Connection) -> object:
        """The next event; None at the end of the connection, or of what can be understood."""
        while True:
            try:
                event = reader.next_event()
            except h11.RemoteProtocolError as error:
                self.faults.append(f"the edge wrote nonsense: {error} in {connection.received!r}")
                return None
            if event is not h11.NEED_DATA:
                return event
            data = await connection.read_some()
            if not data:
                return None  # the edge may end a request that its client did not finish
            reader.receive_data(data)

    async def _answer(self, connection: AppConnection, plan: Plan, seen: Seen) -> bool:
        """Do as planned. False when the connection is of no further use."""
        wire = plan.wire.replace(MARK_HERE, seen.mark)
        for part in cut(wire, list(plan.places)) if wire else ():
            await connection.send(part)
            await asyncio.sleep(0)
        if plan.end == "reset":
            connection.reset()
        return plan.end == "keep"


async def send_cut(client: RawClient, data: bytes, places: Sequence[int]) -> None:
    """Send in pieces, the loop turning in between, so that the edge reads them as pieces."""
    for part in cut(data, list(places)) if data else ():
        await client.send(part)
        for _ in range(2):
            await asyncio.sleep(0)


def answers_in(data: bytes, methods: list[bytes]) -> list[Got]:
    """Every answer on a client's connection, read strictly; those to ``methods`` and no more."""
    found: list[Got] = []
    for method in methods:
        if not data:
            break
        got, data = answer_by_h11(data, method, eof=True)
        if got is None:
            break
        found.append(got)
    assert data == b"", f"bytes after the last answer: {data[:200]!r}"
    return found


def marks_in(data: bytes) -> list[bytes]:
    """The marks in these bytes, each once, in order."""
    return list(dict.fromkeys(match[0] for match in _MARK.finditer(data)))


def set_up(stage: Stage, crashes: list[str]) -> Live:
    """The sandbox that the generated requests name, and tokens that outlive every run."""
    sandbox_id = "sb_aaaaaaaa"
    until_then = time.time() + 7 * 86400
    stage.plane.put(
        GrantRecord(
            "pvg_live", sandbox_id, PORT, frozenset(Transport), GrantStatus.ACTIVE, until_then, 1
        )
    )
    preview = Preview(stage, sandbox_id, PORT, "pvg_live")
    token = preview.token(exp=until_then).encode()
    socket_token = preview.token(exp=until_then, kind=Transport.WEBSOCKET).encode()
    return Live(stage, preview, token, socket_token, crashes)


def place(live: Live, port: int) -> None:
    """Put the app, which listens on ``port``, into the sandbox."""
    live.stage.plane.put(
        SandboxRecord(
            live.preview.id, State.RUNNING, 1, 1,
            running_since=time.time() - LONG_AGO, upstream=Upstream("127.0.0.1", {PORT: port}),
        )
    )  # fmt: skip
