"""Totals are the machine's."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from families import LINUX

from edge.appliance.runtime.usage import measured


@LINUX
def test_totals_are_the_machines(tmp_path: Path) -> None:
    """What was measured comes back as it is, beside what there is of it."""
    usage = measured(tmp_path, memory=1, disk=2, percent=3.14159, network=(4, 5))
    assert (usage.memory, usage.disk, usage.cpu_percent, usage.network) == (1, 2, 3.1, (4, 5))
    assert usage.cpu_count == len(os.sched_getaffinity(0))
    assert usage.disk_total == shutil.disk_usage(tmp_path).total
    meminfo = Path("/proc/meminfo").read_text().splitlines()[0].split()
    assert usage.memory_total == int(meminfo[1]) * 1024
