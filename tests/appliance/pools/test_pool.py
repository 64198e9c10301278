"""One pool: what its state means for its stock, and how it is called."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from warehouse import Warehouse, definition, here, play

from edge.appliance.pools.pool import Pool, PoolState, PoolStatus, Standing


def _pool(warehouse: Warehouse, low: int = 2) -> Pool:
    said = definition(min_ready=low, max_ready=4)
    return Pool(Standing("twp_1", said, PoolState.DISABLED, 0, 0), warehouse.stock())


def test_the_state_decides_what_is_kept() -> None:
    """Enabled: at least so many; otherwise none; draining until the last one is gone."""

    async def script(warehouse: Warehouse) -> None:
        pool = _pool(warehouse)
        pool.stand(pool.standing)
        assert (pool.target, pool.status, pool.stock.warming) == (0, PoolStatus.DISABLED, 0)
        pool.stand(replace(pool.standing, state=PoolState.ENABLED))
        assert (pool.target, pool.status, pool.degraded_reason) == (2, PoolStatus.WARMING, None)
        await warehouse.pass_time(5.0)
        assert (pool.stock.ready, pool.status) == (2, PoolStatus.READY)
        pool.stand(replace(pool.standing, state=PoolState.DRAINING))
        assert (pool.stock.ready, pool.stock.ending, pool.drained) == (0, 2, False)
        assert (pool.status, pool.degraded_reason) == (PoolStatus.DRAINING, "drain_active")
        await warehouse.pass_time(5.0)
        assert pool.drained

    play(script)


def test_failures_show() -> None:
    """In the published word for it."""

    async def script(warehouse: Warehouse) -> None:
        pool = _pool(warehouse)
        warehouse.places.fail["warm"] = OSError("no")
        pool.stand(replace(pool.standing, state=PoolState.ENABLED))
        await warehouse.pass_time(5.0)
        assert pool.status is PoolStatus.DEGRADED
        assert pool.degraded_reason == "artifact_prewarm_failed"

    play(script)


def test_other_resources_need_other_instances() -> None:
    """Other numbers and names do not."""

    async def script(warehouse: Warehouse) -> None:
        pool = _pool(warehouse)
        pool.stand(replace(pool.standing, state=PoolState.ENABLED))
        await warehouse.pass_time(5.0)
        old = set(warehouse.places.here)
        pool.stand(replace(pool.standing, definition=definition(min_ready=2, name="other")))
        assert pool.stock.ready == 2
        pool.stand(replace(pool.standing, definition=definition(min_ready=2, template_ref="x")))
        assert pool.stock.ready == 0
        await warehouse.pass_time(5.0)
        assert pool.stock.ready == 2 and not old & set(warehouse.places.here)

    play(script)


def test_times_to_live_are_in_the_size() -> None:
    """A definition with times to live has its idle places expire; one without has none."""

    async def script(warehouse: Warehouse) -> None:
        pool = _pool(warehouse)
        said = definition(min_ready=2, idle_timeout_seconds=60, stale_after_seconds=90)
        pool.stand(replace(pool.standing, definition=said, state=PoolState.ENABLED))
        await warehouse.pass_time(61.0)
        assert pool.stock.counts.expired == 2
        pool.stand(replace(pool.standing, definition=definition(min_ready=1, max_ready=4)))
        await warehouse.pass_time(1000.0)
        assert pool.stock.counts.expired == 2
        assert await asyncio.wait_for(pool.stock.claim(0, here), 1)

    play(script)
