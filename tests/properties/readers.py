"""Readers of whole byte streams: the edge's pure parts put one after the other, and h11 as the judge."""

from __future__ import annotations

from typing import NamedTuple

import h11

from edge.core.errors import EdgeError
from edge.core.fields import FieldReader
from edge.core.framing import FramingError
from edge.core.head import Head, RequestScanner
from edge.core.outbound import Peer, outward, request_head
from edge.core.records import Transport
from edge.core.section import Section
from edge.traffic.relay import RequestRelay
from tests.core.previews import way
from tests.core.wires import TRAILERS_AS_HEADERS, scanner

PEER = Peer(b"192.0.2.7", False, b"https")
LIMIT = 65536
MEMORY = 3
"""Header sections of a connection that are shown to the scanner again."""


def without_empty_lines(data: bytes) -> bytes:
    """What follows the empty lines before a request, which are ignored (RFC 9112 section 2.2)."""
    while data.startswith(b"\r\n"):
        data = data[2:]
    return data


class Read(NamedTuple):
    """One request as somebody read it. ``complete``: its end was seen."""

    method: bytes
    target: bytes
    payload: bytes
    complete: bool


def sent_upstream(head: Head) -> bytes:
    """The head that goes to the upstream."""
    kind = Transport.WEBSOCKET if head.websocket else Transport.HTTP
    return request_head(head, outward(head.section, way(kind=kind), PEER, b"ns_preview"), b"id")


class Stream:
    """One client connection's bytes through scanner and relays, and what would go upstream for them.

    ``ended`` says why nothing more is read: a refusal, or a request after which nothing may follow.
    """

    def __init__(self) -> None:
        self._scanner: RequestScanner = scanner()
        self._fields = FieldReader.for_requests()
        self._sections: tuple[Section, ...] = ()
        self._buffer = b""
        self._relay: RequestRelay | None = None
        self.heads: list[Head] = []
        self.upstream: list[bytes] = []
        self.complete = 0
        self.ended = ""

    def feed(self, data: bytes) -> None:
        """Bytes from the client. Raises nothing, or it is a bug."""
        self._buffer += data
        try:
            while self._buffer and not self.ended and self._step():
                pass
        except EdgeError as error:
            self.ended = error.problem.code
        except FramingError:
            self.ended = "framing"

    def _step(self) -> bool:
        if self._relay is None:
            return self._head()
        data, self._buffer = self._buffer, b""
        self.upstream[-1] += self._relay.feed(data)
        return self._after_body(self._relay)

    def _head(self) -> bool:
        self._buffer = without_empty_lines(self._buffer)
        block, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        self._buffer = rest
        head = self._scanner.scan(block, self._sections)
        self._sections = (head.section, *self._sections)[:MEMORY]
        out = sent_upstream(head)
        # What the connection remembers of earlier requests saves work and changes nothing.
        assert out == sent_upstream(scanner().scan(block))
        self.heads.append(head)
        self.upstream.append(out)
        if head.has_body:
            self._relay = RequestRelay(head, self._fields, max_trailer_bytes=LIMIT)
            return True
        self._over(head)
        return True

    def _after_body(self, relay: RequestRelay) -> bool:
        if not relay.done:
            return False
        self._buffer, self._relay = relay.rest, None
        self._over(self.heads[-1])
        return True

    def _over(self, head: Head) -> None:
        self.complete += 1
        if head.websocket:
            self.ended = "websocket"
        elif not head.section.keep_alive:
            self.ended = "close"


def through_the_edge(parts: list[bytes]) -> Stream:
    """The parts, read one after the other."""
    stream = Stream()
    for part in parts:
        stream.feed(part)
    return stream


def requests_by_h11(wire: bytes, most: int = 1000, *, lines_before: bool = False) -> list[Read]:
    """The first ``most`` requests that h11, a strict server, finds. Raises `h11.RemoteProtocolError`.

    ``lines_before``: empty lines before a request are read over (RFC 9112 section 2.2), as h11 does not.
    """
    found: list[Read] = []
    rest = wire
    while rest and len(found) < most:
        rest = without_empty_lines(rest) if lines_before else rest
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=200_000)
        connection.receive_data(rest)
        event = connection.next_event()
        if event is h11.NEED_DATA:
            break
        assert isinstance(event, h11.Request), event
        payload = b""
        while isinstance(after := _next(connection), h11.Data):
            payload += bytes(after.data)
        complete = isinstance(after, h11.EndOfMessage)
        found.append(Read(bytes(event.method), bytes(event.target), payload, complete))
        if not complete:
            break
        rest = connection.trailing_data[0]
    return found


def _next(connection: h11.Connection) -> object:
    """The next event of a body. Trailers are no headers for the edge, which drops what would frame."""
    try:
        return connection.next_event()
    except h11.RemoteProtocolError as error:
        if str(error).startswith(TRAILERS_AS_HEADERS):
            raise Unjudged from error
        raise


class Unjudged(Exception):
    """h11 refuses trailers by the rules for headers, although nobody frames by trailers."""


class Got(NamedTuple):
    """One answer as the client read it. ``complete``: its end was seen."""

    status: int
    headers: list[tuple[bytes, bytes]]
    payload: bytes
    interims: tuple[int, ...]
    trailers: list[tuple[bytes, bytes]]
    complete: bool

    def values(self, name: bytes) -> list[bytes]:
        """The values of that lower-case name."""
        return [value for key, value in self.headers if key == name]


def answer_by_h11(wire: bytes, method: bytes, *, eof: bool) -> tuple[Got | None, bytes]:
    """The first answer h11, a strict client, finds, and what follows it; None = no final head came.

    ``eof``: no more bytes will come. Raises `h11.RemoteProtocolError` for what is no answer; that an
    answer is cut short (which h11 reports as an error as well) is told by ``complete`` instead.
    """
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=200_000)
    connection.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    connection.send(h11.EndOfMessage())
    if wire:  # no bytes would mean the end to h11
        connection.receive_data(wire)
    interims: list[int] = []
    final: h11.Response | None = None
    payload, told = b"", not eof
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            if final is not None and str(error).startswith(TRAILERS_AS_HEADERS):
                raise Unjudged from error
            if told and eof:  # only the end of the connection was wrong
                return _got(final, payload, interims, None), b""
            raise
        if isinstance(event, h11.InformationalResponse):
            interims.append(event.status_code)
        elif isinstance(event, h11.Response):
            final = event
        elif isinstance(event, h11.Data):
            payload += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            return _got(final, payload, interims, event), connection.trailing_data[0]
        elif told:
            return _got(final, payload, interims, None), b""
        else:
            told = True
            connection.receive_data(b"")


def _got(
    final: h11.Response | None, payload: bytes, interims: list[int], end: h11.EndOfMessage | None
) -> Got | None:
    if final is None:
        return None
    trailers = list(end.headers) if end is not None else []
    headers = list(final.headers)
    return Got(final.status_code, headers, payload, tuple(interims), trailers, end is not None)
