"""Wake overhead: from the control plane's word "running" to the request's first byte at the app.

Each wake is a sandbox of its own, paused, with a grant of its own. The control plane notes
CLOCK_MONOTONIC just before it tells anybody that the sandbox runs; the app answers with
CLOCK_MONOTONIC at the first byte it got. The control plane's own sending is thus counted too.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass

from bench.peers import Contender
from bench.processes import BenchError
from bench.scenarios import browser_fields
from bench.stats import percentile
from bench.world import LIVE, World, host_of
from edge.core.records import State, Transport

BAR = 0.005
"""Seconds the p99 may take."""


@dataclass(frozen=True, slots=True)
class WakeResult:
    """Seconds, ascending."""

    times: list[float]

    @property
    def p50(self) -> float:
        return percentile(self.times, 50)

    @property
    def p99(self) -> float:
        return percentile(self.times, 99)


def prepare(world: World, count: int) -> list[tuple[str, str]]:
    """Paused sandboxes, and a token for each."""
    ids = [f"sb_sleeper{number:05d}" for number in range(count)]
    for sandbox_id in ids:
        world.add_sandbox(sandbox_id, State.PAUSED)
    return [(sandbox_id, world.token(sandbox_id, LIVE, Transport.HTTP)) for sandbox_id in ids]


def measure_wakes(
    edge: Contender, control_plane_port: int, sleepers: list[tuple[str, str]]
) -> WakeResult:
    """Wake them one after the other. Raises `BenchError` when an answer is not the app's."""
    arrivals = dict(_arrivals(edge.port, sleepers))
    running = json.loads(_get(control_plane_port, "/bench/running", {}))
    late = [(arrived - running[sandbox_id]) / 1e9 for sandbox_id, arrived in arrivals.items()]
    return WakeResult(sorted(late))


def _arrivals(port: int, sleepers: list[tuple[str, str]]) -> Iterator[tuple[str, int]]:
    for sandbox_id, token in sleepers:
        fields = dict(browser_fields(host_of(sandbox_id, LIVE), "unrelated=1"))
        yield sandbox_id, int(_get(port, f"/live/now?edge_token={token}", fields))


def _get(port: int, target: str, fields: dict[str, str]) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", target, headers=fields)
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise BenchError(f"a wake was answered {answer.status}: {body[:200]!r}")
    return body
