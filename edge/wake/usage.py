"""Usage: what every grant's traffic amounts to, counted here and handed to the control plane.

Delivery is at least once: a batch is repeated, unchanged and under its own sequence number, until it
is acknowledged, and the control plane counts a repeat once. What happens meanwhile is merged per
sandbox and grant, so that memory is bounded by their number and not by the length of an outage.

With a `Spool`, what cannot be delivered is on disk as well, from the first failure on and anew with each: an edge
that is killed during an outage loses what it counted since then (`LONGEST_RETRY` and a half), one that is killed
while all is well what it counted since the latest report.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from edge.state.port import StatePort, Unavailable, Usage, UsageBatch
from edge.wake.spool import Spool

INTERVAL = 1.0
"""Seconds between batches at least."""

LONGEST_RETRY = 10.0
"""Seconds between attempts to deliver one batch at most."""

MAX_ITEMS = 1000
"""Items of a batch. Common servers refuse bodies over 1 MB; an item has about 300 bytes."""

MAX_PAIRS = 100_000
"""Pairs of sandbox and grant counted at once; beyond, the pair waiting longest is given up."""

MAX_BATCHES = 1000
"""Batches that earlier processes have left, of `MAX_ITEMS` each at most; beyond, the oldest is given up."""

Pair = tuple[str, str]
T = TypeVar("T")


@dataclass(slots=True)
class _Tally:
    requests: int = 0
    websockets: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    error: str | None = None
    error_at: float | None = None


class UsageReporter:
    """Counts on the hot path, reports in `run`.

    ``clock`` is monotonic and ``wall`` Unix time, both in seconds. The first sequence number is the
    start time in milliseconds: numbers grow by at most one a second, so that an edge restarted under
    its old name always continues above the numbers it has used (a wall clock set back breaks that).
    """

    def __init__(
        self,
        port: StatePort,
        *,
        edge_id: str,
        clock: Callable[[], float],
        wall: Callable[[], float],
        jitter: Callable[[], float] = random.random,
        spool: Spool | None = None,
        tell: Callable[..., None] | None = None,
    ) -> None:
        self._port = port
        self._edge_id = edge_id
        self._clock = clock
        self._wall = wall
        self._jitter = jitter
        self._sequence = int(wall() * 1000)
        self._open: dict[Pair, _Tally] = {}
        self._unacknowledged: deque[UsageBatch] = deque()
        self._spool = spool
        self._spooled = False  # whether there may be a file
        self._tell = tell
        self._something = asyncio.Event()
        self.given_up = 0
        """Pairs whose counts were lost because there were more than `MAX_PAIRS`, or too many old batches."""

    def note(
        self,
        sandbox_id: str,
        grant_id: str,
        *,
        requests: int = 0,
        websockets: int = 0,
        bytes_in: int = 0,
        bytes_out: int = 0,
        error: str | None = None,
    ) -> None:
        """Add to what one grant has used. ``error`` is a code of the error table."""
        tally = self._open.get((sandbox_id, grant_id)) or self._begin((sandbox_id, grant_id))
        tally.requests += requests
        tally.websockets += websockets
        tally.bytes_in += bytes_in
        tally.bytes_out += bytes_out
        if error is not None:
            tally.error = error
            tally.error_at = self._wall()

    async def run(self) -> None:
        """Report until cancelled. What is not acknowledged by then, `flush` can still try to send."""
        if self._spool is not None:
            self._take_over(await self._in_thread(self._spool.take_over))
        while True:
            await self._something.wait()
            started = self._clock()
            await self._deliver()
            await asyncio.sleep(max(0.0, started + INTERVAL - self._clock()))

    async def flush(self) -> None:
        """Send everything there is, each batch tried once; for the end of a drain, after `run`.

        Raises `Unavailable` when a batch does not arrive; what is left is kept.
        """
        while self.waiting():
            await self._send()
        await self._forget()

    def close(self) -> None:
        """Let go of the spool's file."""
        if self._spool is not None:
            self._spool.close()

    def waiting(self) -> int:
        """Pairs of sandbox and grant with counts that are not acknowledged."""
        return len(self._open) + sum(len(batch.items) for batch in self._unacknowledged)

    async def keep(self) -> bool:
        """Write what is not acknowledged to the disk. Whether it is there; without a spool it never is."""
        if self._spool is None:
            return False
        spool, self._spooled = self._spool, True
        # Copies that cost little; the rest is for the thread. What is counted meanwhile may be in them or not.
        batches, pairs = list(self._unacknowledged), list(self._open.items())
        open_ = _numbered(self._edge_id, self._sequence, pairs)
        return await self._in_thread(lambda: spool.write([*batches, *open_]))

    async def _in_thread(self, work: Callable[[], T]) -> T:
        done = await asyncio.to_thread(work)
        while self._spool is not None and self._spool.troubles:
            event, fields = self._spool.troubles.popleft()
            if self._tell is not None:
                self._tell(event, **fields)
        return done

    def _take_over(self, batches: list[UsageBatch]) -> None:
        self._spooled = self._spooled or bool(batches)
        self._unacknowledged.extendleft(reversed(batches))
        while len(self._unacknowledged) > MAX_BATCHES:
            self.given_up += len(self._unacknowledged.popleft().items)
        if self._unacknowledged:
            self._something.set()

    async def _deliver(self) -> None:
        delay = INTERVAL
        while True:
            try:
                return await self._send()
            except Unavailable:
                await asyncio.sleep(delay * (1.0 + 0.5 * self._jitter()))
                delay = min(delay * 2.0, LONGEST_RETRY)

    async def _send(self) -> None:
        batch = self._take()
        try:
            await self._port.report(batch)
        except Unavailable:
            await self.keep()
            raise
        self._unacknowledged.popleft()
        if not self._open and not self._unacknowledged:
            self._something.clear()
            await self._forget()

    async def _forget(self) -> None:
        """Nothing is left that would have to be on the disk."""
        spool = self._spool
        if spool is not None and self._spooled:
            self._spooled = not await self._in_thread(lambda: spool.write(()))

    def _take(self) -> UsageBatch:
        """The batch to be sent: the oldest that may not have arrived, else a new one of what is open.

        There is one: `run` is told when something is counted, and `flush` looks.
        """
        if not self._unacknowledged:
            taken = list(islice(self._open, MAX_ITEMS))
            pairs = [(pair, self._open.pop(pair)) for pair in taken]
            self._unacknowledged.extend(_numbered(self._edge_id, self._sequence, pairs))
            self._sequence += 1
        return self._unacknowledged[0]

    def _begin(self, pair: Pair) -> _Tally:
        if len(self._open) >= MAX_PAIRS:
            del self._open[next(iter(self._open))]
            self.given_up += 1
        tally = self._open[pair] = _Tally()
        self._something.set()
        return tally


def _numbered(
    edge_id: str, sequence: int, pairs: Iterable[tuple[Pair, _Tally]]
) -> Iterator[UsageBatch]:
    """Batches with the numbers that come next.

    On disk as well: what is sent later under the same number, with more in it, counts in place of what is there.
    """
    rest = iter(pairs)
    while items := tuple(_usage(pair, tally) for pair, tally in islice(rest, MAX_ITEMS)):
        yield UsageBatch(edge_id, sequence, items)
        sequence += 1


def _usage(pair: Pair, tally: _Tally) -> Usage:
    moved = tally.requests or tally.websockets or tally.bytes_in or tally.bytes_out
    return Usage(
        sandbox_id=pair[0],
        grant_id=pair[1],
        requests=tally.requests,
        websockets=tally.websockets,
        bytes_in=tally.bytes_in,
        bytes_out=tally.bytes_out,
        active=bool(moved),
        last_error_code=tally.error,
        last_error_at=tally.error_at,
    )
