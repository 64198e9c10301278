"""Metrics: what is counted where, bounded labels, and a page that lists them all."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from edge.core.errors import PREVIEW_OVERLOADED, SANDBOX_RESUME_TIMEOUT
from edge.core.reports import End, Role, WakeReport
from edge.ops.metrics import Histogram, Metrics
from edge.ops.server import build_edge
from tests.core.test_settings import settings
from tests.ops.samples import exchange

EXTRA_LABELS = {"le"}


def values(metrics: Metrics) -> dict[str, float]:
    """Every sample by its exposition name and labels."""
    registry = CollectorRegistry()
    registry.register(metrics)
    return {
        sample.name + "".join(f",{k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def documented_rows() -> list[str]:
    """Every family of an edge as docs/metrics.md has to list it."""
    metrics = build_edge(settings()).metrics
    busy = exchange(status=503, problem=PREVIEW_OVERLOADED, role=Role.LEADER, limit="a")
    metrics.exchange(busy)
    metrics.event("info")
    listed = []
    for family in metrics.collect():
        labels = sorted(
            {name for sample in family.samples for name in sample.labels} - EXTRA_LABELS
        )
        suffix = "_total" if family.type == "counter" else ""
        named = ", ".join(f"`{label}`" for label in labels) or "none"
        listed.append(
            f"| `{family.name}{suffix}` | {family.type} | {named} | {family.documentation} |"
        )
    return listed


def test_every_metric_is_documented_and_no_other() -> None:
    """docs/metrics.md has exactly the families that an edge exposes, with their labels."""
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text().splitlines()
    assert [line for line in page if line.startswith("| `")] == documented_rows()


def test_an_exchange_is_counted_by_class_code_and_end() -> None:
    """Requests, latency and bytes of plain exchanges."""
    metrics = Metrics()
    metrics.exchange(exchange(status=204, duration=0.002, bytes_in=3, bytes_out=5))
    metrics.exchange(exchange(status=503, problem=PREVIEW_OVERLOADED, waited=0.1, duration=0.2))
    seen = values(metrics)
    assert seen["preview_edge_requests_total,code=,end=complete,status=2xx"] == 1
    overloaded = "preview_edge_requests_total,code=preview_overloaded,end=complete,status=5xx"
    assert seen[overloaded] == 1
    assert seen["preview_edge_bytes_total,direction=in"] == 3
    assert seen["preview_edge_bytes_total,direction=out"] == 5 + 2
    assert seen["preview_edge_request_duration_seconds_count,waited=no"] == 1
    assert seen["preview_edge_request_duration_seconds_sum,waited=yes"] == pytest.approx(0.2)


def test_limits_are_counted_by_the_setting_that_says_so() -> None:
    """What an operator has to raise, or a client to leave alone."""
    metrics = Metrics()
    for _ in range(2):
        metrics.exchange(exchange(problem=PREVIEW_OVERLOADED, limit="admission.waiting"))
    seen = values(metrics)
    assert seen["preview_edge_limits_reached_total,setting=admission.waiting"] == 2


def test_a_tunnel_is_counted_by_its_end_and_not_as_latency() -> None:
    """An hour of WebSocket must not look like a slow request."""
    metrics = Metrics()
    metrics.exchange(exchange(status=101, tunnel=True, end=End.GRANT_ENDED, duration=3600))
    seen = values(metrics)
    assert seen["preview_edge_tunnels_ended_total,reason=grant_ended"] == 1
    assert seen["preview_edge_request_duration_seconds_count,waited=no"] == 0


def test_wakes_are_counted_by_outcome_phase_and_role() -> None:
    """One wake with a leader and a follower, one that failed before it was up."""
    metrics = Metrics()
    metrics.wake(WakeReport("sb_1", "ok", "GET /", 2, 0.007, 0.001, 0.0004, None))
    metrics.wake(WakeReport("sb_2", "sandbox_resume_timeout", "GET /", 1, None, None, None, None))
    metrics.wake(WakeReport("sb_3", "something sb_3 made up", "GET /", 1, None, None, None, None))
    metrics.exchange(exchange(role=Role.LEADER))
    metrics.exchange(exchange(role=Role.FOLLOWER, status=503, problem=SANDBOX_RESUME_TIMEOUT))
    seen = values(metrics)
    assert seen["preview_edge_wakes_total,outcome=ok"] == 1
    assert seen["preview_edge_wakes_total,outcome=sandbox_resume_timeout"] == 1
    assert seen["preview_edge_wakes_total,outcome=other"] == 1
    assert seen["preview_edge_wake_phase_seconds_bucket,le=0.0005,phase=dispatch"] == 1
    assert seen["preview_edge_wake_phase_seconds_count,phase=first_byte"] == 0
    assert seen["preview_edge_woken_requests_total,outcome=ok,role=leader"] == 1
    woken = "preview_edge_woken_requests_total,outcome=sandbox_resume_timeout,role=follower"
    assert seen[woken] == 1


def test_labels_stay_bounded_whatever_is_reported() -> None:
    """Ten thousand different sandboxes, paths and outcomes make no new series."""
    metrics = Metrics()
    metrics.exchange(exchange())
    metrics.dialed("made up")
    metrics.wake(WakeReport("sb", "made up", "GET /", 1, None, None, None, None))
    before = len(values(metrics))
    for i in range(10_000):
        metrics.exchange(
            exchange(sandbox_id=f"sb_{i}", host=f"h{i}", path=f"/{i}", grant_id=str(i))
        )
        metrics.dialed(f"outcome {i}")
        metrics.wake(WakeReport(f"sb_{i}", f"outcome {i}", "GET /", 1, None, None, None, None))
    assert len(values(metrics)) == before


def test_a_reading_is_read_at_the_scrape() -> None:
    """Gauges cost nothing in between, and show the value of the moment."""
    metrics = Metrics()
    value = 1.0
    metrics.gauge("now", "A value.", lambda: value)
    metrics.counter("growing", "By kind.", lambda: {"a": value, "b": 7.0}, "kind")
    value = 2.0
    seen = values(metrics)
    assert seen["preview_edge_now"] == 2
    assert seen["preview_edge_growing_total,kind=a"] == 2
    assert seen["preview_edge_growing_total,kind=b"] == 7


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, 0), (0.1, 0), (0.1001, 1), (1.0, 1), (1.5, 2)]
)
def test_bounds_belong_to_their_bucket(seconds: float, bucket: int) -> None:
    """Prometheus buckets are "at most"."""
    histogram = Histogram((0.1, 1.0))
    histogram.observe(seconds)
    assert histogram.counts.index(1) == bucket
    assert histogram.buckets()[-1] == ("+Inf", 1.0)
