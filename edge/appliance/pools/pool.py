"""One pool: what its tenant wants of it, where it stands, and its stock."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from edge.appliance.pools.definition import Definition
from edge.appliance.pools.instance import NOTHING, Size
from edge.appliance.pools.stock import Stock


class PoolState(StrEnum):
    """As published. Draining becomes disabled once the last instance is gone."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    DRAINING = "draining"
    DELETED = "deleted"


class PoolStatus(StrEnum):
    """How it is, in one word; ours, for lists."""

    READY = "ready"
    WARMING = "warming"
    DEGRADED = "degraded"
    DRAINING = "draining"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class Standing:
    """What outlives the process. Times are Unix times; each is that of the last such event.

    ``generation`` counts the definitions that made other instances necessary.
    """

    id: str
    definition: Definition
    state: PoolState
    created_at: float
    updated_at: float
    generation: int = 1
    enabled_at: float | None = None
    disabled_at: float | None = None
    drain_requested_at: float | None = None
    deleted_at: float | None = None


@dataclass(slots=True, eq=False)
class Pool:
    """A pool. Only ``pools.py`` changes one. ``looked_at``: when it was last told to reconcile."""

    standing: Standing
    stock: Stock
    looked_at: float | None = None

    @property
    def id(self) -> str:
        """Under which clients name it."""
        return self.standing.id

    @property
    def enabled(self) -> bool:
        """Whether it makes instances and hands them out."""
        return self.standing.state is PoolState.ENABLED

    @property
    def target(self) -> int:
        """How many instances should always be ready."""
        return self.standing.definition.min_ready if self.enabled else 0

    @property
    def degraded_reason(self) -> str | None:
        """Why it is not as it should be, in a published word."""
        if self.standing.state is PoolState.DRAINING:
            return "drain_active"
        return "artifact_prewarm_failed" if self.stock.failing else None

    @property
    def status(self) -> PoolStatus:
        """How it is, in one word."""
        if not self.enabled:
            draining = self.standing.state is PoolState.DRAINING
            return PoolStatus.DRAINING if draining else PoolStatus.DISABLED
        if self.degraded_reason is not None:
            return PoolStatus.DEGRADED
        return PoolStatus.READY if self.stock.ready >= self.target else PoolStatus.WARMING

    @property
    def drained(self) -> bool:
        """Whether it was to be drained, and is empty."""
        empty = not (self.stock.ready or self.stock.warming or self.stock.ending)
        return self.standing.state is PoolState.DRAINING and empty

    def stand(self, standing: Standing) -> None:
        """Go on as ``standing`` says."""
        same = self.standing.definition.makes_the_same(standing.definition)
        self.standing = standing
        if not same:
            self.stock.renew()
        self.stock.resize(self._size())

    def _size(self) -> Size:
        wanted = self.standing.definition
        if not self.enabled:
            return NOTHING
        return Size(
            wanted.min_ready,
            wanted.max_ready,
            wanted.idle_timeout_seconds,
            wanted.stale_after_seconds,
        )
