"""Routes: connections to apps, kept per port and incarnation, dialed with patience where it is due.

A `Route` is one port of one incarnation. It hands idle connections to exchanges; without one, the
exchange queues and the route dials. Dialing and queueing are apart: whichever connection comes free
first (a new one, or one just given back) serves whoever waits longest.

"Running" is not "listening": right after a resume, the first dial goes alone and is repeated in small
steps until the port accepts; only then come the rest. Refused connections carry no risk, because
nothing was sent.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from edge.core import errors
from edge.core.decision import Forward
from edge.core.errors import EdgeError, Problem
from edge.core.records import SandboxRecord
from edge.core.reports import Role
from edge.traffic.exchange import Exchange, Phase
from edge.traffic.upstream import UpstreamConnection

if TYPE_CHECKING:
    from edge.traffic.flow import Flow

_WHERE_NOBODY_ANSWERS = {
    errors.PREVIEW_SERVICE_NOT_READY: errors.EDGE_RUNTIME_HOST_UNREACHABLE,
    errors.APP_NOT_LISTENING: errors.SANDBOX_RESUME_TIMEOUT,
}
"""What is said instead, where it is not the port that refuses."""
_FIRST_STEP, _LONGEST_STEP = 0.005, 0.25
"""Seconds between two dials of a port that refused: short at first, because waking is a race."""


class Waiting(NamedTuple):
    """An exchange that waits for a connection: until when, and what it gets told if none comes."""

    exchange: Exchange
    horizon: float
    problem: Problem


class Route:
    """The connections to one port of one incarnation, and the exchanges that wait for one."""

    def __init__(self, flow: Flow, way: Forward) -> None:
        assert way.record.upstream is not None
        self._flow = flow
        self._record = way.record
        self._port = way.access.target.port
        self._address = way.record.upstream.address(self._port)
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self._queue: deque[Waiting] = deque()
        self._dialing = 0
        self._accepted = False
        self.retired = False
        self.buffer_bytes = flow.settings.limits.buffer_bytes

    def __repr__(self) -> str:
        return (
            f"<Route {self._record.id}#{self._record.incarnation} {self._address} "
            f"open={len(self._open)} idle={len(self._idle)} waiting={len(self._queue)}>"
        )

    @property
    def unused(self) -> bool:
        """Nothing here that anybody could miss."""
        return not (self._open or self._queue or self._dialing)

    def leads_to(self, record: SandboxRecord) -> bool:
        """Whether this is still the way to that incarnation's port: an address may change under it."""
        if self.retired or record.incarnation != self._record.incarnation:
            return False
        # A sandbox that is being paused may have no address for a moment, and go on at the old one.
        return record.upstream is None or record.upstream.address(self._port) == self._address

    def send(self, exchange: Exchange) -> None:
        """Give the exchange a connection, now or as soon as there is one."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.transport.is_closing():
                connection.exchange = exchange
                exchange.relay_through(connection)
                return
        exchange.phase = Phase.DIALING
        self._queue.append(self._patience(exchange))
        self._pump()

    def give(self, connection: UpstreamConnection) -> None:
        """A connection is free: the longest waiting exchange gets it, else it is kept for a while."""
        while self._queue:
            waiting = self._queue.popleft()
            if waiting.exchange.phase is Phase.DIALING:
                connection.exchange = waiting.exchange
                waiting.exchange.relay_through(connection)
                return
        if self.retired or len(self._idle) >= self._flow.settings.upstream.idle_per_route:
            self.forget(connection)
            connection.transport.close()
        else:
            connection.idle_since = self._flow.clock()
            self._idle.append(connection)

    def forget(self, connection: UpstreamConnection) -> None:
        """A connection is gone, or no longer a route's."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close_idle(self, before: float) -> None:
        """Close the connections idle since before that time."""
        for connection in [c for c in self._idle if c.idle_since < before]:
            self.forget(connection)
            connection.transport.close()

    def close_overdue(self, before: float) -> None:
        """The same, because ``deadlines.upstream_idle`` has passed for them."""
        kept = len(self._idle)
        self.close_idle(before)
        if closed := kept - len(self._idle):
            self._flow.passed["deadlines.upstream_idle"] += closed

    def retire(self) -> list[Exchange]:
        """This incarnation is over: keep nothing. The exchanges still waiting here."""
        self.retired = True
        self.close_idle(float("inf"))
        waiting = [entry.exchange for entry in self._queue]
        self._queue.clear()
        return [exchange for exchange in waiting if exchange.phase is Phase.DIALING]

    # --- dialing --------------------------------------------------------------------------------------

    def _patience(self, exchange: Exchange) -> Waiting:
        """How long a refusing port is retried (contract: wake)."""
        now, wake = self._flow.clock(), self._flow.settings.wake
        if _is_stranger(exchange):
            return Waiting(exchange, now, errors.PREVIEW_SERVICE_NOT_READY)
        if exchange.role is not Role.NONE:
            return Waiting(exchange, exchange.deadline, errors.APP_NOT_LISTENING)
        since = self._record.running_since
        # A control plane's clock may run ahead of ours: a negative age is a young one.
        age = wake.window if since is None else max(0.0, self._flow.wall() - since)
        if age < wake.window:
            return Waiting(exchange, now + wake.window - age, errors.APP_NOT_LISTENING)
        return Waiting(exchange, now + wake.refused_retry, errors.PREVIEW_SERVICE_NOT_READY)

    def _pump(self) -> None:
        """As many dials as there are exchanges waiting, within limits; one until the port has accepted."""
        limit = self._flow.settings.upstream.dials_per_route if self._accepted else 1
        while self._dialing < min(limit, len(self._queue)) and not self.retired:
            self._dialing += 1
            self._flow.spawn(self._dial(), name=f"dial {self._record.id}")

    async def _dial(self) -> None:
        """Connect, again and again while somebody has patience for it."""
        step, asked_anew = _FIRST_STEP, False
        try:
            while self._queue and not self.retired:
                outcome = await self._attempt()
                if outcome is None:
                    return
                self._accepted = False
                self._turn_strangers_away()
                if self._queue and not asked_anew:
                    # The route may be stale: the sandbox moved on and the news has not come yet.
                    asked_anew = True
                    if not await self._flow.still_true(self._record):
                        self._restart()
                        return
                self._give_up(outcome)
                # Whoever comes while nobody waits has not had anybody asked on its behalf.
                asked_anew = asked_anew and bool(self._queue)
                await asyncio.sleep(step * random.uniform(0.75, 1.25))
                step = min(step * 2, _LONGEST_STEP)
        finally:
            self._dialing -= 1
            self._pump()

    async def _attempt(self) -> str | None:
        """One attempt to connect; what went wrong, or None."""
        loop = asyncio.get_running_loop()
        outcome = None
        try:
            async with asyncio.timeout(self._flow.settings.deadlines.connect):
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self), *self._address
                )
        except TimeoutError:
            outcome = "timeout"
            self._flow.passed["deadlines.connect"] += 1
        except ConnectionRefusedError:
            outcome = "refused"
        except (OSError, ValueError):
            # ValueError (a UnicodeError, mostly): the record's host can be no name at all. It must end like
            # a host that does not answer; a dial that crashed would be begun again at once, for ever.
            outcome = "unreachable"
        self._flow.dialed(outcome or "connected")
        if outcome is None:
            self._accepted = True
            self._flow.liveness.probe(connection.transport.get_extra_info("socket"))
            self._open.add(connection)
            self._flow.listening(self._record.id)
            self.give(connection)
        return outcome

    def _give_up(self, outcome: str) -> None:
        """Refuse the exchanges whose patience has run out; drop those that left."""
        now = self._flow.clock()
        queue, self._queue = self._queue, deque()
        for waiting in queue:
            if waiting.exchange.phase is not Phase.DIALING:
                continue
            if now < waiting.horizon:
                self._queue.append(waiting)
                continue
            problem = waiting.problem
            if outcome != "refused":
                problem = _WHERE_NOBODY_ANSWERS.get(problem, problem)
            port = waiting.exchange.port
            # As it is for other ports, too.
            self._flow.unreachable(self._record.id, errors.PROBLEMS[problem.code])
            waiting.exchange.refuse(EdgeError(problem, {"port": port}))

    def _turn_strangers_away(self) -> None:
        """Nobody asks the control plane on their behalf, and no wake has failed because of them."""
        for waiting in [entry for entry in self._queue if _is_stranger(entry.exchange)]:
            self._queue.remove(waiting)
            if waiting.exchange.phase is Phase.DIALING:
                waiting.exchange.refuse(EdgeError(waiting.problem))

    def _restart(self) -> None:
        for exchange in self.retire():
            self._flow.start(exchange)


def _is_stranger(exchange: Exchange) -> bool:
    return exchange.access is not None and exchange.access.anonymous


class Routes:
    """All routes."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._routes: dict[tuple[str, int, int], Route] = {}
        self._by_sandbox: dict[str, set[tuple[str, int, int]]] = {}

    def send(self, exchange: Exchange, way: Forward) -> None:
        """Forward the exchange over a connection to its route."""
        record = way.record
        key = (record.id, record.incarnation, way.access.target.port)
        route = self._routes.get(key)
        if route is None or route.retired:
            route = self._routes[key] = Route(self._flow, way)
            self._by_sandbox.setdefault(record.id, set()).add(key)
        route.send(exchange)

    def retire(self, sandbox_id: str, keep: SandboxRecord | None = None) -> Iterable[Exchange]:
        """Forget every route of a sandbox that does not lead to ``keep``. The exchanges that waited there."""
        waiting: list[Exchange] = []
        for key in list(self._by_sandbox.get(sandbox_id, ())):
            if keep is None or not self._routes[key].leads_to(keep):
                waiting += self._routes[key].retire()
                self._drop(key)
        return waiting

    def sweep(self) -> None:
        """Close connections that have been idle for too long, forget routes that have none."""
        idle = self._flow.settings.deadlines.upstream_idle
        before = self._flow.clock() - idle
        for key, route in list(self._routes.items()):
            if idle:
                route.close_overdue(before)
            if route.unused:
                self._drop(key)

    def close(self) -> None:
        """Let go of every idle connection."""
        for route in self._routes.values():
            route.close_idle(float("inf"))

    def _drop(self, key: tuple[str, int, int]) -> None:
        del self._routes[key]
        keys = self._by_sandbox[key[0]]
        keys.discard(key)
        if not keys:
            del self._by_sandbox[key[0]]
