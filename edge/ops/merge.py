"""One metrics page for several workers: what each exposes, added up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]

_GREATEST = frozenset(
    {
        "preview_edge_build_info",
        "preview_edge_catalog_heartbeat_age_seconds",
        "preview_edge_catalog_trust",
        "process_max_fds",
        "process_start_time_seconds",
    }
)
"""Gauges of which the greatest counts: of ages the worst is the truth, and versions are no amounts."""

_LEAST = frozenset({"preview_edge_ready"})

_GROWING = frozenset({"counter", "histogram"})


class Merger:
    """Adds up workers' metrics. Counters of workers that are gone stay in the sums.

    Without that, a worker's death would let the sums fall, which Prometheus takes for a restart of
    everything and answers with a leap in every rate.
    """

    def __init__(self) -> None:
        self._last: dict[str, dict[str, Metric]] = {}
        self._gone: dict[str, Metric] = {}

    def scraped(self, worker: str, text: str) -> None:
        """The newest exposition of one worker. Raises ValueError for what is none."""
        self._last[worker] = {
            family.name: family for family in text_string_to_metric_families(text)
        }

    def ended(self, worker: str) -> None:
        """A worker is gone: what it had counted, as far as we heard, remains."""
        for family in self._last.pop(worker, {}).values():
            if family.type in _GROWING:
                known = self._gone.get(family.name)
                parts = [family] if known is None else [known, family]
                self._gone[family.name] = _sum(family, parts)

    def exposition(self) -> bytes:
        """The sum, in the exposition format."""
        registry = CollectorRegistry()
        registry.register(_Fixed(self._families()))
        return generate_latest(registry)

    def _families(self) -> dict[str, Metric]:
        parts: dict[str, list[Metric]] = {}
        for families in [self._gone, *self._last.values()]:
            for name, family in families.items():
                parts.setdefault(name, []).append(family)
        return {name: _sum(families[-1], families) for name, families in parts.items()}


class _Fixed(Collector):
    def __init__(self, families: Mapping[str, Metric]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        yield from self._families.values()


def _sum(shape: Metric, parts: list[Metric]) -> Metric:
    totals: Samples = {}
    for part in parts:
        for sample in part.samples:
            key = sample.name, tuple(sample.labels.items())
            if key not in totals:
                totals[key] = sample.value
            elif shape.name in _GREATEST:
                totals[key] = max(totals[key], sample.value)
            elif shape.name in _LEAST:
                totals[key] = min(totals[key], sample.value)
            else:
                totals[key] += sample.value
    whole = Metric(shape.name, shape.documentation, shape.type)
    for (name, labels), value in totals.items():
        whole.add_sample(name, dict(labels), value)
    return whole
