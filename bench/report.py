"""The report: one table of ratios for people, one file of figures for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.memory import BAR as MEMORY_BAR
from bench.memory import MemoryResult
from bench.peers import EDGE, ENVOY, Contender
from bench.rounds import Result, Sample
from bench.stats import median_ratio, spread
from bench.strangers import BAR as FLOOD_BAR
from bench.strangers import StrangersResult
from bench.wakes import BAR as WAKE_BAR
from bench.wakes import WakeResult

CPU_BAR = 1.0
"""CPU per request of the edge over Envoy's."""
MEASURES = {
    "cpu": "CPU per request",
    "per_second": "throughput",
    "p50": "p50",
    "p99": "p99",
}


@dataclass
class Report:
    """All that was measured. Ratios are to ``reference``."""

    machine: dict[str, str]
    contenders: Sequence[Contender]
    remarks: list[str]
    results: list[Result] = field(default_factory=list)
    wakes: WakeResult | None = None
    strangers: list[StrangersResult] = field(default_factory=list)
    memory: list[MemoryResult] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def reference(self) -> str:
        """Envoy; where it could not be started, the first of the others, and the edge at last."""
        names = [one.name for one in self.contenders]
        others = [name for name in names if name != EDGE]
        return ENVOY if ENVOY in names else (others or names)[0]

    def label(self, name: str) -> str:
        """What a contender is called in tables."""
        return next(one.label for one in self.contenders if one.name == name)

    def ratio(self, result: Result, name: str, measure: str) -> float | None:
        """The median over rounds of a contender's measure over the reference's."""
        return median_ratio(*self._columns(result, name, measure))

    def spread(self, result: Result, name: str, measure: str) -> float | None:
        """Half the distance between the quartiles of those ratios."""
        return spread(*self._columns(result, name, measure))

    def _columns(
        self, result: Result, name: str, measure: str
    ) -> tuple[list[float | None], list[float | None]]:
        # Zeros stand where the reference did not take part, and zeros give no ratio.
        reference = result.samples.get(self.reference, [None] * len(result.samples[name]))
        return _column(result.samples[name], measure), _column(reference, measure)


def _column(samples: Sequence[Sample | None], measure: str) -> list[float | None]:
    return [None if sample is None else getattr(sample, measure) for sample in samples]


def table(report: Report, result: Result) -> list[list[str]]:
    """Rows of one scenario, the header first."""
    rows = [["", *MEASURES.values(), "CPU/request", "requests/s", "p50", "p99", "busy"]]
    for name, samples in result.samples.items():
        ratios = [_ratio(report.ratio(result, name, measure)) for measure in MEASURES]
        off = report.spread(result, name, "cpu")
        if off is not None and name != report.reference:
            ratios[0] += f" ±{off:.2f}"
        good = [sample for sample in samples if sample is not None]
        rows.append([report.label(name), *ratios, *_absolute(good)])
    return rows


def _absolute(samples: Sequence[Sample]) -> list[str]:
    if not samples:
        return ["failed"] * 5
    middle = {name: median(getattr(one, name) for one in samples) for name in (*MEASURES, "busy")}
    return [
        f"{middle['cpu'] * 1e6:.1f} us",
        f"{middle['per_second']:.0f}",
        f"{middle['p50'] * 1e3:.2f} ms",
        f"{middle['p99'] * 1e3:.2f} ms",
        f"{middle['busy']:.0%}",
    ]


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing the edge has to show."""

    what: str
    measured: str
    bar: str
    held: bool


def verdicts(report: Report) -> list[Verdict]:
    """Everything the edge has to show, as far as it was measured."""
    found = []
    main = next((one for one in report.results if one.scenario.name == "get"), None)
    if main and EDGE in main.samples and report.reference == ENVOY:
        ratio = report.ratio(main, EDGE, "cpu")
        held = ratio is not None and ratio <= CPU_BAR
        found.append(Verdict("CPU per request over Envoy's", _ratio(ratio), f"{CPU_BAR}", held))
    if report.wakes:
        p50, p99 = report.wakes.p50, report.wakes.p99
        found.append(
            Verdict(
                f"wake overhead p99 of {len(report.wakes.times)} wakes (p50 {p50 * 1e3:.2f} ms)",
                f"{p99 * 1e3:.2f} ms",
                f"{WAKE_BAR * 1e3:.0f} ms",
                p99 <= WAKE_BAR,
            )
        )
    for flood in report.strangers:
        what = f"p99 of good requests under a flood of {flood.kind}, over its calm value"
        found.append(Verdict(what, _ratio(flood.ratio), f"{FLOOD_BAR}", flood.ratio <= FLOOD_BAR))
    for one in report.memory:
        what = f"more memory during a {one.name} of {one.size / 1e9:.2f} GB ({one.seconds:.1f} s)"
        measured, bar = f"{one.growth / 2**20:.1f} MB", f"{MEMORY_BAR >> 20} MB"
        found.append(Verdict(what, measured, bar, one.growth < MEMORY_BAR))
    return found


def as_text(report: Report) -> str:
    """The report for a terminal."""
    lines = [*(f"{key}: {value}" for key, value in report.machine.items()), *report.remarks, ""]
    lines.append(f"Ratios are to {report.label(report.reference)}, medians of the rounds' ratios.")
    for result in report.results:
        lines += ["", f"{result.scenario.title} ({result.scenario.rounds} rounds)"]
        lines += aligned(table(report, result))
        lines += [f"  ! {trouble}" for trouble in result.troubles]
    lines += ["", *(f"FAILED: {failure}" for failure in report.failures)] if report.failures else []
    told = verdicts(report)
    if told:
        lines += ["", "To be shown"]
        lines += aligned([[_mark(one), one.what, one.measured, f"bar {one.bar}"] for one in told])
    return "\n".join([*lines, ""])


def as_markdown(report: Report) -> str:
    """The report as a page."""
    lines = ["# Bench", "", *(f"- {key}: {value}" for key, value in report.machine.items())]
    lines += [f"- {remark}" for remark in report.remarks]
    lines += ["", f"Ratios are to {report.label(report.reference)}: medians of the rounds' ratios."]
    for result in report.results:
        lines += ["", f"## {result.scenario.title}", ""]
        header, *rows = table(report, result)
        lines += _markdown_rows([header, ["---"] * len(header), *rows])
        lines += ["", *(f"- {trouble}" for trouble in result.troubles)] if result.troubles else []
    lines += (
        ["", *(f"- failed: {failure}" for failure in report.failures)] if report.failures else []
    )
    told = verdicts(report)
    if told:
        lines += ["", "## To be shown", ""]
        lines += _markdown_rows([["", "measured", "bar", ""], ["---"] * 4])
        lines += _markdown_rows([[one.what, one.measured, one.bar, _mark(one)] for one in told])
    return "\n".join([*lines, ""])


def as_json(report: Report) -> str:
    """Every sample, the ratios, and what was to be shown."""
    scenarios: dict[str, Any] = {}
    for result in report.results:
        scenarios[result.scenario.name] = {
            "title": result.scenario.title,
            "samples": {
                name: [sample and asdict(sample) for sample in samples]
                for name, samples in result.samples.items()
            },
            "ratios": {
                name: {measure: report.ratio(result, name, measure) for measure in MEASURES}
                for name in result.samples
            },
            "troubles": result.troubles,
        }
    document = {
        "machine": report.machine,
        "remarks": report.remarks,
        "contenders": {one.name: one.label for one in report.contenders},
        "reference": report.reference,
        "scenarios": scenarios,
        "wake_overhead_seconds": report.wakes and report.wakes.times,
        "strangers": [asdict(one) for one in report.strangers],
        "memory": [asdict(one) for one in report.memory],
        "failures": report.failures,
        "verdicts": [asdict(one) for one in verdicts(report)],
    }
    return json.dumps(document, indent=1)


def write(report: Report, directory: Path) -> list[Path]:
    """Write text, markdown and JSON; returns the files."""
    directory.mkdir(parents=True, exist_ok=True)
    texts = {"txt": as_text(report), "md": as_markdown(report), "json": as_json(report)}
    files = [directory / f"bench.{suffix}" for suffix in texts]
    for file, text in zip(files, texts.values(), strict=True):
        file.write_text(text, encoding="utf-8")
    return files


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with columns under each other, columns of numbers to the right."""
    columns = []
    for column in zip(*rows, strict=True):
        width = max(map(len, column))
        numbers = column[-1][:1].isdigit()
        columns.append([one.rjust(width) if numbers else one.ljust(width) for one in column])
    return ["  " + "  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def _markdown_rows(rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in rows]


def _mark(verdict: Verdict) -> str:
    return "held" if verdict.held else "MISSED"
