"""``preview-edge dev`` as a process, for tests of what a newcomer meets first."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
LAST = "Commands in sandboxes run as you"
"""How the last paragraph of the first screen begins."""


@contextmanager
def development(folder: Path, *options: str, **environ: str) -> Iterator[dict[str, str]]:
    """The rows of the first screen, by name. Free ports; everything is ended at the end."""
    ports = ("--api-port", "0", "--edge-port", "0", "--admin-port", "0")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("NULLSPACE_", "PREVIEW_"))}
    with (folder / "stderr").open("wb") as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "edge", "dev", *ports, "--data-dir", folder / "data", *options],
            cwd=ROOT,
            env=kept | environ,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert child.stdout is not None
    try:
        said = ""
        while (line := child.stdout.readline()) and not line.startswith(LAST):
            said += line
        assert line, f"dev did not start: {said}{(folder / 'stderr').read_text()}"
        # Beside an edge of several stands its admin listener, beside the metrics stand other pages.
        row = r"^  (\S+(?: key)?) +(\S+?)(?:  \(.*\)|, /.*)?$"
        yield dict(re.findall(row, said, re.MULTILINE))
    finally:
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=30)
    assert child.returncode == 0, (folder / "stderr").read_text()
