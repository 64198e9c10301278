"""A flood of strangers: connections that send what has no right to an answer, and never wait for one.

``python -m bench.flood`` reads a `Flood` as JSON on standard input, says that it has begun, and goes on
until it is ended. Bounded: so many connections a second, so many open at once.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import sys
import time
from collections import deque
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Flood:
    """``messages`` take turns (Latin-1), each on a connection of its own; ``rate``
    of them a second, ``most`` in all."""

    port: int
    messages: list[str]
    rate: float
    open_at_once: int = 100
    most: int = 1_000_000


def run(flood: Flood) -> None:
    """Flood until all is sent, or until killed."""
    connections: deque[socket.socket] = deque()
    gap, due = 1 / flood.rate, time.monotonic()
    for message in itertools.islice(itertools.cycle(flood.messages), flood.most):
        with contextlib.suppress(OSError):
            connection = socket.create_connection(("127.0.0.1", flood.port), 1)
            connection.setblocking(False)
            connection.send(message.encode("latin-1"))
            connections.append(connection)
        if len(connections) > flood.open_at_once:
            _leave(connections.popleft())
        due = max(due + gap, time.monotonic() - 0.1)
        time.sleep(max(0.0, due - time.monotonic()))
    for connection in connections:
        connection.close()


def _leave(connection: socket.socket) -> None:
    """Read what there is, so that closing is no reset, and close."""
    with contextlib.suppress(OSError):
        connection.recv(65536)
    connection.close()


def main() -> None:
    said: dict[str, Any] = json.loads(sys.stdin.readline())
    print(json.dumps({"event": "begun"}), flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        run(Flood(**said))


if __name__ == "__main__":
    main()
