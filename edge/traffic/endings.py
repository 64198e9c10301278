"""Endings: what rests on a record ends when the record changes, here and now.

Records change by the watch, which the catalog tells at once, and unheard, while the watch is down: so
once a second what is under way is held against what is known, and what is in doubt is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from itertools import islice
from typing import Any

from edge.core import errors
from edge.core.decide import grant_problem
from edge.core.errors import Problem
from edge.core.records import GrantRecord, GrantStatus, Missing, Record, SandboxRecord, State
from edge.core.reports import End
from edge.state.port import Unavailable
from edge.traffic.exchange import Exchange, Phase
from edge.traffic.ledger import Ledger
from edge.traffic.routes import Routes
from edge.traffic.stalls import end_unread
from edge.wake.catalog import Catalog
from edge.wake.scope import Scope

_COMING_BACK = frozenset({State.RUNNING, State.PAUSING})
"""States in which exchanges under way may go on."""

_DOUBTS = 200
"""Records in doubt that a tick reads again at most: a control plane that is late is not flooded."""


class Endings:
    """Listens to the catalog. ``again`` decides anew about an exchange of which nothing was sent."""

    def __init__(
        self,
        catalog: Catalog,
        ledger: Ledger,
        routes: Routes,
        *,
        scope: Scope,
        again: Callable[[Exchange], None],
        wall: Callable[[], float],
    ) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._routes = routes
        self._scope = scope
        self._again = again
        self._wall = wall
        catalog.listen(self._record_changed)

    def _record_changed(self, record: Record) -> None:
        """A newer record: what rests on the old one ends here and now."""
        if isinstance(record, SandboxRecord):
            self._sandbox_changed(record)
        elif record.status is not GrantStatus.ACTIVE:
            now = self._wall()
            for exchange in self._ledger.active_in(record.sandbox_id):
                self._cut_without(record, exchange, now)

    def _sandbox_changed(self, record: SandboxRecord) -> None:
        going_on = record.state in _COMING_BACK
        waiting = self._routes.retire(record.id, keep=record if going_on else None)
        for exchange in self._ledger.active_in(record.id):
            way = exchange.way
            # Nothing of the others rests on the old incarnation: one that waits will be decided again.
            if exchange.phase not in (Phase.RELAYING, Phase.TUNNEL) or way is None:
                continue
            if not going_on or way.record.incarnation != record.incarnation:
                exchange.cut(End.SANDBOX_LEFT_RUNNING)
        for exchange in waiting:
            self._again(exchange)  # nothing was sent: it goes to the next incarnation
        if record.previews_disabled:
            for exchange in self._ledger.active_in(record.id):
                self._cut_for(exchange, End.PREVIEWS_DISABLED, errors.PREVIEW_SANDBOX_DISABLED)

    def _cut_without(self, grant: GrantRecord, exchange: Exchange, now: float) -> None:
        """End an exchange that rests on this grant, if the grant carries it no more."""
        access = exchange.access
        if access is not None and access.claims.grant == grant.id:
            problem = grant_problem(access, grant, now)
            if problem is not None:
                self._cut_for(exchange, End.GRANT_ENDED, problem)

    @staticmethod
    def _cut_for(exchange: Exchange, end: End, problem: Problem) -> None:
        # One that is parked is decided again before anything of it is sent.
        if exchange.phase is not Phase.PARKED:
            exchange.cut(end, problem)

    def tick(self) -> None:
        """Once a second: report the bytes of long exchanges, end what outlived its grant or its reader, tidy routes.

        What an exchange rests on may have changed unheard while the watch was down, and nobody asks
        about an open tunnel: so records in doubt are read again here, a bounded number at a time.
        """
        self._routes.sweep()
        now = self._wall()
        doubtful: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {}
        for exchange in self._ledger.active():
            access, way = exchange.access, exchange.way
            if access is None or way is None or access.anonymous:
                continue  # nothing is read again for a stranger
            # What an upgrade counts as is known when it is answered.
            if exchange.tunnel is not None:
                self._ledger.note(exchange, access)
            elif not exchange.head.websocket:
                self._ledger.note(exchange, access)
                end_unread(exchange)
            grant = self._catalog.grant(access.claims.grant)
            self._cut_without(grant if isinstance(grant, GrantRecord) else way.grant, exchange, now)
            if grant is Missing.UNKNOWN:
                doubtful[access.claims.grant] = self._catalog.look_up_grant
            if self._catalog.sandbox(access.claims.sub) is Missing.UNKNOWN:
                doubtful[access.claims.sub] = self._catalog.look_up_sandbox
        for record_id, look_up in islice(doubtful.items(), _DOUBTS):
            self._scope.spawn(self._look_again(look_up, record_id), name="look again")

    @staticmethod
    async def _look_again(look_up: Callable[[str], Coroutine[Any, Any, None]], key: str) -> None:
        try:
            await look_up(key)  # a newer record is told to `_record_changed`
        except Unavailable:
            pass  # the next tick asks again
