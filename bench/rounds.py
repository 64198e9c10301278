"""Interleaved rounds: A B C D, A B C D, ... so that whatever else the machine does hits all alike."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from bench.load import Job, Outcome
from bench.machine import Cores, confined, cpu_of_tree
from bench.peers import Contender
from bench.processes import ROOT, BenchError, python
from bench.scenarios import Scenario


@dataclass(frozen=True, slots=True)
class Sample:
    """One contender in one round. ``cpu`` is seconds per answer; ``busy`` its share of the elapsed time."""

    cpu: float
    busy: float
    per_second: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Result:
    """A scenario's samples by contender, one a round; None = that round failed."""

    scenario: Scenario
    samples: dict[str, list[Sample | None]]
    troubles: list[str]


def run_scenario(
    scenario: Scenario,
    contenders: Sequence[Contender],
    cores: Cores,
    tell: Callable[[str], None],
) -> Result:
    """All rounds of one scenario."""
    fighters = [one for one in contenders if one.name not in scenario.without]
    result = Result(scenario, {one.name: [] for one in fighters}, [])
    for number in range(1, scenario.rounds + 1):
        tell(f"{scenario.title}: round {number} of {scenario.rounds}")
        for contender in fighters:
            sample, trouble = measure(contender, scenario.job, cores)
            result.samples[contender.name].append(sample)
            if trouble:
                result.troubles.append(f"{contender.name}, round {number}: {trouble}")
    return result


def measure(contender: Contender, job: Job, cores: Cores) -> tuple[Sample | None, str]:
    """One contender under load once; with an explanation when an answer was wrong."""
    before, started = cpu_of_tree(contender.pid), time.perf_counter()
    outcome = drive(replace(job, port=contender.port), cores)
    cpu, elapsed = cpu_of_tree(contender.pid) - before, time.perf_counter() - started
    if outcome.errors or not outcome.answers:
        return None, f"{outcome.errors} bad answers, the first: {outcome.first_error!r}"
    return (
        Sample(
            cpu=cpu / outcome.answers,
            busy=cpu / elapsed,
            per_second=outcome.per_second,
            p50=outcome.p50,
            p99=outcome.p99,
        ),
        "",
    )


def drive(job: Job, cores: Cores) -> Outcome:
    """Run the load generator in a process of its own. Raises `BenchError`."""
    with confined(cores.load):
        done = subprocess.run(
            python("bench.load"),
            check=False,
            cwd=ROOT,
            input=json.dumps(asdict(job)),
            capture_output=True,
            text=True,
            timeout=job.seconds + job.warm_up + 60,
        )
    if done.returncode:
        raise BenchError(f"the load generator failed: {done.stderr.strip()[-300:]}")
    return Outcome(**json.loads(done.stdout))
