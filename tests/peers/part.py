"""The parts peers play in a WebSocket dialogue: a list of steps, which every peer understands.

=========================== =========================================================================
step                        what the peer does
=========================== =========================================================================
``["text", s]``             sends a text message
``["binary", size]``        sends a binary message of that size, always the same bytes
``["fragments", [s, ...]]`` sends a text message in fragments; ``{"ping": s}`` among them is a ping
``["ping", s]``             sends a ping, waits for its pong
``["pong", s]``             sends a pong nobody asked for
``["raw", hex]``            writes bytes past the library
``["get"]``                 waits for the next message
``["close", code, reason]`` closes, waits until it is closed; without a code where the library can
``["wait"]``                waits until it is closed
``["drop"]``                drops the connection without a close frame
``["end"]``                 sends no more (FIN), still receives
``["eof"]``                 waits for the other side's FIN
=========================== =========================================================================

What a peer saw are its events, lists of JSON values; which ones it can see depends on the library.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

Step = list[Any]
Events = list[list[Any]]

_PATTERN = b"The quick brown fox jumps over the lazy dog. "


@dataclass(frozen=True)
class Part:
    """What one peer does. ``deflate``: None without permessage-deflate, else what is asked of it.

    ``fields`` are further fields of the request, or of the answer. ``refuse``: status and body of the
    answer instead of a 101.
    """

    steps: list[Step]
    subprotocols: list[str] = field(default_factory=list)
    deflate: dict[str, Any] | None = None
    fields: list[tuple[str, str]] = field(default_factory=list)
    refuse: tuple[int, str] | None = None


@dataclass(frozen=True)
class Serving:
    """A server for one connection: its port, and what it saw once the connection is over."""

    port: int
    events: Awaitable[Events]


class Peer(Protocol):
    """A WebSocket library that can play both parts."""

    def serve(self, part: Part) -> AbstractAsyncContextManager[Serving]:
        """Play the server."""
        ...

    async def visit(self, part: Part, port: int, host: str, target: str) -> Events:
        """Play the client: connect to the port on loopback, ask for the target at the host."""
        ...


def payload(size: int) -> bytes:
    """The bytes of a binary message."""
    return (_PATTERN * (size // len(_PATTERN) + 1))[:size]


def binary(frames: list[bytes]) -> list[Any]:
    """The event of a binary message that came in these frames."""
    whole = hashlib.sha256(b"".join(frames)).hexdigest()
    return ["binary", [len(frame) for frame in frames], whole]
