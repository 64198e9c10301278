"""The event log: what an operator may want to read about, one JSON object a line on standard error."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from edge.core.reports import WakeReport
from edge.ops.access_log import clean, timestamp
from edge.ops.lines import LineWriter

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_LEVEL_OF = {
    "crash": "error",
    "start_failed": "error",
    "worker_died": "error",
    "ack_given_up": "warning",
    "keys_unusable": "warning",
    "redis_left": "warning",
    "usage_given_up": "warning",
    "usage_not_kept": "warning",
    "usage_unreadable": "warning",
    "watch_doubt": "warning",
    "watch_lost": "warning",
}
"""Events that are more than information, by name."""


class EventLog:
    """Writes events of at least ``level``. ``wall`` is Unix time in seconds."""

    def __init__(self, writer: LineWriter, level: str, *, wall: Callable[[], float]) -> None:
        self._writer = writer
        self._least = LEVELS[level]
        self._wall = wall

    def write(self, name: str, fields: Mapping[str, object]) -> str:
        """One event; strings in ``fields`` are searched for credentials. Returns its level."""
        level = _LEVEL_OF.get(name, "info")
        if LEVELS[level] >= self._least:
            record: dict[str, object] = {
                "time": timestamp(self._wall()),
                "level": level,
                "event": name,
            }
            record |= {key: _clean(value) for key, value in fields.items()}
            self._writer.add(_dump(record))
            self._writer.flush()  # Events are rare, and somebody may be watching.
        return level


def wake_fields(report: WakeReport) -> dict[str, object]:
    """A wake as an event: who woke what, and the phases in milliseconds."""
    return {
        "sandbox": report.sandbox_id,
        "outcome": report.outcome,
        "woken_by": report.woken_by,
        "waiters": report.waiters,
        "resume_ms": _milliseconds(report.resume),
        "dispatch_ms": _milliseconds(report.dispatch),
        "listen_ms": _milliseconds(report.listen),
        "first_byte_ms": _milliseconds(report.first_byte),
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _clean(value: object) -> object:
    match value:
        case str():
            return clean(value)
        case list() | tuple():
            return [_clean(item) for item in value]
        case bool() | int() | float() | None:
            return value
        case _:
            return clean(str(value))


def _dump(record: dict[str, object]) -> bytes:
    try:
        return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)
    except orjson.JSONEncodeError:
        # Integers beyond 64 bits, lone surrogates: readable is enough.
        return orjson.dumps(
            {
                key: repr(value).encode("ascii", "backslashreplace").decode()
                for key, value in record.items()
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
