"""START HERE. The flow of one request, from its head to its end, in the order things happen.

::

    Flow.start(exchange)
        decide  ->  Forward   send it over a connection to the upstream          (no task, no await)
                    Refuse    answer it with an error
                    Verify    check one signature, then decide again              (no task, no await)
                    Learn     ask for newer keys; park it while they are fetched, then decide again
                    LookUp    park it, ask the control plane, then decide again
                    Wake      park it, wake the sandbox, then decide again

There is one path, not a fast one and a slow one that could drift apart: a request that had to wait is
decided again from the beginning, with what is known then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from edge.core import errors
from edge.core.credentials import Keys, verify
from edge.core.decide import decide
from edge.core.decision import Asked, Forward, Learn, Refuse, Verify
from edge.core.errors import Problem
from edge.core.records import SandboxRecord, State
from edge.core.reports import Observer
from edge.core.settings import Settings
from edge.core.token_cache import TokenCache
from edge.state.port import Unavailable
from edge.traffic.continuation import Continuation
from edge.traffic.endings import Endings
from edge.traffic.equipment import Equipment
from edge.traffic.exchange import Exchange
from edge.traffic.knowledge import Knowledge
from edge.traffic.ledger import Ledger
from edge.traffic.liveness import Liveness
from edge.traffic.needs import Needs
from edge.traffic.proxies import Proxies
from edge.traffic.routes import Routes
from edge.wake.admission import Admission
from edge.wake.catalog import Catalog
from edge.wake.scope import Scope
from edge.wake.usage import UsageReporter
from edge.wake.wakes import Wakes


class Flow:
    """Decides about exchanges, sends them on their way, and hears when they are over."""

    def __init__(
        self,
        settings: Settings,
        *,
        keys: Callable[[], Keys],
        hint: Callable[[], asyncio.Event | None],
        tokens: TokenCache,
        catalog: Catalog,
        wakes: Wakes,
        admission: Admission,
        usage: UsageReporter,
        observer: Observer,
        scope: Scope,
        wall: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.settings = settings
        self.admission = admission
        self.wall = wall
        self.clock = clock
        self.draining = False
        self.passed: Counter[str] = Counter()  # deadlines that have passed, by their setting
        self.liveness = Liveness(settings.tcp)
        self._catalog = catalog
        self._wakes = wakes
        self._proxies = Proxies(settings.trusted_proxies, settings.public_scheme.encode())
        self._knowledge = Knowledge(
            settings, keys=keys, tokens=tokens, catalog=catalog, admission=admission
        )
        equipment = Equipment(settings, keys=keys, tokens=tokens, proxies=self._proxies, wall=wall)
        self._routes = Routes(self)
        self._ledger = Ledger(admission, usage, observer, wall=wall, clock=clock)
        self._needs = Needs(
            catalog=catalog, wakes=wakes, admission=admission, hint=hint,
            scope=scope, clock=clock, again=self.start,
        )  # fmt: skip
        endings = Endings(
            catalog, self._ledger, self._routes, scope=scope, again=self.start, wall=wall
        )
        # What is asked of `decide` for most requests; by whether the exchange is admitted.
        name = Continuation.name(settings.public_scheme.encode())
        self._asked_plainly = (Asked(name, b"", False), Asked(name, b"", True))
        # Whoever has a flow asks it; its parts answer.
        self.new_request_id = equipment.new_request_id
        self.request_head = equipment.request_head
        self.request_relay = equipment.request_relay
        self.answer_relay = equipment.answer_relay
        self.active = self._ledger.active
        self.tunneled = self._ledger.tunneled
        self.refused_unread = self._ledger.refused_unread
        self.waiting = self._needs.waiting
        self.is_waking = self._needs.is_waking
        self.tick = endings.tick
        self.spawn = scope.spawn
        self.dialed = observer.dialed
        self.close = self._routes.close

    # --- The one path ---------------------------------------------------------------------------------

    def start(self, exchange: Exchange) -> None:
        """Decide what happens to an exchange, and make it happen."""
        while True:
            decision = decide(exchange.head, self._asked(exchange), self._knowledge, self.wall())
            match decision:
                case Forward():
                    self._forward(exchange, decision)
                case Refuse(error, access):
                    exchange.access = access
                    exchange.refuse(error)
                case Verify():
                    if self._verify(exchange, decision):
                        continue
                case Learn():
                    self._needs.learn(exchange, decision)
                case need:
                    self._needs.park(exchange, need)
            return

    def _asked(self, exchange: Exchange) -> Asked:
        section = exchange.head.section
        if not (section.forwarded or section.websocket):
            return self._asked_plainly[exchange.admitted]
        scheme = self._proxies.peer_of(exchange.client.address, exchange.head).scheme
        origin = scheme + b"://" + section.host if section.websocket else b""
        return Asked(Continuation.name(scheme), origin, exchange.admitted)

    def _forward(self, exchange: Exchange, way: Forward) -> None:
        exchange.way, exchange.access = way, way.access
        if not exchange.admitted and not self._ledger.enter(exchange, way):
            exchange.refuse(errors.overloaded(self.admission.full))
            return
        self._routes.send(exchange, way)

    def _verify(self, exchange: Exchange, need: Verify) -> bool:
        """Check a signature, if this visitor's address has not sent too many bad ones lately."""
        address = self._proxies.visitor_of(exchange.client.address, exchange.head)
        if not self.admission.signature_allowed(address):
            exchange.refuse(errors.overloaded("tokens.failures_per_minute"))
            return False
        genuine = verify(need.token, need.peeked)
        claims = need.peeked.claims if genuine else None
        self._knowledge.tokens.remember(need.family, need.token, claims)
        if not genuine:
            self.admission.signature_failed(address)
        return True

    # --- What exchanges report ------------------------------------------------------------------------

    def dispatched(self, exchange: Exchange) -> None:
        """The first byte of a request that took part in a wake was written to the upstream."""
        wake = self._wakes.current(exchange.sandbox_id)
        if wake is not None:
            wake.dispatched(self.clock())

    def answered(self, exchange: Exchange) -> None:
        """The final head of the answer to a request that took part in a wake came."""
        wake = self._wakes.current(exchange.sandbox_id)
        if wake is not None:
            wake.first_byte(self.clock())

    def over(self, exchange: Exchange) -> None:
        """The exchange is over, whatever became of it."""
        self._needs.forget(exchange)
        self._ledger.over(exchange)

    # --- What routes ask for and report ---------------------------------------------------------------

    def listening(self, sandbox_id: str) -> None:
        """A port of this sandbox accepted."""
        wake = self._wakes.current(sandbox_id)
        if wake is not None:
            wake.listening(self.clock())

    def unreachable(self, sandbox_id: str, problem: Problem) -> None:
        """An exchange waited in vain for a port of this sandbox to accept: ``problem`` is what it was told."""
        wake = self._wakes.current(sandbox_id)
        if wake is not None and wake.over.is_set():
            wake.failed(problem)

    async def still_true(self, record: SandboxRecord) -> bool:
        """Ask the control plane anew: does the sandbox still run where it was dialed?"""
        try:
            await self._catalog.look_up_sandbox(record.id)
        except Unavailable:
            return True  # nothing better is known
        known = self._catalog.sandbox(record.id)
        return (
            isinstance(known, SandboxRecord)
            and known.state is State.RUNNING
            and known.incarnation == record.incarnation
            and known.upstream == record.upstream
        )
