"""``python -m bench.fleet``: measure a fleet, print, and write ``bench/out/``."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from pathlib import Path

from bench.fleet import report
from bench.fleet.run import run
from bench.fleet.world import SMALL, Sizes
from bench.processes import ROOT, BenchError, Crew


def main() -> int:
    """Run it; returns the exit status, 1 where the formula does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.fleet", description="Measure a fleet.")
    parser.add_argument("--small", action="store_true", help="a few of everything, in seconds")
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "out", help="where to write")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # So that the crew is ended too.
    try:
        with (
            tempfile.TemporaryDirectory(prefix="preview-edge-fleet-") as directory,
            Crew(Path(directory)) as crew,
        ):
            outcome = asyncio.run(run(crew, SMALL if asked.small else Sizes(), _progress))
    except BenchError as e:
        print(f"bench: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    print("\r" + report.as_text(outcome))
    print("Written: " + ", ".join(map(str, report.write(outcome, asked.out))))
    return 1 if outcome.broken else 0


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
