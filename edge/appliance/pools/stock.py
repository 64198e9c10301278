"""The instances of one pool: made in the background, handed out once, ended when nobody wants them.

Everything is decided in one place, `Stock._look`, which compares what is there with what should be and
is called after every change: so it does not matter in which order changes come. It awaits nothing, and
neither does handing out; an instance is in exactly one of ``_making``, ``_ready`` and ``_ending``, or it
belongs to whoever got it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from edge.appliance.pools.instance import NOTHING, Counts, Instance, Places, Size
from edge.appliance.pools.line import Line
from edge.appliance.runtime import NoSuchSandbox
from edge.appliance.sandboxes import new_id
from edge.appliance.tasks import Scope

AT_ONCE = 2
"""Instances of one pool under way at a time, so that a large pool does not keep a small one waiting."""

PATIENCE = 30.0
"""Seconds that making one may take."""

FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds until the next attempt after a failure; doubled with each one in a row."""

BREATH = 0.1
"""Seconds between handing one out and making the next: starting a process would hold up the very create
that is in a hurry, and its first command."""

_SPOILT = -1
"""In place of the batch of an instance under way that lost its supervisor."""


class Stock:
    """A stock, empty and to be kept so until `resize`.

    ``bench`` bounds what all stocks make at a time; ``clock`` is the loop's; ``changed`` is called when
    the last instance under way or being ended is done with.
    """

    def __init__(
        self,
        places: Places,
        *,
        bench: asyncio.Semaphore,
        scope: Scope,
        clock: Callable[[], float],
        log: Callable[..., None],
        changed: Callable[[], None],
    ) -> None:
        self._places = places
        self._bench = bench
        self._scope = scope
        self._clock = clock
        self._log = log
        self._changed = changed
        self._size = NOTHING
        self._batch = 0
        self._making: dict[str, int] = {}
        self._ready: dict[str, Instance] = {}
        self._ending: set[str] = set()
        self._line: Line[Instance] = Line()
        self._failures = 0
        self._next_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self.counts = Counts()

    def __repr__(self) -> str:
        return (
            f"<Stock {self.ready} ready, {self.warming} warming, {self.ending} ending, "
            f"{len(self._line)} waiting>"
        )

    @property
    def ready(self) -> int:
        """Instances that could be handed out now."""
        return len(self._ready)

    @property
    def warming(self) -> int:
        """Instances under way that will be wanted."""
        return sum(batch == self._batch for batch in self._making.values())

    @property
    def ending(self) -> int:
        """Instances that are to be gone, but are not yet."""
        return len(self._ending) + len(self._making) - self.warming

    @property
    def failing(self) -> bool:
        """Whether the newest attempt to make one failed."""
        return self._failures > 0

    # --- What it should be ---------------------------------------------------------------------------

    def resize(self, size: Size) -> None:
        """Hold this much from now on. Without room for any, whoever waits is told that nothing comes."""
        self._size = size
        if size.high == 0:
            self._renew()
        self._look()

    def renew(self) -> None:
        """Instances made so far will not do any more."""
        self._renew()
        self._look()

    def retry(self) -> None:
        """Look again now, also where the last attempt has failed."""
        self._next_at = 0.0
        self._look()

    def close(self) -> None:
        """Nothing is made or handed out any more; whoever waits is told so."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._line.dismiss()

    async def clear(self) -> None:
        """End every instance. After `close`, and when none of its tasks run any more."""
        places = [*self._ready, *self._making, *self._ending]
        await asyncio.gather(*(self._remove(place) for place in places))

    # --- Handing out ---------------------------------------------------------------------------------

    async def claim(self, wait: float, gone: Callable[[], bool]) -> str | None:
        """An instance's place, the caller's from now on; None if there is none within ``wait`` seconds.

        First come, first served. ``gone`` is asked before one is given: does the caller still wait?
        """
        if self._closed:
            return None
        self._look()
        if (instance := self._oldest()) is not None:
            # None was ready a moment ago if somebody waits, so nobody is overtaken.
            self._ready.pop(instance.place)
            self.counts.claimed += 1
            self._next_at = max(self._next_at, self._clock() + BREATH)
            self._look()
            return instance.place
        if wait <= 0 or self._size.high == 0:
            return None
        waiter = self._line.join(gone)
        self._look()
        instance = await self._line.wait(waiter, wait, self._unwanted)
        return None if instance is None else instance.place

    def _oldest(self) -> Instance | None:
        return min(self._ready.values(), key=lambda one: one.begun_at, default=None)

    def _unwanted(self, instance: Instance) -> None:
        """Whoever it was given to left before taking it. Nobody watched it meanwhile, so it goes."""
        self.counts.claimed -= 1
        if self._closed:
            self._ending.add(instance.place)
        else:
            self._end(instance.place)
            self._look()

    # --- Comparing what is there with what should be -------------------------------------------------

    def _look(self) -> None:
        if self._closed:
            return
        now = self._clock()
        for instance in list(self._ready.values()):
            due = instance.due(self._size)
            if due is not None and due <= now:
                self.counts.expired += 1
                self._end(instance.place)
        self._serve()
        while len(self._ready) > self._size.high and (surplus := self._oldest()) is not None:
            self._end(surplus.place)
        if now >= self._next_at:
            # One at a time after a failure: if it was no accident, the next one fails as well.
            at_once = 1 if self.failing else AT_ONCE
            while len(self._making) < at_once and self.warming < self._missing():
                self._begin()
        self._wind(now)

    def _missing(self) -> int:
        """How many more should be under way or ready."""
        return min(self._size.high, self._size.low + len(self._line)) - len(self._ready)

    def _serve(self) -> None:
        if self._size.high == 0:
            self._line.dismiss()
        while self._line and (instance := self._oldest()) is not None:
            if self._line.serve(instance):
                self._ready.pop(instance.place)
                self.counts.claimed += 1

    def _wind(self, now: float) -> None:
        """Look again when the next thing is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        times = [due for one in self._ready.values() if (due := one.due(self._size)) is not None]
        if self._next_at > now and self.warming < self._missing():
            times.append(self._next_at)
        if times:
            self._timer = asyncio.get_running_loop().call_at(min(times), self._look)

    def _renew(self) -> None:
        self._batch += 1
        self._failures, self._next_at = 0, 0.0
        for place in list(self._ready):
            self._end(place)

    # --- Making and ending ---------------------------------------------------------------------------

    def _begin(self) -> None:
        place = new_id()
        self._making[place] = self._batch
        self._scope.spawn(self._make(place, self._batch), name=f"warm {place}")

    async def _make(self, place: str, batch: int) -> None:
        async with self._bench:
            # It may have become needless while others were made.
            tried = batch == self._batch
            instance = await self._try(place) if tried else None
        if self._closed:
            return  # Among those under way `clear` finds it.
        wanted, spoilt = batch == self._batch, self._making.pop(place) == _SPOILT
        if instance is not None and wanted and not spoilt:
            self._failures, self._next_at = 0, 0.0
            self._ready[place] = instance
        elif instance is not None:
            self._end(place)
        if tried and wanted and (instance is None or spoilt):
            self.counts.failed += 1
            self._back_off()
        self._settled()

    async def _try(self, place: str) -> Instance | None:
        """An instance; None if it could not be made, and then nothing is left of it."""
        begun_at = self._clock()
        try:
            async with asyncio.timeout(PATIENCE):
                await self._places.create(place, envs={}, cwd=None)
                await self._places.warm(place, partial(self._cooled, place))
        except Exception as e:  # noqa: BLE001 - whatever it was, it is tried again later
            self._log("warm_pool_instance_failed", sandbox=place, error=repr(e))
            await self._remove(place)
            return None
        return Instance(place, begun_at, self._clock())

    def _back_off(self) -> None:
        delay = min(FIRST_DELAY * 2**self._failures, LONGEST_DELAY)
        self._failures += 1
        self._next_at = self._clock() + delay

    def _cooled(self, place: str) -> None:
        """Its supervisor is gone. One that was handed out, or is being ended, is no concern of ours."""
        if self._closed:
            return
        if place in self._making:
            self._making[place] = _SPOILT
        elif place in self._ready:
            self.counts.lost += 1
            self._log("warm_pool_instance_lost", sandbox=place)
            self._end(place)
            # Else something that kills supervisors would keep us busy making new ones.
            self._back_off()
            self._look()

    def _end(self, place: str) -> None:
        self._ready.pop(place, None)
        self._ending.add(place)
        self._scope.spawn(self._finish(place), name=f"end {place}")

    async def _finish(self, place: str) -> None:
        await self._remove(place)
        if not self._closed:
            self._ending.discard(place)
            self._settled()

    async def _remove(self, place: str) -> None:
        try:
            await self._places.destroy(place)
        except NoSuchSandbox:
            pass
        except Exception as e:  # noqa: BLE001 - it cannot be undone, only told
            self._log("destroy_incomplete", sandbox=place, error=repr(e))

    def _settled(self) -> None:
        self._look()
        if not self._making and not self._ending:
            self._changed()
