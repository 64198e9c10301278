"""Adding up workers' metrics."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.ops.merge import Merger

PAGE = """\
# HELP preview_edge_requests_total Requests.
# TYPE preview_edge_requests_total counter
preview_edge_requests_total{{status="2xx"}} {requests}
# HELP preview_edge_connections Open.
# TYPE preview_edge_connections gauge
preview_edge_connections {connections}
# HELP preview_edge_catalog_heartbeat_age_seconds Age.
# TYPE preview_edge_catalog_heartbeat_age_seconds gauge
preview_edge_catalog_heartbeat_age_seconds {age}
# HELP preview_edge_ready Ready.
# TYPE preview_edge_ready gauge
preview_edge_ready {ready}
# HELP preview_edge_d_seconds Duration.
# TYPE preview_edge_d_seconds histogram
preview_edge_d_seconds_bucket{{le="0.1"}} {requests}
preview_edge_d_seconds_bucket{{le="+Inf"}} {requests}
preview_edge_d_seconds_count {requests}
preview_edge_d_seconds_sum {requests}
"""


def page(requests: int, connections: int = 1, age: float = 0.2, ready: int = 1) -> str:
    """What one worker exposes."""
    return PAGE.format(requests=requests, connections=connections, age=age, ready=ready)


def samples(merger: Merger) -> dict[str, float]:
    """What the sum says."""
    families = text_string_to_metric_families(merger.exposition().decode())
    return {
        sample.name + "".join(f",{k}={v}" for k, v in sample.labels.items()): sample.value
        for family in families
        for sample in family.samples
    }


def test_amounts_are_added_ages_are_the_worst_and_ready_means_all() -> None:
    """Each kind of metric by its own rule."""
    merger = Merger()
    merger.scraped("a", page(2, connections=3, age=0.2))
    merger.scraped("b", page(5, connections=4, age=9.0, ready=0))
    seen = samples(merger)
    assert seen["preview_edge_requests_total,status=2xx"] == 7
    assert seen["preview_edge_connections"] == 7
    assert seen["preview_edge_catalog_heartbeat_age_seconds"] == 9
    assert seen["preview_edge_ready"] == 0
    assert seen["preview_edge_d_seconds_bucket,le=0.1"] == 7
    assert seen["preview_edge_d_seconds_sum"] == 7


def test_what_a_dead_worker_counted_stays() -> None:
    """Counters never fall, or every rate would leap; gauges of the dead are gone."""
    merger = Merger()
    for life in range(3):
        merger.scraped("a", page(10, connections=1))
        merger.scraped("b", page(5, connections=1))
        assert samples(merger)["preview_edge_requests_total,status=2xx"] == 15 + 10 * life
        merger.ended("a")
    assert samples(merger)["preview_edge_requests_total,status=2xx"] == 35
    assert samples(merger)["preview_edge_connections"] == 1


def test_a_newer_page_replaces_the_older_one() -> None:
    """Scraping twice counts once."""
    merger = Merger()
    merger.scraped("a", page(2))
    merger.scraped("a", page(3))
    assert samples(merger)["preview_edge_requests_total,status=2xx"] == 3


def test_nothing_scraped_is_an_empty_page() -> None:
    """A supervisor whose workers are all starting."""
    assert samples(Merger()) == {}


def test_nonsense_is_an_error() -> None:
    """A worker that answers something else is not added up."""
    with pytest.raises(ValueError):
        Merger().scraped("a", "what{ is this")
