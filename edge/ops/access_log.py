"""The access log: one JSON object a line, one line an exchange, and no credential in any of them.

What is logged is a fixed list of fields. Header values and queries never are; paths and hosts, which a
client may fill with anything, are searched for tokens in every encoding that a server would undo.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

import orjson

from edge.core.redact import SHORTEST_SECRET, redact_encoded, without_traffic_token
from edge.core.reports import ExchangeReport

_MAX_TEXT = 2048
"""Characters of a path or host that are kept. A line is for people and their tools, not an archive."""

_LOOKED_AT = 4096
"""Characters that are looked at. Decoding costs a tenth of a microsecond each, and a stranger can send 64 kB of them.

A token is found by its two dots. One that is cut here before its second dot has lost its signature."""

_SHORT = 200
"""Characters of a text that is worth remembering."""

_HARMLESS = re.compile(r"[A-Za-z0-9/_-]{0,200}(\.[A-Za-z0-9]{1,8})?")
"""Paths that have nothing to escape or to decode, and (a token has two dots) hide no JWT."""


def access_line(report: ExchangeReport) -> bytes:
    """One exchange as a line. Times are Unix-derived RFC 3339 in UTC, durations milliseconds.

    ``request_id`` and ``method`` are tokens (RFC 9110 section 5.6.2) and need no escapes.
    """
    problem = report.problem
    code = f'"{problem.code}"' if problem is not None else "null"
    where = _where(report.peer, report.host, report.sandbox_id, report.port, report.grant_id)
    # Written out, because building a dictionary for an encoder costs three times as much.
    return (
        f'{{"time":"{timestamp(report.started)}","request_id":"{report.request_id}",'
        f'"method":"{report.method}","path":{_path(report.path)},{where},'
        f'"status":{report.status},"code":{code},"end":"{report.end}","wake":"{report.role}",'
        f'"tunnel":{"true" if report.tunnel else "false"},'
        f'"bytes_in":{report.bytes_in},"bytes_out":{report.bytes_out},'
        f'"duration_ms":{report.duration * 1000:.3f},"waited_ms":{report.waited * 1000:.3f}}}\n'
    ).encode()


def _where(peer: str, host: str, sandbox_id: str, port: int, grant_id: str) -> str:
    """What the requests of a client have in common."""
    if len(host) > _SHORT:
        return _members(peer, host, sandbox_id, port, grant_id)
    return _remembered_members(peer, host, sandbox_id, port, grant_id)


def _members(peer: str, host: str, sandbox_id: str, port: int, grant_id: str) -> str:
    return (
        f'"peer":{_encoded(peer)},"host":{_encoded(host)},"sandbox":{_encoded(sandbox_id)},'
        f'"port":{port},"grant":{_encoded(grant_id)}'
    )


_remembered_members = lru_cache(maxsize=4096)(_members)


def _path(text: str) -> str:
    """A path, without query and credentials, as a JSON string."""
    if _HARMLESS.fullmatch(text):
        return f'"{text if len(text) < SHORTEST_SECRET else without_traffic_token(text)}"'
    return _encoded(text.partition("?")[0])


def _encoded(text: str) -> str:
    cleaned = clean(text)
    try:
        return orjson.dumps(cleaned).decode()
    except orjson.JSONEncodeError:
        # Lone surrogates: bytes of a client that are no UTF-8, decoded somewhere to keep them.
        return orjson.dumps(cleaned.encode("utf-8", "replace").decode()).decode()


def timestamp(seconds: float) -> str:
    """Unix time as RFC 3339 with milliseconds."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


# Thousands of lines share a second; formatting it costs as much as the rest.
@lru_cache(maxsize=16)
def _second(whole: int) -> str:
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def clean(text: str) -> str:
    """``text`` without credentials, then bounded in length. What holds none stays as it was sent."""
    cleaned = redact_encoded(text[:_LOOKED_AT])
    return cleaned if len(cleaned) <= _MAX_TEXT else cleaned[:_MAX_TEXT] + "..."
