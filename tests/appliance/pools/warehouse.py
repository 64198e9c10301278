"""Places without processes, in virtual time: what making and ending does is up to the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from virtual import VirtualLoop, run

from edge.appliance.pools.definition import Definition
from edge.appliance.pools.pool import Pool
from edge.appliance.pools.pools import Pools
from edge.appliance.pools.stock import Stock
from edge.appliance.requests import Create
from edge.appliance.runtime import NoSuchSandbox
from edge.appliance.store import Store
from edge.appliance.tasks import Scope


class Places:
    """A runtime that fails when told to; ``here`` are the places there are, with their callbacks."""

    def __init__(self) -> None:
        self.here: dict[str, Callable[[], None]] = {}
        self.made: list[str] = []
        self.begun: list[float] = []
        self.seconds = {"create": 0.0, "warm": 0.1, "destroy": 0.1}
        self.fail: dict[str, Exception] = {}
        self.busy = 0
        self.busiest = 0

    async def _do(self, what: str) -> None:
        await asyncio.sleep(self.seconds[what])
        if what in self.fail:
            raise self.fail[what]

    async def create(self, sandbox_id: str, *, envs: dict[str, str], cwd: str | None) -> None:
        assert not envs and cwd is None and sandbox_id not in self.here
        self.begun.append(asyncio.get_running_loop().time())
        self.here[sandbox_id] = lambda: None
        await self._do("create")

    async def warm(self, sandbox_id: str, cooled: Callable[[], None]) -> None:
        self.here[sandbox_id] = cooled
        self.busy += 1
        self.busiest = max(self.busiest, self.busy)
        try:
            await self._do("warm")
        finally:
            self.busy -= 1
        self.made.append(sandbox_id)

    async def destroy(self, sandbox_id: str) -> None:
        if sandbox_id not in self.here:
            raise NoSuchSandbox("none")
        await self._do("destroy")
        # A supervisor's end is always told.
        self.here.pop(sandbox_id)()

    def cool(self, sandbox_id: str) -> None:
        """The supervisor dies by itself."""
        self.here[sandbox_id]()


class Warehouse:
    """Everything around the pools, and the pools."""

    def __init__(self, loop: VirtualLoop, store: Store | None = None) -> None:
        self.loop = loop
        self.places = Places()
        self.crashes: list[BaseException] = []
        self.logged: list[str] = []
        self.changed = 0
        self.scope = Scope(lambda _, error: self.crashes.append(error))
        self.stocks: list[Stock] = []
        self.store = store or Store(None)
        self.pools = Pools(self.places, self.store, scope=self.scope, wall=loop.time, log=self._log)

    def _log(self, event: str, **_: object) -> None:
        self.logged.append(event)

    def stock(self, bench: asyncio.Semaphore | None = None) -> Stock:
        """A stock of its own."""

        def changed() -> None:
            self.changed += 1

        stock = Stock(
            self.places,
            bench=bench or asyncio.Semaphore(4),
            scope=self.scope,
            clock=self.loop.time,
            log=self._log,
            changed=changed,
        )
        self.stocks.append(stock)
        return stock

    async def pool(self, low: int = 1, high: int = 4, **more: Any) -> Pool:
        """A pool, full."""
        made = self.pools.create(definition(min_ready=low, max_ready=high, **more))
        await self.pass_time(5.0)
        assert made.stock.ready == low
        return made

    async def pass_time(self, seconds: float) -> None:
        """Whatever is due in that time happens."""
        await asyncio.sleep(seconds)


def definition(**more: Any) -> Definition:
    """A definition of the default resources."""
    said = {"template_ref": "base", "name": "n", "min_ready": 1, "max_ready": 4}
    return Definition.model_validate(said | more)


def create(pool: Pool | str, mode: str | None = "prefer", wait_ms: int = 0, **more: Any) -> Create:
    """A create that names a pool."""
    name = pool if isinstance(pool, str) else pool.id
    asked = {"id": name, "mode": mode, "wait_ms": wait_ms}
    return Create.model_validate({"warm_pool": asked} | more)


def here() -> bool:
    """The client still waits."""
    return False


def play(
    script: Callable[[Warehouse], Coroutine[Any, Any, None]], store: Store | None = None
) -> None:
    """Run a script in virtual time; nothing of a pool may be left at the end."""

    async def main(loop: VirtualLoop) -> None:
        warehouse = Warehouse(loop, store)
        await script(warehouse)
        warehouse.pools.close()
        for stock in warehouse.stocks:
            stock.close()
        await warehouse.scope.close()
        await warehouse.pools.clear()
        for stock in warehouse.stocks:
            await stock.clear()
        assert not warehouse.crashes
        if store is None:
            warehouse.store.close()

    run(main)
