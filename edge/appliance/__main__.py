"""``python -m edge.appliance --config FILE`` (``-`` = standard input): the embedded control plane."""

from __future__ import annotations

import argparse
import asyncio
import sys

from edge.appliance.config import ConfigError
from edge.appliance.server import StartError, run


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 0 after a clean stop, 2 when it could not start."""
    parser = argparse.ArgumentParser(prog="python -m edge.appliance", description=__doc__)
    parser.add_argument("--config", required=True, help="JSON file, or - for standard input")
    try:
        asyncio.run(run(parser.parse_args(arguments).config))
    except (StartError, ConfigError) as e:
        print(" ".join(str(e).split()), file=sys.stderr)  # noqa: T201 - one line for people
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
