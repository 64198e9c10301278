"""What becomes of an app's answer behind any proxy, in a few words, and of the request that comes after it."""

from __future__ import annotations

import asyncio
from typing import cast

from tests.conformance.cases import Case
from tests.conformance.driver import CANARY, CANARY_ANSWER
from tests.conformance.observed import next_request, sent, unchunked
from tests.conformance.wires import Wire, length_of

QUIET = 0.1
"""Seconds without a word after which an answer that looks whole is taken to be."""
PATIENCE = 1.5
"""Seconds without a word after which the rest of an answer is given up. Envoy ends a connection after one."""


def answering(case: Case) -> bool:
    """Whether a case is one request and one answer, so that any proxy can be tried with it."""
    acts = [(step.who, step.act) for step in case.steps if step.act != "gets"]
    one_turn = [act for act in acts if act != ("app", "closes")]
    return (
        case.side == "app"
        and not case.reused
        and one_turn == [("client", "sends"), ("app", "sends")]
        and b"websocket" not in sent(case)
    )


class Answerer(asyncio.Protocol):
    """An app that gives the case's answer to its request, and an ordinary one to the canary."""

    def __init__(self, observer: AnswerObserver) -> None:
        self._observer = observer
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (one := next_request(self._data)) is not None:
            request, self._data = one
            self._observer.asked.append((request.target, self))
            if request.target != "/case":
                self._transport.write(CANARY_ANSWER)
                continue
            self._transport.write(self._observer.answer)
            if self._observer.closes:
                self._transport.close()


class AnswerObserver:
    """One proxy with such an app behind it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Answerer]] = []
        self.port = 0
        self.answer = CANARY_ANSWER
        self.closes = False
        self._news = asyncio.Event()

    def app(self) -> Answerer:
        """The app's protocol factory."""
        return Answerer(self)

    async def outcome(self, case: Case) -> str:
        """What the client makes of the answer, then of the answer to a canary."""
        self.asked.clear()
        self.answer = b"".join(s.data for s in case.steps if (s.who, s.act) == ("app", "sends"))
        self.closes = any((s.who, s.act) == ("app", "closes") for s in case.steps)
        client = await self._connect()
        asked = sent(case)
        received = await self._ask(client, asked)
        told = words(received, self.answer, ended=client.ended, to_head=asked.startswith(b"HEAD "))
        if not told.startswith("passes") or client.ended:
            await client.close()
            client = await self._connect()
        canary = await self._ask(client, CANARY)
        await client.close()
        wires = [wire for target, wire in self.asked if target in ("/case", "/canary")]
        if told == "passes" and not self.closes and len(wires) > 1 and wires[0] is not wires[-1]:
            told += ", upstream closed"
        right = canary.startswith(b"HTTP/1.1 200 OK\r\n") and canary.endswith(b"\r\n\r\ncanary")
        return told if right else f"{told}, next answer wrong"

    async def _connect(self) -> Wire:
        loop = asyncio.get_running_loop()
        _, wire = await loop.create_connection(lambda: Wire(self._news), "127.0.0.1", self.port)
        return wire

    async def _ask(self, client: Wire, data: bytes) -> bytes:
        client.transport.write(data)
        to_head = data.startswith(b"HEAD ")
        news = True
        while news and not client.ended:
            self._news.clear()
            so_far = words(client.unread, self.answer, ended=False, to_head=to_head)
            news = await self._anything(PATIENCE if so_far == "waits" else QUIET)
        received, client.unread = client.unread, b""
        return received

    async def _anything(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        return True


def words(received: bytes, answer: bytes, *, ended: bool, to_head: bool) -> str:
    """An outcome in the words of the table."""
    head, body = final_answer(received)
    if not head:
        return "closed" if ended else "waits"
    theirs, _ = final_answer(answer)
    status = head[9:12]
    told = status.decode("latin-1").strip()
    if status != theirs[9:12] and status[:1] in b"45":
        return told
    if status != theirs[9:12] and theirs.startswith(b"HTTP/"):
        return f"passes as {told}"
    if status == b"101":
        return "passes the 101"
    bodiless = to_head or status in (b"204", b"304")
    if b"\r\ntransfer-encoding:" in head.lower():
        whole = bodiless or unchunked(body) is not None
    elif b"\r\ncontent-length:" in head.lower():
        whole = bodiless or len(body) >= length_of(head)
    else:
        whole = bodiless or ended
    return "passes" if whole else "cut" if ended else "waits"


def final_answer(received: bytes) -> tuple[bytes, bytes]:
    """Head and rest of the first answer that is not interim; empty when there is none."""
    while True:
        head, end, body = received.partition(b"\r\n\r\n")
        if not end:
            return b"", b""
        if head[9:10] != b"1" or head[9:12] == b"101":
            return head, body
        received = body
