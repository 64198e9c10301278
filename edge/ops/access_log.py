"""The access log: one JSON object a line, one line an exchange, and no credential in any of them.

What is logged is a fixed list of fields. Header values and queries never are; paths and hosts, which a
client may fill with anything, are searched for tokens in every encoding that a server would undo.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from urllib.parse import unquote

import orjson

from edge.core.redact import redact_text
from edge.core.reports import ExchangeReport

_MAX_TEXT = 2048
"""Characters of a path or host that are kept. A line is for people and their tools, not an archive."""

_DECODINGS = 3
"""Layers of percent-encoding that are looked through."""


def access_line(report: ExchangeReport) -> bytes:
    """One exchange as a line. Times are Unix-derived RFC 3339 in UTC, durations milliseconds."""
    problem = report.problem
    record = {
        "time": timestamp(report.started),
        "request_id": report.request_id,
        "peer": report.peer,
        "method": report.method,
        "host": clean(report.host),
        "path": clean(report.path.partition("?")[0]),
        "status": report.status,
        "code": problem.code if problem is not None else None,
        "end": report.end,
        "wake": report.role,
        "tunnel": report.tunnel,
        "sandbox": report.sandbox_id,
        "port": report.port,
        "grant": report.grant_id,
        "bytes_in": report.bytes_in,
        "bytes_out": report.bytes_out,
        "duration_ms": round(report.duration * 1000, 3),
        "waited_ms": round(report.waited * 1000, 3),
    }
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        # Lone surrogates: bytes of a client that are no UTF-8, decoded somewhere to keep them.
        plain = {key: _encodable(value) for key, value in record.items()}
        return orjson.dumps(plain, option=orjson.OPT_APPEND_NEWLINE)


def timestamp(seconds: float) -> str:
    """Unix time as RFC 3339 with milliseconds."""
    whole = int(seconds)
    return f"{_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(
    maxsize=16
)  # Thousands of lines share a second; formatting it costs as much as the rest.
def _second(whole: int) -> str:
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def clean(text: str) -> str:
    """``text`` without credentials, then bounded in length. What holds none stays as it was sent."""
    cleaned = _without_credentials(text)
    return cleaned if len(cleaned) <= _MAX_TEXT else cleaned[:_MAX_TEXT] + "..."


def _without_credentials(text: str) -> str:
    decoded = text
    for _ in range(_DECODINGS):
        if "%" not in decoded:
            break
        decoded = unquote(decoded, errors="surrogateescape")
        redacted = redact_text(decoded)
        if redacted != decoded:
            return redacted
    return redact_text(text)


def _encodable(value: object) -> object:
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
