"""``python -m bench``: measure, print, and write ``bench/out/``."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from bench import memory, peers, report, strangers, wakes
from bench.machine import Cores, describe, share_cores
from bench.peers import ALL, EDGE, Contender, Place
from bench.processes import ROOT, BenchError, Crew, python
from bench.rounds import run_scenario
from bench.scenarios import Scenario, scenarios
from bench.world import RUNNING, World
from edge.core.records import State

OUT = ROOT / "bench" / "out"
WAKE, STRANGERS, MEMORY = "wake", "strangers", "memory"
PARTS = ("get", "paced", "mixed", "get64k", "post16k", "tunnel", WAKE, STRANGERS, MEMORY)


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """What was asked for on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the edge beside nginx, Envoy and a plain aiohttp proxy.",
    )
    parser.add_argument("--quick", action="store_true", help="short rounds, smaller bodies")
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=PARTS, help="these parts (default: all)"
    )
    parser.add_argument(
        "--proxies", nargs="+", choices=ALL, default=ALL, help="these proxies (default: all)"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="where to write the report")
    parser.add_argument("--rounds", type=int, help="rounds of each scenario")
    parser.add_argument("--seconds", type=float, help="seconds of each round")
    parser.add_argument(
        "--strict", action="store_true", help="exit status 1 when a bar is missed or a round fails"
    )
    return parser.parse_args(argv)


def main() -> int:
    """Run the bench; returns the exit status."""
    asked = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that the crew is ended too.
    try:
        with tempfile.TemporaryDirectory(prefix="preview-edge-bench-") as directory:
            done = measure_all(asked, Path(directory))
    except BenchError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print("\r" + report.as_text(done))
    files = report.write(done, asked.out)
    if done.results:
        from bench.chart import draw  # Slow to import, and pointless before there is a result.

        files.append(asked.out / "bench.png")
        draw(done, files[-1])
    print("Written: " + ", ".join(_shown(file) for file in files))
    missed = any(not one.held for one in report.verdicts(done))
    wrong = any(result.troubles for result in done.results)
    return 1 if done.failures or (asked.strict and (missed or wrong)) else 0


def measure_all(asked: argparse.Namespace, directory: Path) -> report.Report:
    """Start everything, measure the parts asked for, end everything."""
    cores = share_cores()
    with Crew(directory) as crew:
        live_port = int(crew.start("upstream", python("bench.upstream"), cores.load).said()["port"])
        world = World(fast_port=peers.start_app(crew, cores.load), live_port=live_port)
        world.add_sandbox(RUNNING, State.RUNNING)
        work = [fitted(one, asked) for one in scenarios(world) if one.name in asked.only]
        sleepers = wakes.prepare(world, 50 if asked.quick else 200)
        good, kinds = scenarios(world)[0].job, strangers.floods(world)
        fields = memory.prepare(world)
        control_plane_port = _start_control_plane(crew, world, cores)
        place = Place(crew, cores, world, control_plane_port)
        contenders, remarks = _start_contenders(asked.proxies, place)
        done = report.Report(describe(), contenders, [cores.remark, *remarks])
        edge = next((one for one in contenders if one.name == EDGE), None)
        try:
            for scenario in work:
                done.results.append(run_scenario(scenario, contenders, cores, _progress))
            if edge and WAKE in asked.only:
                _progress("wakes")
                done.wakes = wakes.measure_wakes(edge, control_plane_port, sleepers)
            if edge and STRANGERS in asked.only:
                _progress("strangers")
                rounds = asked.rounds or (3 if asked.quick else 5)
                done.strangers = strangers.measure_strangers(edge, good, kinds, cores, rounds)
            if edge and MEMORY in asked.only:
                _progress("memory")
                size = 256_000_000 if asked.quick else 1_000_000_000
                done.memory.extend(memory.measure_memory(edge, fields, size))
        except (BenchError, OSError) as e:
            # What was measured before is told all the same.
            done.failures += [str(e), *crew.last_words()]
    return done


def fitted(scenario: Scenario, asked: argparse.Namespace) -> Scenario:
    """The scenario at the length that was asked for."""
    if asked.quick:
        scenario = scenario.shorter()
    return scenario.with_length(asked.rounds, asked.seconds)


def _start_control_plane(crew: Crew, world: World, cores: Cores) -> int:
    file = crew.directory / "world.json"
    file.write_text(world.for_control_plane())
    command = python("bench.control_plane", str(file))
    return int(crew.start("control-plane", command, cores.load).said()["port"])


def _start_contenders(names: list[str], place: Place) -> tuple[list[Contender], list[str]]:
    """Those that can be started, and a remark about each that cannot."""
    contenders, remarks = [], []
    for name in names:
        _progress(f"starting {name}")
        try:
            contenders.append(peers.start(name, place))
        except BenchError as e:
            remarks.append(f"without {name}: {e}")
    if not contenders:
        raise BenchError("; ".join(remarks))
    return contenders, remarks


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _shown(file: Path) -> str:
    return str(file.relative_to(ROOT) if file.is_relative_to(ROOT) else file)


if __name__ == "__main__":
    sys.exit(main())
