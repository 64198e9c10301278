"""Stocks in virtual time: kept at size, handed out once, and nothing is left behind."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from warehouse import Warehouse, here, play

from edge.appliance.pools.instance import NOTHING, Size
from edge.appliance.pools.stock import AT_ONCE, BREATH, PATIENCE, Stock


async def _full(warehouse: Warehouse, size: Size) -> Stock:
    stock = warehouse.stock()
    stock.resize(size)
    await warehouse.pass_time(5.0)
    assert stock.ready == size.low
    return stock


def test_it_is_filled_and_refilled() -> None:
    """As many as are wanted, a few at a time; what is handed out is made anew, not given twice."""

    async def script(warehouse: Warehouse) -> None:
        stock = warehouse.stock()
        stock.resize(Size(5, 9))
        assert (stock.ready, stock.warming) == (0, AT_ONCE)
        await warehouse.pass_time(5.0)
        assert (stock.ready, stock.warming) == (5, 0)
        assert warehouse.places.busiest == AT_ONCE
        claimed = {await stock.claim(0, here) for _ in range(5)}
        assert claimed == set(warehouse.places.made) and len(claimed) == 5
        assert await stock.claim(0, here) is None
        await warehouse.pass_time(5.0)
        assert stock.ready == 5 and len(set(warehouse.places.made)) == 10
        assert stock.counts.claimed == 5
        assert "5 ready, 0 warming, 0 ending, 0 waiting" in repr(stock)

    play(script)


def test_the_oldest_goes_first() -> None:
    """So that none grows stale while younger ones go."""

    async def script(warehouse: Warehouse) -> None:
        stock = await _full(warehouse, Size(3, 3))
        made = list(warehouse.places.made)
        assert [await stock.claim(0, here) for _ in range(3)] == made

    play(script)


def test_a_refill_does_not_hold_up_who_was_served() -> None:
    """The next one is begun a moment after one was handed out."""

    async def script(warehouse: Warehouse) -> None:
        stock = await _full(warehouse, Size(1, 1))
        now = warehouse.loop.time()
        assert await stock.claim(0, here)
        assert stock.warming == 0
        await warehouse.pass_time(5.0)
        assert stock.ready == 1
        assert warehouse.places.begun[-1] == pytest.approx(now + BREATH)

    play(script)


def test_all_stocks_together_make_a_few_at_a_time() -> None:
    """Two stocks at one bench share it."""

    async def script(warehouse: Warehouse) -> None:
        bench = asyncio.Semaphore(3)
        for stock in (warehouse.stock(bench), warehouse.stock(bench)):
            stock.resize(Size(6, 6))
        await warehouse.pass_time(5.0)
        assert [stock.ready for stock in warehouse.stocks] == [6, 6]
        assert warehouse.places.busiest == 3

    play(script)


def test_waiters_are_served_in_order_and_may_fill_it_to_the_brim() -> None:
    """Who waits makes it make more than usual, but no more than there may be."""

    async def script(warehouse: Warehouse) -> None:
        stock = await _full(warehouse, Size(0, 2))
        order: list[int] = []

        async def wait(number: int) -> str | None:
            place = await stock.claim(60, here)
            order.append(number)
            return place

        waits = [asyncio.create_task(wait(number)) for number in range(5)]
        await asyncio.sleep(0)
        assert stock.warming == 2
        places = await asyncio.gather(*waits)
        assert order == [0, 1, 2, 3, 4] and len(set(places)) == 5 and None not in places
        await warehouse.pass_time(5.0)
        assert (stock.ready, stock.counts.claimed) == (0, 5)

    play(script)


def test_a_wait_ends() -> None:
    """At its time with nothing; and what comes for nobody is kept."""

    async def script(warehouse: Warehouse) -> None:
        warehouse.places.seconds["warm"] = 3.0
        stock = await _full(warehouse, Size(0, 2))
        began = warehouse.loop.time()
        assert await stock.claim(1.0, here) is None
        assert warehouse.loop.time() == pytest.approx(began + 1.0)
        await warehouse.pass_time(5.0)
        assert (stock.ready, stock.counts.claimed) == (1, 0)
        assert await stock.claim(0, here) is not None

    play(script)


def test_who_leaves_leaves_nothing_behind() -> None:
    """Neither when it waits nor when it has just been given one: that is ended, and made anew."""

    async def script(warehouse: Warehouse) -> None:
        stock = await _full(warehouse, Size(0, 1))
        early = asyncio.create_task(stock.claim(60, here))
        await asyncio.sleep(0)
        early.cancel()

        def asked() -> bool:
            # It is about to be given one; before it can take it, it is cancelled.
            warehouse.loop.call_soon(late.cancel)
            return False

        late = asyncio.create_task(stock.claim(60, asked))
        results = await asyncio.gather(early, late, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert (stock.counts.claimed, stock.ending) == (0, 1)
        await warehouse.pass_time(5.0)
        assert not warehouse.places.here and len(warehouse.places.made) == 1

    play(script)


def test_a_client_that_is_gone_gets_none() -> None:
    """What it would have been given goes to the next one."""

    async def script(warehouse: Warehouse) -> None:
        stock = await _full(warehouse, Size(0, 1))
        gone = asyncio.create_task(stock.claim(60, lambda: True))
        stays = asyncio.create_task(stock.claim(60, here))
        assert await gone is None and await stays is not None
        assert stock.counts.claimed == 1

    play(script)


def test_failures_are_retried_ever_more_slowly() -> None:
    """One at a time, 1, 2, 4 ... 60 seconds apart; nothing is left of them; a success forgets them."""

    async def script(warehouse: Warehouse) -> None:
        places = warehouse.places
        places.fail["warm"] = OSError("no")
        stock = warehouse.stock()
        stock.resize(Size(1, 2))
        await warehouse.pass_time(400.0)
        gaps = [b - a for a, b in zip(places.begun, places.begun[1:], strict=False)]
        assert [round(gap) for gap in gaps[:8]] == [1, 2, 4, 8, 16, 32, 60, 60]
        assert stock.failing and stock.counts.failed == len(places.begun)
        assert not places.here and "warm_pool_instance_failed" in warehouse.logged
        del places.fail["warm"]
        stock.retry()
        await warehouse.pass_time(1.0)
        assert (stock.ready, stock.failing) == (1, False)

    play(script)


def test_after_a_failure_only_one_is_tried() -> None:
    """Several would fail as well."""

    async def script(warehouse: Warehouse) -> None:
        warehouse.places.fail["create"] = OSError("no")
        warehouse.stock().resize(Size(5, 5))
        await warehouse.pass_time(100.0)
        first, *later = sorted(Counter(map(round, warehouse.places.begun)).values(), reverse=True)
        assert first == AT_ONCE and len(later) > 4 and set(later) == {1}

    play(script)


@pytest.mark.parametrize("what", ["create", "warm"])
def test_making_one_is_bounded(what: str) -> None:
    """What hangs is given up and counted as a failure."""

    async def script(warehouse: Warehouse) -> None:
        warehouse.places.seconds[what] = 1e9
        stock = warehouse.stock()
        stock.resize(Size(1, 1))
        await warehouse.pass_time(PATIENCE + 0.5)
        assert stock.counts.failed == 1 and not warehouse.places.here

    play(script)


@pytest.mark.parametrize("size", [Size(2, 2, idle=10.0), Size(2, 2, stale=10.0)])
def test_old_ones_are_ended_and_made_anew(size: Size) -> None:
    """For having waited, or for their age."""

    async def script(warehouse: Warehouse) -> None:
        stock = await _full(warehouse, size)
        old = set(warehouse.places.here)
        await warehouse.pass_time(6.0)
        assert stock.counts.expired == 2 and stock.ready == 2
        assert not old & set(warehouse.places.here)

    play(script)


def test_one_that_is_due_is_not_handed_out() -> None:
    """Also when the timer has not rung yet."""

    async def script(warehouse: Warehouse) -> None:
        stock = await _full(warehouse, Size(1, 1, idle=100.0))
        assert stock._timer is not None
        stock._timer.cancel()
        await warehouse.pass_time(200.0)
        assert await stock.claim(0, here) is None and stock.counts.expired == 1

    play(script)


def test_one_that_lost_its_supervisor_is_replaced() -> None:
    """After a moment, so that a killer does not keep us busy; one handed out is not our concern."""

    async def script(warehouse: Warehouse) -> None:
        stock = await _full(warehouse, Size(1, 1))
        (place,) = warehouse.places.here
        warehouse.places.cool(place)
        assert (stock.ready, stock.counts.lost) == (0, 1) and stock.failing
        assert await stock.claim(0, here) is None
        await warehouse.pass_time(5.0)
        assert stock.ready == 1 and not stock.failing
        claimed = await stock.claim(0, here)
        assert claimed is not None
        warehouse.places.cool(claimed)
        assert stock.counts.lost == 1 and claimed in warehouse.places.here

    play(script)


def test_one_that_dies_while_it_is_made_is_a_failure() -> None:
    """Its supervisor answered, and was gone before anybody looked."""

    async def script(warehouse: Warehouse) -> None:
        places = warehouse.places
        stock = warehouse.stock()
        stock.resize(Size(1, 1))
        await asyncio.sleep(0.05)
        (place,) = places.here
        places.cool(place)
        await warehouse.pass_time(0.5)
        assert (stock.ready, stock.counts.failed) == (0, 1) and place not in places.here
        await warehouse.pass_time(5.0)
        assert stock.ready == 1

    play(script)


def test_less_room_ends_what_is_too_much() -> None:
    """The oldest ones; down to the most there may be, not to the least."""

    async def script(warehouse: Warehouse) -> None:
        stock = await _full(warehouse, Size(4, 4))
        stock.resize(Size(1, 3))
        await warehouse.pass_time(1.0)
        assert stock.ready == 3 and set(warehouse.places.here) == set(warehouse.places.made[1:])

    play(script)


def test_nothing_means_nothing() -> None:
    """What is ready and under way is ended, who waits is told, and then ``changed`` is called."""

    async def script(warehouse: Warehouse) -> None:
        stock = await _full(warehouse, Size(1, 2))
        await stock.claim(0, here)
        waits = [asyncio.create_task(stock.claim(60, here)) for _ in range(3)]
        await warehouse.pass_time(0.15)
        assert stock.warming
        changed = warehouse.changed
        stock.resize(NOTHING)
        assert (stock.ready, stock.warming) == (0, 0) and stock.ending
        assert warehouse.changed == changed
        assert None in await asyncio.gather(*waits)
        await warehouse.pass_time(1.0)
        assert stock.ending == 0 and warehouse.changed == changed + 1
        assert len(warehouse.places.here) == stock.counts.claimed
        assert await stock.claim(60, here) is None

    play(script)


def test_renewed_ones_replace_the_old() -> None:
    """Also those under way, which are not handed out once they are there."""

    async def script(warehouse: Warehouse) -> None:
        stock = await _full(warehouse, Size(2, 2))
        await stock.claim(0, here)
        await warehouse.pass_time(0.15)
        old = set(warehouse.places.here)
        assert stock.warming == 1
        stock.renew()
        assert stock.ready == 0
        await warehouse.pass_time(5.0)
        assert stock.ready == 2
        assert len(old & set(warehouse.places.here)) == 1  # the one that was handed out

    play(script)


def test_what_cannot_be_ended_is_logged() -> None:
    """And does not stop anything else."""

    async def script(warehouse: Warehouse) -> None:
        stock = await _full(warehouse, Size(1, 1))
        warehouse.places.fail["destroy"] = OSError("no")
        stock.renew()
        await warehouse.pass_time(5.0)
        assert warehouse.logged == ["destroy_incomplete"]
        assert (stock.ready, stock.ending) == (1, 0)
        del warehouse.places.fail["destroy"]

    play(script)


def test_one_that_is_handed_back_at_the_very_end_is_ended() -> None:
    """Given, then everything is closed, and its waiter is cancelled before it could take it."""

    async def script(warehouse: Warehouse) -> None:
        stock = await _full(warehouse, Size(0, 1))

        def asked() -> bool:
            warehouse.loop.call_soon(stock.close)
            warehouse.loop.call_soon(wait.cancel)
            return False

        wait = asyncio.create_task(stock.claim(60, asked))
        with pytest.raises(asyncio.CancelledError):
            await wait
        await warehouse.scope.close()
        assert warehouse.places.here
        await stock.clear()
        assert not warehouse.places.here

    play(script)


def test_after_its_end_there_is_nothing() -> None:
    """Ready, under way, being ended: all is gone, who waits is told, nothing more is handed out."""

    async def script(warehouse: Warehouse) -> None:
        warehouse.places.seconds |= {"warm": 1.0, "destroy": 1.0}
        stock = await _full(warehouse, Size(3, 6))
        stock.resize(Size(3, 5, idle=4.0))
        waits = [asyncio.create_task(stock.claim(60, here)) for _ in range(6)]
        await warehouse.pass_time(0.5)
        assert stock.warming and stock.ending
        stock.close()
        assert await stock.claim(60, here) is None
        claimed = {place for place in await asyncio.gather(*waits) if place}
        await warehouse.scope.close()
        await stock.clear()
        assert set(warehouse.places.here) == claimed

    play(script)
