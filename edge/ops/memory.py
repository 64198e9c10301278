"""How much memory this process takes, and how much it may: what shedding under pressure goes by."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from edge.wake.admission import Admission

HEADROOM = 0.9
"""Share of the container's limit that is used before new work is refused."""

RELIEF = 0.95
"""Share of the bound below which new work is taken again, so that it does not flicker."""

INTERVAL = 0.25
"""Seconds between two looks."""

_STATM = Path("/proc/self/statm")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Resident bytes of this process; 0 where the system has no ``/proc`` to say so (macOS)."""
    try:
        return int(_STATM.read_text().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0


def container_limit(
    membership: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> int:
    """Bytes that the control groups (version 2) around this process allow; 0 = as many as there are."""
    try:
        lines = membership.read_text().splitlines()
        group = next(line[3:] for line in lines if line.startswith("0::"))
    except (OSError, StopIteration):
        return 0
    place = root / group.strip("/")
    limits = [_limit_of(one) for one in (place, *place.parents) if one.is_relative_to(root)]
    return min((limit for limit in limits if limit), default=0)


def _limit_of(group: Path) -> int:
    try:
        return int((group / "memory.max").read_text())
    except (OSError, ValueError):  # No such file at the root, and the word "max" for no limit.
        return 0


def bound(setting: int | None, workers: int) -> int:
    """Bytes one process may take. ``setting`` None: its share of the container's limit. 0 = no bound."""
    return int(container_limit() * HEADROOM) // workers if setting is None else setting


class Pressure:
    """Whether this process takes too much; ``limit`` 0 = never."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._high = False

    def high(self, taken: int) -> bool:
        """Judge ``taken`` resident bytes."""
        self._high = bool(self.limit) and taken > self.limit * (RELIEF if self._high else 1.0)
        return self._high


async def shed(admission: Admission, pressure: Pressure, tell: Callable[[str], None]) -> None:
    """Let nothing new in while memory is short (``admission.memory_bytes``); ``tell`` hears of each turn."""
    while pressure.limit:
        high = pressure.high(resident())
        if high is not admission.pressed:
            admission.pressed = high
            tell("memory_short" if high else "memory_relieved")
        await asyncio.sleep(INTERVAL)
