"""All pools: switching them, their limits, what creates get, and what a restart leaves."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from warehouse import Warehouse, create, definition, here, play

from edge.appliance.pools.definition import MOST_READY
from edge.appliance.pools.pool import Pool, PoolState
from edge.appliance.pools.pools import MOST_POOLS, refuse_unpoolable
from edge.appliance.problems import ApiError
from edge.appliance.requests import Create
from edge.appliance.store import Store, StoreError


async def _got(warehouse: Warehouse, wanted: Create) -> tuple[str | None, str]:
    checkout = await warehouse.pools.checkout(wanted, here)
    return checkout.place, str(checkout.view["source"])


async def _refused(warehouse: Warehouse, wanted: Create) -> dict[str, Any]:
    with pytest.raises(ApiError) as refused:
        await warehouse.pools.checkout(wanted, here)
    assert refused.value.problem.code == "warm_pool_unavailable"
    assert refused.value.problem.status == 409
    return dict(refused.value.details)


def test_prefer_require_bypass() -> None:
    """A ready instance; else cold or a refusal; bypass never takes one."""

    async def script(warehouse: Warehouse) -> None:
        pool = await warehouse.pool(2)
        place, source = await _got(warehouse, create(pool, "prefer"))
        assert place in warehouse.places.made and source == "ready_instance"
        assert await _got(warehouse, create(pool, "bypass")) == (None, "bypassed")
        place, source = await _got(warehouse, create(pool, "require"))
        assert place in warehouse.places.made and source == "ready_instance"
        assert await _got(warehouse, create(pool, "prefer")) == (None, "cold_create")
        assert await _refused(warehouse, create(pool, "require")) == {"reason": "no_ready_instance"}
        assert pool.stock.counts.claimed == 2
        assert await _got(warehouse, Create()) == (None, "cold_create")

    play(script)


@pytest.mark.parametrize("policy", ["prefer", "require", "bypass"])
def test_a_create_without_a_mode_follows_the_pool(policy: str) -> None:
    """Its ``checkout_policy``; an unknown pool has none, so it is prefer there."""

    async def script(warehouse: Warehouse) -> None:
        pool = await warehouse.pool(0, checkout_policy=policy)
        if policy == "require":
            await _refused(warehouse, create(pool, None))
        else:
            checkout = await warehouse.pools.checkout(create(pool, None), here)
            assert checkout.view["mode"] == policy
        assert await _got(warehouse, create("twp_unknown", None)) == (None, "cold_create")

    play(script)


def test_waiting_for_a_refill() -> None:
    """Both modes wait as long as they may, and get what is made meanwhile."""

    async def script(warehouse: Warehouse) -> None:
        warehouse.places.seconds["warm"] = 2.0
        pool = await warehouse.pool(0)
        for mode in ("prefer", "require"):
            place, _ = await _got(warehouse, create(pool, mode, wait_ms=3000))
            assert place is not None
        began = warehouse.loop.time()
        assert (await _got(warehouse, create(pool, wait_ms=500)))[0] is None
        assert warehouse.loop.time() == pytest.approx(began + 0.5)

    play(script)


@pytest.mark.parametrize("mode", ["prefer", "require"])
@pytest.mark.parametrize("why", ["unknown", "disabled", "draining", "deleted", "no_room"])
def test_nobody_waits_for_what_cannot_come(mode: str, why: str) -> None:
    """A pool that makes nothing is one without a ready instance, at once."""

    async def script(warehouse: Warehouse) -> None:
        pools = warehouse.pools
        if why == "no_room":
            pool = await warehouse.pool(0, 0)
        else:
            pool = await warehouse.pool(1)
            switch = {"disabled": pools.disable, "draining": pools.drain, "deleted": pools.delete}
            switch.get(why, lambda _: None)(pool)
        wanted = create("twp_unknown" if why == "unknown" else pool, mode, wait_ms=60_000)
        began = warehouse.loop.time()
        if mode == "require":
            assert (await _refused(warehouse, wanted))["reason"] == "no_ready_instance"
        else:
            assert await _got(warehouse, wanted) == (None, "cold_create")
        assert warehouse.loop.time() == began

    play(script)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"envs": {"A": "1"}}, {"reason": "not_poolable", "fields": ["envs"]}),
        ({"template": "x", "vcpus": 9}, {"reason": "mismatch", "fields": ["template", "vcpus"]}),
    ],
)
def test_what_does_not_fit_goes_cold_or_is_refused(
    said: dict[str, Any], why: dict[str, Any]
) -> None:
    """At once, and the ready instance stays for others."""

    async def script(warehouse: Warehouse) -> None:
        pool = await warehouse.pool(1)
        prefers = create(pool, "prefer", wait_ms=60_000, **said)
        assert await _got(warehouse, prefers) == (None, "cold_create")
        requires = create(pool, "require", wait_ms=60_000, **said)
        assert await _refused(warehouse, requires) == why
        assert pool.stock.ready == 1

    play(script)


def test_what_no_pool_could_serve_is_refused_first() -> None:
    """Whatever else is wrong with the create; only where it requires one."""
    refuse_unpoolable(create("p", "prefer", volumes=[{"ref": "v", "mount_path": "/workspace/v"}]))
    refuse_unpoolable(create("p", "require"))
    with pytest.raises(ApiError, match="warm_pool_unavailable"):
        refuse_unpoolable(
            create("p", "require", volumes=[{"ref": "v", "mount_path": "/workspace/v"}])
        )


def test_a_client_that_left_while_it_waited_gets_nothing() -> None:
    """No instance, and no cold sandbox either, which nobody would ever hear of."""

    async def script(warehouse: Warehouse) -> None:
        pool = await warehouse.pool(0, 1)
        with pytest.raises(ApiError):
            await warehouse.pools.checkout(create(pool, wait_ms=1000), lambda: True)
        await warehouse.pass_time(5.0)
        assert pool.stock.counts.claimed == 0 and len(warehouse.places.here) == pool.stock.ready

    play(script)


@pytest.mark.parametrize("mode", ["prefer", "require"])
def test_fifty_creates_and_three_instances(mode: str) -> None:
    """Each instance goes to one of them, the others get none."""

    async def script(warehouse: Warehouse) -> None:
        pool = await warehouse.pool(3, 3)
        made = set(warehouse.places.made)
        creates = [
            warehouse.pools.checkout(create(pool, mode, wait_ms=n % 2 * 50), here)
            for n in range(50)
        ]
        got = await asyncio.gather(*creates, return_exceptions=True)
        places = Counter(one.place for one in got if not isinstance(one, BaseException))
        cold = places.pop(None, 0) + sum(isinstance(one, ApiError) for one in got)
        assert set(places) == made and set(places.values()) == {1} and cold == 47

    play(script)


def test_switching() -> None:
    """Enable, disable, drain and reconcile; what is so already stays so, its times too."""

    async def script(warehouse: Warehouse) -> None:
        pools, pool = warehouse.pools, await warehouse.pool(2)

        def state() -> str:
            return str(pool.standing.state)

        enabled_at = pool.standing.enabled_at
        pools.enable(pool)
        assert pool.standing.enabled_at == enabled_at
        pools.drain(pool)
        assert state() == "draining" and pool.standing.drain_requested_at == warehouse.loop.time()
        pools.drain(pool)
        await warehouse.pass_time(5.0)
        assert state() == "disabled" and not warehouse.places.here
        disabled_at = pool.standing.disabled_at
        assert disabled_at is not None and disabled_at < warehouse.loop.time()
        pools.disable(pool)
        pools.drain(pool)
        assert (state(), pool.standing.disabled_at) == ("disabled", disabled_at)
        pools.enable(pool)
        await warehouse.pass_time(5.0)
        assert (state(), pool.stock.ready) == ("enabled", 2)
        pools.disable(pool)
        assert (state(), pool.stock.ready) == ("disabled", 0)
        warehouse.places.fail["warm"] = OSError("no")
        pools.enable(pool)
        await warehouse.pass_time(100.0)
        del warehouse.places.fail["warm"]
        pools.reconcile(pool)
        assert pool.looked_at == warehouse.loop.time()
        await warehouse.pass_time(1.0)
        assert pool.stock.ready == 2

    play(script)


def test_a_drain_that_is_taken_back() -> None:
    """Enabled again before the last one was gone: it stays enabled."""

    async def script(warehouse: Warehouse) -> None:
        pool = await warehouse.pool(2)
        warehouse.pools.drain(pool)
        warehouse.pools.enable(pool)
        await warehouse.pass_time(5.0)
        assert pool.enabled and pool.stock.ready == 2

    play(script)


def test_draining_an_empty_pool_is_done_at_once() -> None:
    """There is nothing to wait for."""

    async def script(warehouse: Warehouse) -> None:
        pool = await warehouse.pool(0)
        warehouse.pools.drain(pool)
        assert pool.standing.state is PoolState.DISABLED

    play(script)


def test_a_deleted_pool_is_gone_with_its_instances() -> None:
    """Whoever waits is told; what is under way is ended when it is there."""

    async def script(warehouse: Warehouse) -> None:
        warehouse.places.seconds["warm"] = 1.0
        pool = await warehouse.pool(1)
        await _got(warehouse, create(pool))
        wait = asyncio.create_task(_got(warehouse, create(pool, wait_ms=60_000)))
        await warehouse.pass_time(0.3)
        assert pool.stock.warming
        warehouse.pools.delete(pool)
        assert await wait == (None, "cold_create")
        with pytest.raises(ApiError, match="warm_pool_not_found"):
            warehouse.pools.get(pool.id)
        assert warehouse.pools.all() == [] and str(pool.standing.state) == "deleted"
        await warehouse.pass_time(5.0)
        assert len(warehouse.places.here) == 1  # the one that was handed out

    play(script)


def test_a_pool_deleted_at_the_very_end_leaves_nothing() -> None:
    """Its instances are ended with the others although it is not listed any more."""

    async def script(warehouse: Warehouse) -> None:
        pool = await warehouse.pool(2)
        warehouse.pools.delete(pool)
        warehouse.pools.close()
        await warehouse.scope.close()
        assert warehouse.places.here
        await warehouse.pools.clear()
        assert not warehouse.places.here

    play(script)


def test_redefining() -> None:
    """A new generation only where other instances are needed."""

    async def script(warehouse: Warehouse) -> None:
        pool = await warehouse.pool(1)
        warehouse.pools.redefine(pool, definition(min_ready=2))
        assert pool.standing.generation == 1
        warehouse.pools.redefine(pool, definition(min_ready=2, resources={"vcpus": 1}))
        assert (pool.standing.generation, pool.stock.ready) == (2, 0)
        await warehouse.pass_time(5.0)
        assert await _got(warehouse, create(pool)) == (None, "cold_create")
        assert (await _got(warehouse, create(pool, vcpus=1)))[0] is not None

    play(script)


def test_what_cannot_be_written_has_not_happened() -> None:
    """Neither a pool nor a switch; only a drain comes to its end, because it would after a restart."""

    async def script(warehouse: Warehouse) -> None:
        pools, store = warehouse.pools, warehouse.store
        pool, drains = await warehouse.pool(1), await warehouse.pool(1)
        pools.drain(drains)
        before = pool.standing
        store.write("PRAGMA query_only = ON")
        for attempt in (
            lambda: pools.create(definition()),
            lambda: pools.redefine(pool, definition(name="other")),
            lambda: pools.disable(pool),
            lambda: pools.drain(pool),
            lambda: pools.delete(pool),
        ):
            with pytest.raises(StoreError):
                attempt()
        await warehouse.pass_time(5.0)
        assert pools.all() == [pool, drains] and pool.standing is before
        assert pool.stock.ready == 1
        assert str(drains.standing.state) == "disabled" and "state_not_written" in warehouse.logged
        store.write("PRAGMA query_only = OFF")

    play(script)


def test_limits() -> None:
    """Of pools, and of instances of all of them together; what there is can still be changed."""

    async def script(warehouse: Warehouse) -> None:
        pools = warehouse.pools
        first = pools.create(definition(min_ready=0, max_ready=MOST_READY - 1))
        second = pools.create(definition(min_ready=0, max_ready=1))
        pools.disable(second)
        for attempt in (
            lambda: pools.create(definition(min_ready=0, max_ready=1)),
            lambda: pools.redefine(second, definition(min_ready=0, max_ready=2)),
        ):
            with pytest.raises(ApiError, match="max_ready") as refused:
                attempt()
            assert refused.value.problem.code == "quota_exceeded"
            assert refused.value.problem.status == 409
        pools.redefine(first, definition(min_ready=0, max_ready=MOST_READY - 2))
        pools.redefine(second, definition(min_ready=0, max_ready=2))
        for _ in range(MOST_POOLS - 2):
            pools.create(definition(min_ready=0, max_ready=0))
        with pytest.raises(ApiError, match=f"{MOST_POOLS} warm pools"):
            pools.create(definition(min_ready=0, max_ready=0))

    play(script)


def test_pools_outlive_the_process_and_instances_do_not() -> None:
    """Enabled ones fill again, disabled ones stay so, what was draining is disabled, deleted is gone."""
    store = Store(None)
    names: dict[str, Pool] = {}

    async def before(warehouse: Warehouse) -> None:
        for name in ("on", "off", "drains", "gone"):
            names[name] = await warehouse.pool(2, name=name, labels={"l": name})
        warehouse.pools.disable(names["off"])
        warehouse.pools.drain(names["drains"])
        warehouse.pools.delete(names["gone"])
        warehouse.pools.redefine(names["on"], definition(name="on", min_ready=1, vcpus=2))

    async def after(warehouse: Warehouse) -> None:
        assert [pool.id for pool in warehouse.pools.all()] == [
            names[name].id for name in ("on", "off", "drains")
        ]
        assert not warehouse.places.here
        warehouse.pools.start()
        await warehouse.pass_time(5.0)
        on, off, drains = warehouse.pools.all()
        assert on.standing == names["on"].standing and on.stock.ready == 1
        assert off.standing == names["off"].standing and off.stock.ready == 0
        assert drains.standing.state is PoolState.DISABLED
        assert len(warehouse.places.here) == 1

    play(before, store)
    play(after, store)
    store.close()
