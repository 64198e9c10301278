"""The report: ratios, bars, and figures that a program can read."""

from __future__ import annotations

import json
from pathlib import Path

from bench.load import Job
from bench.memory import MemoryResult
from bench.peers import EDGE, ENVOY, NGINX, Contender
from bench.report import Report, aligned, as_markdown, as_text, verdicts, write
from bench.rounds import Result, Sample
from bench.scenarios import Scenario
from bench.strangers import StrangersResult
from bench.wakes import WakeResult


def report(
    edge_cpu: float, *, wake: float = 0.001, growth: int = 1 << 20, flooded: float = 0.0015
) -> Report:
    """Two rounds of one scenario, Envoy at 50 us a request; nginx failed once."""
    job = Job(port=0, requests=("",), connections=1, seconds=1.0)

    def sample(cpu: float) -> Sample:
        return Sample(cpu=cpu, busy=1.0, per_second=1 / cpu, p50=cpu, p99=2 * cpu)

    samples: dict[str, list[Sample | None]] = {
        EDGE: [sample(edge_cpu), sample(edge_cpu)],
        ENVOY: [sample(50e-6), sample(50e-6)],
        NGINX: [sample(25e-6), None],
    }
    contenders = [Contender(name, name.title(), 1, 1) for name in samples]
    result = Result(Scenario("get", "GET", job, 2), samples, ["nginx, round 2: bad"])
    return Report(
        {"cpu": "a cpu"},
        contenders,
        ["pinned"],
        [result],
        WakeResult([wake] * 200),
        [StrangersResult("half requests", [0.001], [flooded])],
        [MemoryResult("download", 10**9, growth, 1.0)],
    )


def test_ratios_are_to_envoy() -> None:
    """Below one is less than Envoy; failed rounds do not count, but are told."""
    text = as_text(report(40e-6))
    assert "0.80" in text
    assert "0.50" in text
    assert "nginx, round 2: bad" in text
    assert "| Edge | 0.80 | 1.25 | 0.80 | 0.80 |" in as_markdown(report(40e-6))


def test_bars_are_held_or_missed() -> None:
    """Each bar is judged by its own figure."""
    assert [one.held for one in verdicts(report(50e-6))] == [True] * 4
    missed = verdicts(report(51e-6, wake=0.0051, growth=64 << 20, flooded=0.0021))
    assert [one.held for one in missed] == [False] * 4
    assert "MISSED" in as_text(report(51e-6))


def test_without_envoy_there_is_another_reference() -> None:
    """Ratios are to the first other proxy then, and the bar over Envoy is not judged."""
    made = report(40e-6)
    made.contenders = [one for one in made.contenders if one.name != ENVOY]
    del made.results[0].samples[ENVOY]
    assert made.reference == NGINX
    assert made.ratio(made.results[0], EDGE, "cpu") == 1.6
    assert not any("Envoy" in one.what for one in verdicts(made))


def test_files_are_written(tmp_path: Path) -> None:
    """Text, markdown and JSON; the JSON holds every sample."""
    files = write(report(40e-6), tmp_path / "out")
    assert [file.name for file in files] == ["bench.txt", "bench.md", "bench.json"]
    told = json.loads(files[2].read_text())
    assert told["scenarios"]["get"]["ratios"][EDGE]["cpu"] == 0.8
    assert len(told["scenarios"]["get"]["samples"][EDGE]) == 2
    assert len(told["wake_overhead_seconds"]) == 200


def test_tables_line_up() -> None:
    """Numbers to the right, words to the left."""
    assert aligned([["a", "cpu"], ["longer", "1.5"]]) == ["  a       cpu", "  longer  1.5"]
