"""What a sandbox uses of this machine, put together from what the kernel tells."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from edge.appliance.runtime.interface import Usage


def measured(
    folder: Path, *, memory: int, disk: int, percent: float, network: tuple[int, int] | None
) -> Usage:
    """The answer, with the totals of the machine; ``folder`` is where the files are."""
    return Usage(
        cpu_percent=round(percent, 1),
        cpu_count=len(os.sched_getaffinity(0)),
        memory=memory,
        memory_total=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        disk=disk,
        disk_total=shutil.disk_usage(folder).total,
        network=network,
    )
