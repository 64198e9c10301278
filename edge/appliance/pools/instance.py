"""What a stock is made of: instances, how many there should be, and what became of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


class Places(Protocol):
    """What instances rest on: directories and processes (``runtime/``)."""

    async def create(self, sandbox_id: str, *, envs: dict[str, str], cwd: str | None) -> None:
        """Make the place."""

    async def warm(self, sandbox_id: str, cooled: Callable[[], None]) -> None:
        """Start its supervisor; ``cooled`` is called once when that is gone."""

    async def destroy(self, sandbox_id: str) -> None:
        """End it and remove the place."""


@dataclass(frozen=True, slots=True)
class Size:
    """What a stock should hold, and for how long; times in seconds, None = for ever."""

    low: int = 0
    high: int = 0
    idle: float | None = None
    stale: float | None = None


NOTHING = Size()


@dataclass(slots=True)
class Counts:
    """What became of instances since the control plane started.

    ``failed`` could not be made, ``expired`` were ended for their age, ``lost`` had their supervisor die.
    """

    claimed: int = 0
    failed: int = 0
    expired: int = 0
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Instance:
    """A place that is ready. Times are of the loop's clock, in seconds."""

    place: str
    begun_at: float
    ready_at: float

    def due(self, size: Size) -> float | None:
        """When it is too old."""
        ends = []
        if size.idle is not None:
            ends.append(self.ready_at + size.idle)
        if size.stale is not None:
            ends.append(self.begun_at + size.stale)
        return min(ends, default=None)
