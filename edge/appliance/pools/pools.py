"""All pools: what tenants do with them, and what creates get from them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from edge.appliance.pools.checkout import COLD, Checkout, checked_out, mismatches, unpoolable
from edge.appliance.pools.definition import MOST_READY, Definition
from edge.appliance.pools.instance import Places
from edge.appliance.pools.pool import Pool, PoolState, Standing
from edge.appliance.pools.shelf import shelf
from edge.appliance.pools.stock import Stock
from edge.appliance.problems import (
    QUOTA_EXCEEDED,
    WARM_POOL_NOT_FOUND,
    WARM_POOL_UNAVAILABLE,
    ApiError,
)
from edge.appliance.requests import Create
from edge.appliance.store import Store, StoreError
from edge.appliance.tasks import Scope

MOST_POOLS = 100

MAKING = 4
"""Instances under way at a time, of all pools together."""


class Pools:
    """All pools, those in ``store`` included. ``wall`` is Unix time in seconds.

    Nothing is made before `start`. Raises `StoreError`, as does everything that changes a pool; then
    nothing has changed.
    """

    def __init__(
        self,
        places: Places,
        store: Store,
        *,
        scope: Scope,
        wall: Callable[[], float],
        log: Callable[..., None],
    ) -> None:
        self._places = places
        self._scope = scope
        self._wall = wall
        self._log = log
        self._bench = asyncio.Semaphore(MAKING)
        self._rows = shelf(store)
        self._pools: dict[str, Pool] = {}
        self._deleted: set[Pool] = set()
        for standing in self._rows.load():
            self._add(standing)

    def start(self) -> None:
        """Fill the pools that an earlier run has left; what it was draining is gone with it."""
        for pool in self.all():
            if pool.standing.state is PoolState.DRAINING:
                self._settled(pool)
            else:
                pool.stand(pool.standing)

    def close(self) -> None:
        """Nothing is made or handed out any more."""
        for pool in (*self._pools.values(), *self._deleted):
            pool.stock.close()

    async def clear(self) -> None:
        """End every instance. After `close`, and when the scope is closed."""
        pools = (*self._pools.values(), *self._deleted)
        await asyncio.gather(*(pool.stock.clear() for pool in pools))

    # --- For tenants ---------------------------------------------------------------------------------

    def all(self) -> list[Pool]:
        """All pools, oldest first."""
        return list(self._pools.values())

    def get(self, pool_id: str) -> Pool:
        """A pool. Raises `ApiError` (warm_pool_not_found)."""
        pool = self._pools.get(pool_id)
        if pool is None:
            raise ApiError(WARM_POOL_NOT_FOUND)
        return pool

    def create(self, definition: Definition) -> Pool:
        """A new pool, enabled, that begins to fill. Raises `ApiError` (quota_exceeded)."""
        if len(self._pools) >= MOST_POOLS:
            raise ApiError(QUOTA_EXCEEDED, f"There can be {MOST_POOLS} warm pools at most.")
        self._check_room(definition, None)
        now = self._wall()
        pool_id = f"twp_{secrets.token_hex(8)}"
        standing = Standing(pool_id, definition, PoolState.ENABLED, now, now, enabled_at=now)
        self._rows.put(standing)
        pool = self._add(standing)
        pool.stand(standing)
        return pool

    def redefine(self, pool: Pool, definition: Definition) -> None:
        """Go on by another definition. Raises `ApiError` (quota_exceeded)."""
        self._check_room(definition, pool)
        old = pool.standing
        other = not old.definition.makes_the_same(definition)
        self._put(pool, replace(old, definition=definition, generation=old.generation + other))

    def enable(self, pool: Pool) -> None:
        """Make instances and hand them out."""
        if not pool.enabled:
            self._put(
                pool, replace(pool.standing, state=PoolState.ENABLED, enabled_at=self._wall())
            )

    def disable(self, pool: Pool) -> None:
        """Neither make nor hand out any, and end those that are ready."""
        if pool.standing.state is not PoolState.DISABLED:
            self._disable(pool)

    def drain(self, pool: Pool) -> None:
        """The same, but it is disabled only when the last one is gone."""
        if pool.enabled:
            asked = replace(
                pool.standing, state=PoolState.DRAINING, drain_requested_at=self._wall()
            )
            self._put(pool, asked)
            self._settled(pool)

    def reconcile(self, pool: Pool) -> None:
        """Do now what a pool does by itself in time: above all, try again after a failure."""
        pool.looked_at = self._wall()
        pool.stock.retry()

    def delete(self, pool: Pool) -> None:
        """End it with all its instances."""
        now = self._wall()
        self._rows.remove(pool.id)
        del self._pools[pool.id]
        self._deleted.add(pool)
        pool.stand(replace(pool.standing, state=PoolState.DELETED, updated_at=now, deleted_at=now))
        self._settled(pool)

    # --- For creates ---------------------------------------------------------------------------------

    async def checkout(self, wanted: Create, gone: Callable[[], bool]) -> Checkout:
        """What this create gets. A place in it is the caller's: hand it on before awaiting anything.

        ``gone`` says whether nobody waits for the sandbox any more. Raises `ApiError`
        (warm_pool_unavailable).
        """
        asked = wanted.warm_pool
        if asked is None:
            return COLD
        pool = self._pools.get(asked.id or "")
        mode = asked.mode or (pool.standing.definition.checkout_policy if pool else "prefer")
        if mode == "bypass":
            return checked_out(wanted, mode, None)
        place, why = None, _obstacle(wanted, pool)
        if why is None:
            assert pool is not None
            place = await pool.stock.claim((asked.wait_ms or 0) / 1000, gone)
        if place is None and (mode == "require" or gone()):
            raise why or unavailable()
        return checked_out(wanted, mode, place)

    # --- Within --------------------------------------------------------------------------------------

    def _check_room(self, definition: Definition, instead_of: Pool | None) -> None:
        """Raises `ApiError` (quota_exceeded). Disabled pools count, so that enabling always works."""
        others = (pool for pool in self._pools.values() if pool is not instead_of)
        taken = sum(pool.standing.definition.max_ready for pool in others)
        if taken + definition.max_ready > MOST_READY:
            raise ApiError(
                QUOTA_EXCEEDED,
                f"max_ready: all warm pools together can have {MOST_READY} instances at most.",
                {"field": "max_ready", "limit": MOST_READY, "left": MOST_READY - taken},
            )

    def _add(self, standing: Standing) -> Pool:
        stock = Stock(
            self._places,
            bench=self._bench,
            scope=self._scope,
            clock=asyncio.get_running_loop().time,
            log=self._log,
            changed=lambda: self._settled(pool),
        )
        pool = self._pools[standing.id] = Pool(standing, stock)
        return pool

    def _put(self, pool: Pool, standing: Standing) -> None:
        standing = replace(standing, updated_at=self._wall())
        self._rows.put(standing)
        pool.stand(standing)

    def _disable(self, pool: Pool) -> None:
        self._put(pool, self._disabled(pool))

    def _disabled(self, pool: Pool) -> Standing:
        return replace(pool.standing, state=PoolState.DISABLED, disabled_at=self._wall())

    def _settled(self, pool: Pool) -> None:
        """Nothing of its stock is under way or being ended any more, as far as its callers know."""
        if pool.drained:
            try:
                self._disable(pool)
            except StoreError as e:
                # Nobody waits for an answer, and a restart would make the same of it.
                self._log("state_not_written", warm_pool=pool.id, error=str(e))
                pool.stand(self._disabled(pool))
        elif pool in self._deleted and not pool.stock.ending:
            self._deleted.remove(pool)


def unavailable(reason: str = "no_ready_instance", fields: Sequence[str] = ()) -> ApiError:
    """409 ``warm_pool_unavailable``. The message names the fields, too: many show nothing but that."""
    if not fields:
        return ApiError(WARM_POOL_UNAVAILABLE, details={"reason": reason})
    message = f"{_SAID[reason]} {', '.join(fields)}."
    return ApiError(WARM_POOL_UNAVAILABLE, message, {"reason": reason, "fields": [*fields]})


_SAID = {
    "not_poolable": "No warm pool has sandboxes with",
    "mismatch": "The warm pool's sandboxes differ in",
}


def refuse_unpoolable(wanted: Create) -> None:
    """A create that requires an instance and that no pool can have one for.

    Raises `ApiError` (warm_pool_unavailable).
    """
    pool = wanted.warm_pool
    if pool is not None and pool.mode == "require" and (fields := unpoolable(wanted)):
        raise unavailable("not_poolable", fields)


def _obstacle(wanted: Create, pool: Pool | None) -> ApiError | None:
    """Why no instance of this pool will do, now or later; None if one would."""
    if fields := unpoolable(wanted):
        return unavailable("not_poolable", fields)
    if pool is None or not pool.enabled:
        return unavailable()
    if fields := mismatches(wanted, pool.standing.definition):
        return unavailable("mismatch", fields)
    return None
