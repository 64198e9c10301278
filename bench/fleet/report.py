"""What was measured, as a table for people and as a file for programs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from bench.fleet import law
from bench.fleet.run import Measured, Outcome
from bench.report import aligned
from bench.stats import percentile


def as_text(outcome: Outcome) -> str:
    """The report for a terminal."""
    sizes = outcome.sizes
    lines = [*(f"{key}: {value}" for key, value in outcome.machine.items())]
    lines += [
        f"{sizes.edges} edges in {sizes.processes} processes, {outcome.records} records in one Valkey",
        f"published in {outcome.publishing:.1f} s, {outcome.redis_per_record:.0f} bytes of Redis each",
        "",
        "Commands sent to Redis, and the most that the formula allows",
    ]
    lines += aligned([_HEADER, *map(_row, outcome.stages)])
    lines += ["", "By what they were for"]
    lines += aligned([_PARTS, *map(_parts, outcome.stages)])
    lines += [
        "",
        f"At rest: {law.background(sizes.edges):.0f} commands a second by the formula",
        "",
    ]
    lines += [_went_on(outcome), ""]
    lines += aligned(
        [["resident memory", "count", "bytes each"]]
        + [[one.what, str(one.count), f"{one.each:.0f}"] for one in outcome.footprints]
    )
    lines += ["", *(f"BROKEN: {one}" for one in outcome.broken)]
    lines += [] if outcome.broken else ["The formula holds."]
    return "\n".join([*lines, ""])


def _went_on(outcome: Outcome) -> str:
    p50, p99 = (percentile(outcome.went_on, p) * 1e3 for p in (50, 99))
    return (
        f"From the word that it runs to the app's getting a request that waited, {len(outcome.went_on)} of them: "
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms; the last of each wake: p50 {percentile(outcome.last_went_on, 50) * 1e3:.1f} ms"
    )


_HEADER = [
    "", "requests", "wakes", "seconds", "commands", "at most", "per request", "per wake", "p50 ms", "p99 ms", "Redis CPU",
]  # fmt: skip
_PARTS = [
    "", "heartbeats", "joined", "look-ups", "leases tried", "led", "kept", "changes", "transactions", "reads", "resume calls", "asked directly",
]  # fmt: skip


def _row(one: Measured) -> list[str]:
    stage, work = one.stage, law.work_of(one.calls)
    beyond = law.beyond_rest(stage, one.calls)
    per_request = "-" if stage.wakes or not stage.requests else f"{beyond / stage.requests:g}"
    return [
        stage.name,
        str(stage.requests),
        str(stage.wakes),
        f"{stage.seconds:.1f}",
        str(work.sent),
        f"{law.most(stage):.0f}",
        per_request,
        f"{(beyond - stage.cold) / stage.wakes:.1f}" if stage.wakes else "-",
        f"{one.p50 * 1e3:.1f}",
        f"{one.p99 * 1e3:.1f}",
        f"{one.redis_cpu / stage.seconds:.0%}",
    ]


def _parts(one: Measured) -> list[str]:
    work = law.work_of(one.calls)
    parts = (
        work.beats, work.joins, work.looks, work.takes, work.leaves, work.keeps, work.publishes,
        work.transactions, work.reads, one.stage.resume_calls, one.stage.asked_directly,
    )  # fmt: skip
    return [one.stage.name, *map(str, parts)]


def as_json(outcome: Outcome) -> str:
    """Everything."""
    stages = [
        asdict(one)
        | {
            "work": asdict(law.work_of(one.calls)),
            "beyond_rest": law.beyond_rest(one.stage, one.calls),
            "most": law.most(one.stage),
        }
        for one in outcome.stages
    ]
    document = asdict(outcome) | {"stages": stages, "broken": outcome.broken}
    document["footprints"] = [asdict(one) | {"each": one.each} for one in outcome.footprints]
    return json.dumps(document, indent=1)


def write(outcome: Outcome, directory: Path) -> list[Path]:
    """Write text and JSON; returns the files."""
    directory.mkdir(parents=True, exist_ok=True)
    files = [directory / "fleet.txt", directory / "fleet.json"]
    for file, text in zip(files, (as_text(outcome), as_json(outcome)), strict=True):
        file.write_text(text, encoding="utf-8")
    return files
