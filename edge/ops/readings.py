"""What an edge's metrics read from its parts at the moment of a scrape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge.core.settings import DeadlineSettings
from edge.wake.trust import Trust

if TYPE_CHECKING:
    from edge.ops.edge import Edge

DEADLINES = tuple(f"deadlines.{name}" for name in DeadlineSettings.model_fields)
"""All of them: a counter that has never moved is there, too."""


def register_readings(edge: Edge) -> None:
    """Add the gauges, and the counters that are counted elsewhere."""
    gauge, counter = edge.metrics.gauge, edge.metrics.counter
    counts, catalog, usage = edge.admission.counts, edge.catalog, edge.usage
    gauge("connections", "Open client connections.", lambda: counts()["connections"])
    gauge("exchanges", "Exchanges under way, waiting ones apart.", lambda: counts()["exchanges"])
    gauge("tunnels", "Open tunnels.", lambda: counts()["tunnels"])
    gauge("waiting", "Exchanges that wait for a wake.", lambda: counts()["waiting"])
    counter(
        "deadlines_passed",
        "Deadlines that have passed, by setting.",
        lambda: dict.fromkeys(DEADLINES, 0.0) | edge.flow.passed,
        "setting",
    )
    gauge(
        "catalog_heartbeat_age_seconds",
        "Seconds since the control plane last proved that the catalog is caught up.",
        catalog.heartbeat_age,
    )
    gauge(
        "catalog_trust",
        "1 for how far the catalog is believed at the moment, 0 for the rest.",
        lambda: {trust.value: float(catalog.trust() is trust) for trust in Trust},
        "trust",
    )
    gauge(
        "catalog_entries",
        "Records kept, and look-ups under way (pending).",
        catalog.size,
        "kind",
    )
    gauge("ready", "1 when /readyz says so.", lambda: float(not edge.unready()))
    gauge("usage_pairs_waiting", "Pairs of sandbox and grant not yet reported.", usage.waiting)
    counter("usage_pairs_given_up", "Pairs whose usage was lost.", lambda: usage.given_up)
    counter("log_lines_dropped", "Lines that could not be written.", edge.logs.dropped, "log")
