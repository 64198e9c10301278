"""Metrics: plain counters on the hot path, turned into Prometheus families only when somebody scrapes.

Labels are bounded: status classes, codes of the error table, members of enums. Never a sandbox, a
grant, a host or a path. ``docs/metrics.md`` lists every family; a test compares.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from edge import __version__
from edge.core.errors import PROBLEMS
from edge.core.reports import End, ExchangeReport, Role, WakeReport

NAMESPACE = "preview_edge"

LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds in seconds for whole exchanges."""

PHASE = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0)
"""Upper bounds in seconds for the phases of a wake; dispatch is meant to stay below 0.005."""

PHASES = ("resume", "dispatch", "listen", "first_byte")
DIALS = ("connected", "refused", "timeout", "unreachable")
_OUTCOMES = frozenset(PROBLEMS) | {"ok"}


class Histogram:
    """Counts per bucket and a sum; one more bucket than bounds for what is above them all."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as the exposition format wants them."""
        bounds = [*map(str, self.bounds), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self.counts)), strict=True))


Reading = Callable[[], float | Mapping[Any, float]]
"""What a scrape reads: one number, or one by each value of the label (by tuples of them for several)."""


class Metrics(Collector):
    """Everything that is counted in one process. Belongs to the loop's thread."""

    def __init__(self) -> None:
        self._requests: dict[tuple[int, str, End], int] = {}
        self._direct = Histogram(LATENCY)
        self._waited = Histogram(LATENCY)
        self._bytes_in = 0
        self._bytes_out = 0
        self._tunnels: dict[End, int] = dict.fromkeys(End, 0)
        self._limits: dict[str, int] = {}
        self._woken: dict[tuple[Role, str], int] = {}
        self._wakes: dict[str, int] = {"ok": 0}
        self._phases = {phase: Histogram(PHASE) for phase in PHASES}
        self._dials = dict.fromkeys(DIALS, 0)
        self._events: dict[str, int] = {}
        self._families: list[Callable[[], Metric]] = []
        self._read_traffic()
        self._read_waking()

    # --- Counting ---------------------------------------------------------------------------------

    def exchange(self, report: ExchangeReport) -> None:
        """Count one exchange. On the hot path: no allocation but the key, no lock."""
        problem = report.problem
        code = "" if problem is None else problem.code
        key = (report.status // 100, code, report.end)
        requests = self._requests
        requests[key] = requests.get(key, 0) + 1
        self._bytes_in += report.bytes_in
        self._bytes_out += report.bytes_out
        if report.tunnel:
            self._tunnels[report.end] += 1
        elif report.waited:
            self._waited.observe(report.duration)
        else:
            self._direct.observe(report.duration)
        if report.limit:
            self._limits[report.limit] = self._limits.get(report.limit, 0) + 1
        if report.role is not Role.NONE:
            woken = (report.role, code or "ok")
            self._woken[woken] = self._woken.get(woken, 0) + 1

    def wake(self, report: WakeReport) -> None:
        """Count one wake and its phases."""
        outcome = report.outcome if report.outcome in _OUTCOMES else "other"
        self._wakes[outcome] = self._wakes.get(outcome, 0) + 1
        for phase, histogram in self._phases.items():
            seconds: float | None = getattr(report, phase)
            if seconds is not None:
                histogram.observe(seconds)

    def dialed(self, outcome: str) -> None:
        """Count one attempt to connect to an app."""
        outcome = outcome if outcome in self._dials else "other"
        self._dials[outcome] = self._dials.get(outcome, 0) + 1

    def event(self, level: str) -> None:
        """Count one line of the event log."""
        self._events[level] = self._events.get(level, 0) + 1

    # --- Readings ---------------------------------------------------------------------------------

    def gauge(self, name: str, text: str, read: Reading, *labels: str) -> None:
        """Add a value that is read when somebody scrapes."""
        self._families.append(lambda: _read(GaugeMetricFamily, name, text, read(), labels))

    def counter(self, name: str, text: str, read: Reading, *labels: str) -> None:
        """As `gauge`, for something that only grows."""
        self._families.append(lambda: _read(CounterMetricFamily, name, text, read(), labels))

    def _histogram(self, name: str, text: str, parts: Mapping[str, Histogram], label: str) -> None:
        self._families.append(lambda: _spread(name, text, parts, label))

    def _read_traffic(self) -> None:
        self.gauge("build_info", "The version, as a label.", lambda: {__version__: 1}, "version")
        self.counter(
            "requests",
            "Exchanges that are over, by class of status (0xx: no answer was sent), code of the edge's "
            "own error (empty: the app answered) and how it ended.",
            lambda: {
                (f"{status}xx", code, end): n for (status, code, end), n in self._requests.items()
            },
            "status",
            "code",
            "end",
        )
        self._histogram(
            "request_duration_seconds",
            "Duration of exchanges, tunnels apart, by whether they had to wait for a look-up or a wake.",
            {"no": self._direct, "yes": self._waited},
            "waited",
        )
        self.counter(
            "bytes",
            "Bytes of bodies and tunnels; in = from client to app.",
            lambda: {"in": self._bytes_in, "out": self._bytes_out},
            "direction",
        )
        self.counter(
            "tunnels_ended", "Tunnels that are over, by reason.", lambda: self._tunnels, "reason"
        )
        self.counter(
            "limits_reached",
            "Exchanges refused because of a limit or a deadline, by the setting that says so.",
            lambda: self._limits,
            "setting",
        )
        self.counter(
            "upstream_connects",
            "Attempts to connect to apps, by outcome.",
            lambda: self._dials,
            "outcome",
        )
        self.counter(
            "events",
            "Lines of the event log, by level, written or not.",
            lambda: self._events,
            "level",
        )

    def _read_waking(self) -> None:
        self.counter(
            "wakes",
            "Wakes that are over, by outcome: ok, or the code their waiters got.",
            lambda: self._wakes,
            "outcome",
        )
        self.counter(
            "woken_requests",
            "Exchanges that took part in a wake, by role and outcome.",
            lambda: self._woken,
            "role",
            "outcome",
        )
        self._histogram(
            "wake_phase_seconds",
            "Phases of wakes: resume (until the control plane said running), then dispatch (until the "
            "first byte went upstream), listen (until the app accepted), first_byte (until it answered).",
            self._phases,
            "phase",
        )

    # --- Collecting -------------------------------------------------------------------------------

    def collect(self) -> Iterator[Metric]:
        """All families, for prometheus-client."""
        return (family() for family in self._families)


def _read(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    text: str,
    value: float | Mapping[Any, float],
    labels: tuple[str, ...],
) -> Metric:
    family = kind(f"{NAMESPACE}_{name}", text, labels=labels)
    for key, number in value.items() if isinstance(value, Mapping) else [((), value)]:
        family.add_metric(key if isinstance(key, tuple) else (key,), number)
    return family


def _spread(name: str, text: str, parts: Mapping[str, Histogram], label: str) -> Metric:
    family = HistogramMetricFamily(f"{NAMESPACE}_{name}", text, labels=[label])
    for value, part in parts.items():
        family.add_metric([value], part.buckets(), part.sum)
    return family
