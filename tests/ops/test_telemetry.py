"""Telemetry: every report counted and written, in time, and no trouble of its own passed on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from edge.core.reports import WakeReport
from edge.ops.events import EventLog
from edge.ops.lines import LineWriter
from edge.ops.metrics import Metrics
from edge.ops.telemetry import Telemetry
from tests.flows.stage import until
from tests.ops.samples import exchange
from tests.ops.test_metrics import values


class Told:
    """A telemetry that writes to files."""

    def __init__(self, folder: Path, *, access: bool = True) -> None:
        self.access_file, self.event_file = folder / "access", folder / "events"
        self.metrics = Metrics()
        self.access = LineWriter(self.access_file) if access else None
        self.events = LineWriter(self.event_file)
        for writer in (self.access, self.events):
            if writer is not None:
                writer.open()
        log = EventLog(self.events, "info", wall=lambda: 1_700_000_000.0)
        self.telemetry = Telemetry(self.metrics, log, self.access)

    def close(self) -> None:
        """Everything is written now."""
        self.telemetry.close()
        for writer in (self.access, self.events):
            if writer is not None:
                writer.close()


def lines(path: Path) -> list[dict[str, Any]]:
    """What a log has."""
    return [json.loads(line) for line in path.read_text().splitlines()]


async def test_an_exchange_is_counted_and_logged_without_more_traffic(tmp_path: Path) -> None:
    """One line each, soon, although nothing else happens that would flush it."""
    told = Told(tmp_path)
    told.telemetry.exchange(exchange(path="/1"))
    told.telemetry.exchange(exchange(path="/2"))
    await until(lambda: told.access_file.stat().st_size > 0)
    assert [line["path"] for line in lines(told.access_file)] == ["/1", "/2"]
    counted = values(told.metrics)
    assert counted["preview_edge_requests_total,code=,end=complete,status=2xx"] == 2
    told.close()


async def test_closing_writes_what_is_left(tmp_path: Path) -> None:
    """The last exchanges of a process are not lost, and no timer is left."""
    told = Told(tmp_path)
    told.telemetry.exchange(exchange(path="/last"))
    told.close()
    assert [line["path"] for line in lines(told.access_file)] == ["/last"]
    told.telemetry.close()


async def test_without_an_access_log_there_are_still_metrics(tmp_path: Path) -> None:
    """``log.access`` may be empty."""
    told = Told(tmp_path, access=False)
    told.telemetry.exchange(exchange())
    told.close()
    assert values(told.metrics)["preview_edge_bytes_total,direction=out"] == 2


async def test_wakes_dials_and_crashes(tmp_path: Path) -> None:
    """Each is counted, and what an operator may want to read is an event."""
    told = Told(tmp_path)
    told.telemetry.wake(WakeReport("sb_1", "ok", "GET /", 2, 0.007, 0.001, 0.0004, 0.002))
    told.telemetry.dialed("refused")
    told.telemetry.crashed("catalog", ValueError("oh"))
    told.close()
    wake, crash = lines(told.event_file)
    assert (wake["event"], wake["sandbox"], wake["resume_ms"]) == ("wake", "sb_1", 7.0)
    assert (crash["event"], crash["level"], crash["task"]) == ("crash", "error", "catalog")
    counted = values(told.metrics)
    assert counted["preview_edge_wakes_total,outcome=ok"] == 1
    assert counted["preview_edge_upstream_connects_total,outcome=refused"] == 1
    assert counted["preview_edge_events_total,level=info"] == 1
    assert counted["preview_edge_events_total,level=error"] == 1


async def test_a_log_that_cannot_be_written_hurts_nobody() -> None:
    """A full disk (/dev/full says what one says): lines are dropped and counted, reports go on."""
    metrics = Metrics()
    access, events = LineWriter(Path("/dev/full")), LineWriter(Path("/dev/full"))
    access.open()
    events.open()
    telemetry = Telemetry(metrics, EventLog(events, "info", wall=lambda: 0.0), access)
    for _ in range(3):
        telemetry.exchange(exchange())
        telemetry.event("started")
    await until(lambda: (access.dropped, events.dropped) == (3, 3))
    assert values(metrics)["preview_edge_bytes_total,direction=out"] == 6
    telemetry.close()
    await asyncio.to_thread(access.close)
    await asyncio.to_thread(events.close)
