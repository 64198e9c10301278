"""Ports for programs that cannot say which port they were given, or come back on the one they had."""

from __future__ import annotations

import atexit
import os
import random
import socket
from pathlib import Path

_LOWEST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")

_claims: list[socket.socket] = []


@atexit.register
def _give_back() -> None:
    for claim in _claims:
        claim.close()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is this process's until it ends, whether or not somebody listens on it.

    It is below the ports that the system gives to outgoing connections: of those, one that was free a
    moment ago, or whose server is being restarted, may be taken by anybody's connection. And processes
    that ask at the same time get different ones: who holds the UDP port of that number has claimed it.

    Raises `OSError` if no port is free.
    """
    end = _ephemeral()
    start = random.Random(os.urandom(8)).randrange(_LOWEST, end)
    for port in (*range(start, end), *range(_LOWEST, start)):
        claim = socket.socket(type=socket.SOCK_DGRAM)
        try:
            claim.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            claim.close()
            continue
        _claims.append(claim)
        return port
    raise OSError(f"all ports from {_LOWEST} to {end} are taken")


def _ephemeral() -> int:
    """The first port given to outgoing connections. macOS and Windows: 49152 (RFC 6335 section 6)."""
    try:
        return int(_RANGE.read_text().split()[0])
    except (OSError, ValueError):
        return 49_152
