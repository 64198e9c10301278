"""What became of a request, in a few words: expected of the edge by a case, or seen behind any proxy."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from dataclasses import dataclass
from typing import cast

from tests.conformance.cases import Case

GENERAL = frozenset({"bad_request", "request_header_too_large", "method_not_allowed"})
"""Refusals for the bytes' sake. What the edge refuses otherwise (hosts, credentials) is its own affair."""
_OWN = frozenset(
    b"host cookie referer x-request-id connection upgrade content-length transfer-encoding "
    b"forwarded x-forwarded-for x-forwarded-proto x-forwarded-host x-forwarded-port".split()
)
"""Fields that the edge strips for reasons of its own, or that every proxy writes anew."""
_CREDENTIAL = re.compile(r"(?<=[?&])(edge_token|__ns_preview_transport)=[^&]*&?")
_ACCEPT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the app got it."""

    line: bytes
    names: frozenset[bytes]
    framing: str
    """In words: ``no body``, ``5 by length``, ``5 chunked``, ``upgrade``."""
    key: bytes = b""
    """Of a WebSocket handshake, as the app got it."""

    @property
    def target(self) -> str:
        """The request target."""
        rest = self.line.partition(b" ")[2]
        return (rest.rpartition(b" ")[0] or rest).decode("latin-1")


def next_request(data: bytes) -> tuple[Request, bytes] | None:
    """The first request in ``data`` and what follows it, None while it is incomplete.

    Read as RFC 9112 section 6.3 says and no more strictly: an app like many, not like the edge.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        return None
    line, *lines = head.split(b"\r\n")
    pairs = [field.partition(b":") for field in lines]
    values = {name.strip().lower(): value.strip() for name, _, value in pairs}
    names = frozenset(values)
    if values.get(b"upgrade", b"").lower() == b"websocket":
        return Request(line, names, "upgrade", values.get(b"sec-websocket-key", b"")), rest
    if b"chunked" in values.get(b"transfer-encoding", b"").lower():
        body = unchunked(rest)
        return body and (Request(line, names, f"{body[0]} chunked"), body[1])
    length = int(values.get(b"content-length") or b"0")
    if len(rest) < length:
        return None
    framing = f"{length} by length" if length else "no body"
    return Request(line, names, framing), rest[length:]


def unchunked(data: bytes) -> tuple[int, bytes] | None:
    """Bytes of payload of a chunked body and what follows it; None while it is incomplete."""
    size = 0
    while True:
        digits, end, data = data.partition(b"\r\n")
        length = int(digits.partition(b";")[0], 16) if end else 0
        if not end or (length and len(data) < length + 2):
            return None
        if not length:
            break
        size, data = size + length, data[length + 2 :]
    while not data.startswith(b"\r\n"):  # trailers
        _, end, data = data.partition(b"\r\n")
        if not end:
            return None
    return size, data[2:]


def sent(case: Case) -> bytes:
    """All that the client sends in a case."""
    return b"".join(step.data for step in case.steps if (step.who, step.act) == ("client", "sends"))


def expected(case: Case) -> list[Request]:
    """The requests that a case lets pass."""
    data = b"".join(step.data for step in case.steps if (step.who, step.act) == ("app", "gets"))
    found = []
    while (one := next_request(data)) is not None:
        request, data = one
        found.append(request)
    return found


def comparable(case: Case) -> bool:
    """Whether a case makes sense before a proxy that knows nothing of previews, and an app that just answers."""
    if case.side != "client" or case.reused or case.no_tail or case.theme.startswith("answers"):
        return False
    acts = [(step.who, step.act) for step in case.steps]
    if ("client", "resets") in acts or ("client", "closes") in acts or ("app", "closes") in acts:
        return False
    turns = [who for who, act in acts if act == "sends"]
    if "app" in turns and "client" in turns[turns.index("app") :]:
        return False
    return case.refused is None or case.refused[1] in GENERAL


def words(requests: list[Request], statuses: list[int], wanted: list[Request], asked: bytes) -> str:
    """An outcome in the words of the table: requests that reached the app, then the proxy's own answer."""
    items = []
    for number, request in enumerate(requests):
        item = f"→ {request.framing}"
        model = wanted[number] if number < len(wanted) else None
        if model is not None:
            target = _CREDENTIAL.sub("", request.target).rstrip("?&")
            if target != model.target.rstrip("?&"):
                item += f", target {shortened(target)}"
            item += _fields(request, model, asked)
        items.append(item)
    return " ".join([*items, *map(str, statuses)])


def _fields(request: Request, model: Request, asked: bytes) -> str:
    """Which of the client's fields came through here but not before, or the other way round."""
    given = {line.partition(b":")[0].strip().lower() for line in asked.split(b"\r\n")} - _OWN
    given = {name for name in given if not name.replace(b"_", b"-").startswith(b"x-nullspace-")}
    kept = sorted(name.decode("latin-1") for name in given & request.names - model.names)
    lost = sorted(name.decode("latin-1") for name in given & model.names - request.names)
    told = f", keeps {', '.join(kept)}" if kept else ""
    return told + (f", drops {', '.join(lost)}" if lost else "")


def shortened(text: str) -> str:
    """Text that fits into a cell."""
    return text if len(text) <= 40 else f"{text[:30]}… ({len(text)} bytes)"


class Recorder(asyncio.Protocol):
    """An app that answers every request with 200 and keeps it in ``seen``."""

    def __init__(self, seen: list[Request], news: asyncio.Event) -> None:
        self._seen = seen
        self._news = news
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._data += data
        try:
            while (one := next_request(self._data)) is not None:
                request, self._data = one
                self._seen.append(request)
                self._transport.write(_answer(request))
        except (ValueError, IndexError):
            self._transport.close()  # what no app would understand
        self._news.set()


def _answer(request: Request) -> bytes:
    if request.framing == "upgrade":
        accept = base64.b64encode(hashlib.sha1(request.key + _ACCEPT).digest())
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"X-App: 1\r\nSec-WebSocket-Accept: %b\r\n\r\n" % accept
        )
    body = b"" if request.line.startswith(b"HEAD ") else b"ok"
    return b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-App: 1\r\n\r\n" + body


def own_statuses(received: bytes) -> list[int]:
    """Statuses of the answers that are not the app's (which are marked), as the client got them."""
    found = []
    while received.startswith(b"HTTP/1."):
        head, _, rest = received.partition(b"\r\n\r\n")
        status = int(head[9:12])
        if b"\nx-app:" not in head.lower() and status >= 200:
            found.append(status)
        at = rest.find(b"HTTP/1.")
        received = rest[at:] if at >= 0 else b""
    return found
