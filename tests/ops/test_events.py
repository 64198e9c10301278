"""The event log: levels, redaction, and lines that are always JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edge.core.reports import WakeReport
from edge.ops.events import EventLog, wake_fields
from edge.ops.lines import LineWriter
from tests.ops.test_access_log import TOKEN


def written(
    tmp_path: Path, level: str, *events: tuple[str, dict[str, object]]
) -> list[dict[str, Any]]:
    """The lines that events leave."""
    path = tmp_path / "events"
    writer = LineWriter(path)
    writer.open()
    log = EventLog(writer, level, wall=lambda: 1_700_000_000.0)
    for name, fields in events:
        log.write(name, fields)
    writer.close()
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_an_event_says_when_what_and_how_bad(tmp_path: Path) -> None:
    """Name, level and fields on one line."""
    lines = written(tmp_path, "info", ("watch_lost", {"reason": "gone", "n": 1}), ("started", {}))
    assert lines[0] == {
        "time": "2023-11-14T22:13:20.000Z",
        "level": "warning",
        "event": "watch_lost",
        "reason": "gone",
        "n": 1,
    }
    assert (lines[1]["event"], lines[1]["level"]) == ("started", "info")


def test_the_least_level_is_kept(tmp_path: Path) -> None:
    """What is below it is not written."""
    lines = written(tmp_path, "error", ("watch_lost", {}), ("started", {}), ("crash", {}))
    assert [line["event"] for line in lines] == ["crash"]


def test_no_credential_gets_through(tmp_path: Path) -> None:
    """Exception texts and lists may carry what a client sent."""
    (line,) = written(
        tmp_path,
        "info",
        (
            "crash",
            {
                "error": ValueError(f"bad {TOKEN}"),
                "seen": [TOKEN, (TOKEN,)],
                "url": f"?edge_token={TOKEN}",
            },
        ),
    )
    assert TOKEN[:16] not in json.dumps(line)


def test_anything_can_be_written(tmp_path: Path) -> None:
    """Numbers no JSON library takes, and text that is no Unicode."""
    lines = written(tmp_path, "info", ("odd", {"n": 1 << 80, "t": "\udcff"}), ("next", {}))
    assert [line["event"].strip("'") for line in lines] == ["odd", "next"]


def test_a_wake_is_told_in_milliseconds() -> None:
    """Who woke it and how long each phase took; a phase not reached is null."""
    fields = wake_fields(WakeReport("sb_1", "ok", "GET /", 3, 0.0071, 0.001, 0.0004, None))
    assert fields == {
        "sandbox": "sb_1",
        "outcome": "ok",
        "woken_by": "GET /",
        "waiters": 3,
        "resume_ms": 7.1,
        "listen_ms": 1.0,
        "dispatch_ms": 0.4,
        "first_byte_ms": None,
    }
