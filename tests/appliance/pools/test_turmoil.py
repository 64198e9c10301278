"""Hundreds of histories of creates, leavers, switches, failures and deaths: the books always balance."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter

import pytest
from virtual import VirtualLoop, run
from warehouse import Warehouse, create, definition

from edge.appliance.pools.pool import Pool
from edge.appliance.problems import ApiError

SEEDS = int(os.environ.get("POOL_MODEL_SEEDS", "150"))
"""Histories."""

STEPS = 60


class History:
    """One history, made up from its seed."""

    def __init__(self, loop: VirtualLoop, seed: int) -> None:
        self.random = random.Random(seed)
        self.warehouse = Warehouse(loop)
        self.places = self.warehouse.places
        self.claimed: Counter[str] = Counter()
        self.waits: list[asyncio.Task[None]] = []
        self.ever: list[Pool] = []
        self.seen: Counter[str] = Counter()

    def alive(self) -> list[Pool]:
        """The pools there are."""
        return self.warehouse.pools.all()

    async def one_create(self, pool: Pool) -> None:
        """A create by somebody who may have left, or be cancelled."""
        wait = self.random.choice([0, 0, 100, 1000, 20_000])
        mode = self.random.choice(["prefer", "require"])
        gone = self.random.random() < 0.1
        try:
            wanted = create(pool, mode, wait_ms=wait)
            checkout = await self.warehouse.pools.checkout(wanted, lambda: gone)
        except ApiError:
            self.seen["refused"] += 1
            return
        if checkout.place is not None:
            self.claimed[checkout.place] += 1
        self.seen["hit" if checkout.place else "cold"] += 1

    def step(self) -> None:
        """Something happens."""
        dice, pools = self.random, self.warehouse.pools
        pool = dice.choice(self.alive()) if self.alive() else None
        low = dice.randrange(4)
        said = definition(
            min_ready=low,
            max_ready=low + dice.randrange(3),
            idle_timeout_seconds=dice.choice([None, 5, 50]),
            stale_after_seconds=dice.choice([None, 7]),
        )
        what = dice.choice(
            "create create create burst leave leave define redefine renew enable enable disable drain "
            "delete fail heal slow cool".split()
        )
        if what == "define" and len(self.alive()) < 4:
            self.ever.append(pools.create(said))
        elif what == "fail":
            self.places.fail[dice.choice(["create", "warm"])] = OSError("no")
        elif what == "heal":
            self.places.fail.clear()
        elif what == "slow":
            self.places.seconds["warm"] = dice.choice([0.0, 0.1, 5.0, 1000.0])
            self.places.seconds["destroy"] = dice.choice([0.0, 0.1, 5.0])
        elif what == "cool" and self.places.here:
            self.places.cool(dice.choice(list(self.places.here)))
        elif what == "leave" and self.waits:
            dice.choice(self.waits).cancel()
        elif pool is not None:
            self._to(pool, what)

    def _to(self, pool: Pool, what: str) -> None:
        pools = self.warehouse.pools
        match what:
            case "create" | "burst":
                for _ in range(1 if what == "create" else 8):
                    self.waits.append(asyncio.create_task(self.one_create(pool)))
            case "redefine":
                old = pool.standing.definition
                more = {"min_ready": self.random.randrange(old.max_ready + 1)}
                pools.redefine(pool, old.model_copy(update=more))
            case "renew":
                pool.stock.renew()
            case "enable" | "disable" | "drain" | "delete":
                getattr(pools, what)(pool)

    def counted(self) -> int:
        """How many the pools say they have handed out."""
        return sum(pool.stock.counts.claimed for pool in self.ever)

    async def taken(self) -> None:
        """Whoever was given one just now takes it, or hands it back, in its next turns."""
        for _ in range(20):
            await asyncio.sleep(0)
            if self.counted() == self.claimed.total():
                return

    def check(self) -> None:
        """Every place has one owner; no more are ready than there may be; nobody got one twice."""
        owners: Counter[str] = Counter(self.claimed)
        for pool in self.ever:
            stock = pool.stock
            owners.update([*stock._ready, *stock._making, *stock._ending])
            size = stock._size
            assert stock.ready <= size.high and len(stock._making) <= 2
            assert pool.enabled or not stock.ready
            assert not (stock.ready and len(stock._line)), "somebody waits beside a ready one"
        assert all(count == 1 for count in owners.values()), owners
        assert self.counted() == self.claimed.total()
        assert set(self.places.here) <= set(owners), "a place that is nobody's"

    async def play(self) -> None:
        """Turmoil, then peace, then the end."""
        for _ in range(STEPS):
            self.step()
            await asyncio.sleep(self.random.choice([0, 0, 0.01, 0.5, 3.0]))
            await self.taken()
            self.check()
        self.places.fail.clear()
        self.places.seconds = dict.fromkeys(self.places.seconds, 0.01)
        await asyncio.sleep(2000.0)
        assert all(wait.done() for wait in self.waits)
        await self.taken()
        self.check()
        self._at_peace()
        await self._end()

    def _at_peace(self) -> None:
        mine = set(self.claimed)
        for pool in self.ever:
            stock, wanted = pool.stock, pool.standing.definition
            assert str(pool.standing.state) != "draining"
            assert not stock.ending or wanted.idle_timeout_seconds or wanted.stale_after_seconds
            if pool.enabled and not stock.warming:
                assert stock.ready >= wanted.min_ready
            mine |= {*stock._ready, *stock._making, *stock._ending}
        assert set(self.places.here) <= mine

    async def _end(self) -> None:
        pools, scope = self.warehouse.pools, self.warehouse.scope
        self.places.seconds = dict.fromkeys(self.places.seconds, 5.0)
        for pool in self.alive():
            pool.stock.renew()
            self.waits.append(asyncio.create_task(self.one_create(pool)))
        await asyncio.sleep(self.random.random())
        pools.close()
        await scope.close()
        await asyncio.gather(*self.waits, return_exceptions=True)
        await pools.clear()
        assert set(self.places.here) == set(self.claimed), "something was left behind"
        assert not self.warehouse.crashes, self.warehouse.crashes
        self.warehouse.store.close()


@pytest.mark.parametrize("part", range(3))
def test_the_books_balance(part: int) -> None:
    """In every history, after every step, in peace afterwards, and at the end."""
    seen: Counter[str] = Counter()

    def history(seed: int) -> None:
        async def main(loop: VirtualLoop) -> None:
            played = History(loop, seed)
            await played.play()
            seen.update(played.seen)

        run(main)

    for seed in range(part, SEEDS, 3):
        history(seed)
    assert min(seen["hit"], seen["cold"], seen["refused"]) > SEEDS / 3, seen
