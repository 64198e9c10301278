"""Targets: which sandbox and port a Host header asks for.

A preview host is ``{PORT}-{LABEL}.{public_hostname}``, LABEL being the sandbox id with ``_`` written
as ``-`` (TLS wildcards do not match ``_``). Both spellings, any letter case, with or without ``:port``,
mean the same target.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edge.core.errors import PREVIEW_HOST_UNKNOWN, UNSUPPORTED_PREVIEW_PORT, EdgeError

_RESERVED = frozenset({22, *range(5900, 6000)})
"""SSH and VNC: reaching them over HTTP is a mistake or an attack (contract: addresses)."""

# No leading zero: one target has one origin. At most five digits; "0" is parsed to be refused by name.
_LABEL = re.compile(rb"(0|[1-9][0-9]{0,4})-sb[_-]([a-z0-9]{8,40})")
_PORT_SUFFIX = re.compile(rb":[0-9]{1,5}")
_HOST_MAX = 253 + len(":65535")
"""Bytes of the longest Host that can name anything (RFC 1035 section 2.3.4)."""


@dataclass(frozen=True, slots=True)
class Site:
    """How the outside sees the edge. ``port`` 0 means the scheme's own port."""

    hostname: str
    scheme: Literal["http", "https"]
    port: int = 0


@dataclass(frozen=True, slots=True)
class Target:
    """One port of one sandbox."""

    sandbox_id: str
    port: int


def supported_port(port: int) -> bool:
    """Whether previews of this port exist at all."""
    return 1 <= port <= 65535 and port not in _RESERVED


def parse_target(host: bytes, hostname: str) -> Target | EdgeError:
    """The target of a Host value, or why there is none (``preview_host_unknown``, ``unsupported_preview_port``)."""
    name = host.lower()
    colon = name.find(b":")
    if colon >= 0:
        if not _PORT_SUFFIX.fullmatch(name, colon):
            return EdgeError(PREVIEW_HOST_UNKNOWN)
        name = name[:colon]
    suffix = b"." + hostname.encode("ascii")
    match = _LABEL.fullmatch(name, 0, len(name) - len(suffix)) if name.endswith(suffix) else None
    if match is None:
        return EdgeError(PREVIEW_HOST_UNKNOWN)
    port = int(match[1])
    if not supported_port(port):
        return EdgeError(UNSUPPORTED_PREVIEW_PORT, {"port": port})
    return Target(f"sb_{match[2].decode('ascii')}", port)


def target_reader(hostname: str, max_entries: int = 4096) -> Callable[[bytes], Target | EdgeError]:
    """`parse_target` for one public hostname with a bounded memory: hosts repeat, parsing need not."""
    known: dict[bytes, Target | EdgeError] = {}

    def read(host: bytes) -> Target | EdgeError:
        target = known.get(host)
        if target is None:
            if len(host) > _HOST_MAX:
                return EdgeError(PREVIEW_HOST_UNKNOWN)  # nor worth remembering: it may be 64 kB
            if len(known) >= max_entries:
                known.clear()
            target = known[host] = parse_target(host, hostname)
        return target

    return read
