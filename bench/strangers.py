"""What strangers cost those with a right: the latency of good requests while others flood the edge.

Good requests leave at a fixed pace, first in calm, then under a flood, in turns; what counts is the ratio
of the two p99s. The flood comes over connections of its own, as strangers do.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from statistics import median

from bench.flood import Flood
from bench.load import Job
from bench.machine import Cores, confined
from bench.peers import Contender
from bench.processes import ROOT, BenchError, python
from bench.rounds import drive
from bench.scenarios import browser_fields, request
from bench.world import FAST, RUNNING, World, host_of
from edge.core.records import Transport

BAR = 2.0
"""How many times its calm value the p99 of good requests may become."""
GOOD_RATE = 500.0
FLOOD_RATE = 500.0


@dataclass(frozen=True, slots=True)
class StrangersResult:
    """The p99 of good requests in seconds, in calm and under one kind of flood, by round."""

    kind: str
    calm: list[float]
    flooded: list[float]

    @property
    def ratio(self) -> float:
        """The median of the rounds' ratios."""
        pairs = zip(self.flooded, self.calm, strict=True)
        return median(flooded / calm for flooded, calm in pairs)


def floods(world: World) -> dict[str, list[str]]:
    """What strangers send, by kind."""
    host = host_of(RUNNING, FAST)
    fields = browser_fields(host, "unrelated=1")
    genuine = world.token(RUNNING, FAST, Transport.HTTP)
    signed = genuine.rpartition(".")[0]
    forged = [f"{signed}.{_noise(64)}" for _ in range(500)]
    elsewhere = [("Host", f"www.example-{n}.org") for n in range(500)]
    return {
        "forged tokens": [request("GET", f"/?edge_token={token}", fields) for token in forged],
        "no token at all": [request("GET", f"/{n}", fields) for n in range(500)],
        "unknown hosts": [request("GET", "/", [one, *fields[1:]]) for one in elsewhere],
        "half requests": [request("GET", f"/{n}", fields)[:400] for n in range(500)],
        "no HTTP": [f"\x16\x03\x01{_noise(200)}\r\n\r\n" for _ in range(500)],
    }


def _noise(size: int) -> str:
    return base64.urlsafe_b64encode(os.urandom(size)).rstrip(b"=").decode()


def measure_strangers(
    edge: Contender, good: Job, kinds: dict[str, list[str]], cores: Cores, rounds: int
) -> list[StrangersResult]:
    """All kinds, each in turns with calm. Raises `BenchError` when a good request went wrong."""
    job = replace(good, port=edge.port, rate=GOOD_RATE, seconds=3.0)
    results = []
    for kind, messages in kinds.items():
        result = StrangersResult(kind, [], [])
        for _ in range(rounds):
            result.calm.append(_p99(job, cores))
            with _flooding(Flood(edge.port, messages, FLOOD_RATE), cores):
                result.flooded.append(_p99(job, cores))
        results.append(result)
    return results


def _p99(job: Job, cores: Cores) -> float:
    outcome = drive(job, cores)
    if outcome.errors or not outcome.answers:
        raise BenchError(f"a good request went wrong among strangers: {outcome.first_error}")
    return outcome.p99


@contextmanager
def _flooding(flood: Flood, cores: Cores) -> Iterator[None]:
    with (
        confined(cores.load),
        subprocess.Popen(
            python("bench.flood"),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(asdict(flood)) + "\n")
            process.stdin.flush()
            process.stdout.readline()
            yield
        finally:
            process.kill()
