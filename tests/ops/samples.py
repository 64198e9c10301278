"""Reports for tests: a plain one, with changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from edge.core.reports import End, ExchangeReport, Role

PLAIN = ExchangeReport(
    started=1_700_000_000.25,
    duration=0.002,
    waited=0.0,
    request_id="r-1",
    peer="127.0.0.1",
    method="GET",
    host="8000-sb-1a2b3c4d.localhost:3001",
    path="/a",
    status=200,
    problem=None,
    end=End.COMPLETE,
    role=Role.NONE,
    tunnel=False,
    sandbox_id="sb_1a2b3c4d",
    port=8000,
    grant_id="pvg_1",
    bytes_in=0,
    bytes_out=2,
)


def exchange(**changes: Any) -> ExchangeReport:
    """A report of an ordinary request, with changes."""
    return replace(PLAIN, **changes)
