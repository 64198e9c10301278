"""Needs: what has to be found out before an exchange can be decided, one at a time.

An exchange that needs something is parked; a task settles the need, and then it is decided again from
the beginning, with what is known then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edge.core import errors
from edge.core.decision import Learn, LookUp, Wake
from edge.core.errors import EdgeError, Problem
from edge.core.head import Head
from edge.core.records import State
from edge.core.redact import redact_encoded
from edge.core.reports import Role
from edge.state.port import Unavailable
from edge.traffic.exchange import Exchange, Phase
from edge.wake.admission import Admission
from edge.wake.catalog import Catalog
from edge.wake.scope import Scope
from edge.wake.wakes import Wakes

LEARNERS = 256
"""Exchanges that may wait for newer keys at once. Anybody can name an unknown key, so there is an end."""
LEARN_PATIENCE = 6.0
"""Seconds they wait at most: a little more than one download of the keys may take."""
_LOOKED_AT, _DESCRIBED = 4096, 200
"""Characters of a path that are searched for tokens, and of a request that are told with its wake."""


class Needs:
    """Exchanges that are parked. ``again`` decides about one anew; ``hint`` asks for newer keys."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        wakes: Wakes,
        admission: Admission,
        hint: Callable[[], asyncio.Event | None],
        scope: Scope,
        clock: Callable[[], float],
        again: Callable[[Exchange], None],
    ) -> None:
        self._catalog = catalog
        self._wakes = wakes
        self._admission = admission
        self._hint = hint
        self._scope = scope
        self._clock = clock
        self._again = again
        self._learning: set[Exchange] = set()
        self._waking: set[Exchange] = set()

    def waiting(self) -> list[Exchange]:
        """Every exchange that waits for a sandbox to wake."""
        return list(self._waking)

    def is_waking(self, exchange: Exchange) -> bool:
        """Whether the exchange waits for a sandbox to wake."""
        return exchange in self._waking

    def forget(self, exchange: Exchange) -> None:
        """The exchange is over."""
        if exchange in self._waking:
            self._stop_waiting(exchange)
        if exchange.learned:
            self._learning.discard(exchange)

    def learn(self, exchange: Exchange, need: Learn) -> None:
        """Ask for newer keys, once an exchange, and wait for those that are fetched now.

        Nobody is held for a fetch that is not under way: the ration of fetches is used up by strangers
        as easily as by a rotation, and what a stranger may hold is one connection for one fetch.
        """
        coming = None if exchange.learned else self._hint()
        if coming is None or len(self._learning) >= LEARNERS:
            exchange.refuse(EdgeError(need.names.invalid))
            return
        exchange.phase, exchange.learned = Phase.PARKED, True
        self._learning.add(exchange)
        exchange.task = self._scope.spawn(self._learned(exchange, coming), name="learn")

    async def _learned(self, exchange: Exchange, coming: asyncio.Event) -> None:
        began = self._clock()
        try:
            async with asyncio.timeout(LEARN_PATIENCE):
                await coming.wait()
        except TimeoutError:
            pass  # decided with the keys there are
        exchange.waited += self._clock() - began
        exchange.task = None
        self._learning.discard(exchange)
        if exchange.phase is Phase.PARKED:
            self._again(exchange)

    def park(self, exchange: Exchange, need: LookUp | Wake) -> None:
        """Let the exchange wait until its need is settled."""
        exchange.phase, exchange.access = Phase.PARKED, need.access
        if isinstance(need, Wake):
            if exchange.client.half_closed:
                exchange.abandon()  # nobody is woken for a client that has left
                return
            if not self._admission.park(need.record.id, need.access.claims.grant):
                exchange.refuse(errors.overloaded(self._admission.full))
                return
            self._waking.add(exchange)
        exchange.task = self._scope.spawn(self._settle(exchange, need), name="settle")

    async def _settle(self, exchange: Exchange, need: LookUp | Wake) -> None:
        """Settle one need of one exchange, then decide about it again."""
        began = self._clock()
        error = None
        try:
            if began >= exchange.deadline:
                # Look-ups that took the whole window, or records that flap faster than we look.
                error = EdgeError(_late(need))
            elif isinstance(need, Wake):
                await self._wake(exchange, need)
            else:
                # A look-up has a time of its own, which is nothing to an exchange that has less left.
                async with asyncio.timeout(exchange.deadline - began):
                    await self._look_up(need)
        except (Unavailable, TimeoutError):
            error = EdgeError(errors.CONTROL_PLANE_UNAVAILABLE)
        except EdgeError as refusal:
            error = refusal
        exchange.waited += self._clock() - began
        exchange.task = None
        if exchange.phase is not Phase.PARKED:
            return
        if error is not None:
            exchange.refuse(error)
        else:
            self._again(exchange)

    async def _look_up(self, need: LookUp) -> None:
        if need.grant_id:
            await self._catalog.look_up_grant(need.grant_id)
        else:
            await self._catalog.look_up_sandbox(need.sandbox_id)

    async def _wake(self, exchange: Exchange, need: Wake) -> None:
        try:
            role = await self._wakes.settle(
                need.record,
                grant_id=need.access.claims.grant,
                woken_by=_described(exchange.head),
                deadline=exchange.deadline,
            )
        finally:
            self._stop_waiting(exchange)
        if exchange.role is not Role.LEADER:
            exchange.role = role if role is not Role.NONE else Role.FOLLOWER

    def _stop_waiting(self, exchange: Exchange) -> None:
        if exchange in self._waking and exchange.access is not None:
            self._waking.discard(exchange)
            claims = exchange.access.claims
            self._admission.unpark(claims.sub, claims.grant)


def _late(need: LookUp | Wake) -> Problem:
    creating = isinstance(need, Wake) and need.record.state is State.CREATING
    return errors.SANDBOX_NOT_READY if creating else errors.SANDBOX_RESUME_TIMEOUT


def _described(head: Head) -> str:
    path = head.path[:_LOOKED_AT].decode("latin-1")
    # Cut last: what is cut in the middle of a token is not recognised as one.
    return redact_encoded(f"{head.method.decode()} {path}")[:_DESCRIBED]
