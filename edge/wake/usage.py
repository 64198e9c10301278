"""Usage: what every grant's traffic amounts to, counted here and handed to the control plane.

Delivery is at least once: a batch is repeated, unchanged and under its own sequence number, until it
is acknowledged, and the control plane counts a repeat once. What happens meanwhile is merged per
sandbox and grant, so that memory is bounded by their number and not by the length of an outage.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from edge.state.port import StatePort, Unavailable, Usage, UsageBatch

INTERVAL = 1.0
"""Seconds between batches at least."""

LONGEST_RETRY = 10.0
"""Seconds between attempts to deliver one batch at most."""

MAX_ITEMS = 1000
"""Items of a batch. Common servers refuse bodies over 1 MB; an item has about 300 bytes."""

MAX_PAIRS = 100_000
"""Pairs of sandbox and grant counted at once; beyond, the pair waiting longest is given up."""


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
    ) -> None:
        self._port = port
        self._edge_id = edge_id
        self._clock = clock
        self._wall = wall
        self._jitter = jitter
        self._sequence = int(wall() * 1000)
        self._open: dict[tuple[str, str], _Tally] = {}
        self._unacknowledged: UsageBatch | None = None
        self._something = asyncio.Event()
        self.given_up = 0
        """Pairs whose counts were lost because there were more than `MAX_PAIRS`."""

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

    def waiting(self) -> int:
        """Pairs of sandbox and grant with counts that are not acknowledged."""
        batch = self._unacknowledged
        return len(self._open) + (len(batch.items) if batch is not None else 0)

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
        if batch is None:
            return
        await self._port.report(batch)
        self._unacknowledged = None
        if not self._open:
            self._something.clear()

    def _take(self) -> UsageBatch | None:
        """The batch to be sent: the one that may not have arrived, else a new one of what is open."""
        if self._unacknowledged is None and self._open:
            taken = list(islice(self._open, MAX_ITEMS))
            items = tuple(_usage(pair, self._open.pop(pair)) for pair in taken)
            self._unacknowledged = UsageBatch(self._edge_id, self._sequence, items)
            self._sequence += 1
        return self._unacknowledged

    def _begin(self, pair: tuple[str, str]) -> _Tally:
        if len(self._open) >= MAX_PAIRS:
            del self._open[next(iter(self._open))]
            self.given_up += 1
        tally = self._open[pair] = _Tally()
        self._something.set()
        return tally


def _usage(pair: tuple[str, str], tally: _Tally) -> Usage:
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
