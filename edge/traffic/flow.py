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
import os
import time
from collections.abc import Callable, Coroutine, Iterator
from itertools import islice
from typing import Any

from edge.core import errors, outbound
from edge.core.answer import Answer, AnswerScanner
from edge.core.credentials import Expectation, Family, Keys, TokenCache, verify
from edge.core.decide import (
    Access,
    Asked,
    Forward,
    Learn,
    LookUp,
    Passage,
    Refuse,
    Verify,
    Wake,
    decide,
    grant_problem,
)
from edge.core.errors import EdgeError, Problem
from edge.core.fields import FieldReader
from edge.core.head import Head, RequestScanner
from edge.core.records import GrantRecord, GrantStatus, Missing, SandboxRecord, State
from edge.core.redact import redact_text
from edge.core.reports import End, ExchangeReport, Observer, Role
from edge.core.settings import Settings
from edge.core.target import Target, target_reader
from edge.state.port import Unavailable
from edge.traffic.continuation import Continuation
from edge.traffic.exchange import Exchange, Phase
from edge.traffic.relay import AnswerRelay, RequestRelay
from edge.traffic.upstream import Upstreams
from edge.wake.admission import Admission
from edge.wake.catalog import Catalog
from edge.wake.scope import Scope
from edge.wake.usage import UsageReporter
from edge.wake.wakes import Wakes

_COMING_BACK = frozenset({State.RUNNING, State.PAUSING})
"""States in which exchanges under way may go on."""


LEARNERS = 256
"""Exchanges that may wait for newer keys at once. Anybody can name an unknown key, so there is an end."""
LEARN_PATIENCE = 6.0
"""Seconds they wait at most: a little more than one download of the keys may take."""


_DOUBTS = 200
"""Records in doubt that a tick reads again at most: a control plane that is late is not flooded."""


class Knowledge:
    """The `View` that `decide` reads: everything the edge knows, none of it asked for on the spot."""

    def __init__(
        self,
        settings: Settings,
        *,
        keys: Callable[[], Keys],
        tokens: TokenCache,
        catalog: Catalog,
        admission: Admission,
    ) -> None:
        self._keys = keys
        self.tokens = tokens
        self.expect = Expectation(
            settings.tokens.issuer, settings.public_hostname, settings.tokens.max_bytes
        )
        self.websocket_cookie = settings.websocket_continuation == "same_origin"
        self.target: Callable[[bytes], Target | EdgeError] = target_reader(settings.public_hostname)
        self.sandbox: Callable[[str], SandboxRecord | Missing] = catalog.sandbox
        self.grant: Callable[[str], GrantRecord | Missing] = catalog.grant
        self.has_room: Callable[[str], bool] = admission.has_room

    @property
    def keys(self) -> Keys:
        """The keys believed at this moment."""
        return self._keys()


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
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        limits = settings.limits
        self.settings = settings
        self.admission = admission
        self.wall = wall
        self.clock = clock
        self.draining = False
        self.public_scheme = settings.public_scheme.encode()
        self.scanner = RequestScanner(max_fields=limits.header_count, max_line=limits.request_line)
        self._answers = AnswerScanner(max_fields=limits.header_count)
        self._trailer_fields = FieldReader.for_requests()
        self._knowledge = Knowledge(
            settings, keys=keys, tokens=tokens, catalog=catalog, admission=admission
        )
        self._continuation = Continuation(keys, wall)
        self._cookie_name = self._continuation.name(self.public_scheme)
        # What is asked of `decide` for most requests; by whether the exchange is admitted.
        self._asked_plainly = (
            Asked(self._cookie_name, b"", False),
            Asked(self._cookie_name, b"", True),
        )
        self._catalog = catalog
        self._wakes = wakes
        self._usage = usage
        self._observer = observer
        self._scope = scope
        self._upstreams = Upstreams(self)
        self._hint = hint
        self._learning: set[Exchange] = set()
        self._waking: set[Exchange] = set()
        self._active: dict[str, set[Exchange]] = {}
        self._id_prefix = os.urandom(6).hex().encode() + b"-"
        self._id_count = 0
        catalog.listen(self._record_changed)

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
                    self._learn(exchange, decision)
                case need:
                    self._park(exchange, need)
            return

    def _asked(self, exchange: Exchange) -> Asked:
        section = exchange.head.section
        if not (section.forwarded or section.websocket):
            return self._asked_plainly[exchange.admitted]
        scheme = exchange.client.peer_of(exchange.head).scheme
        origin = scheme + b"://" + section.host if section.websocket else b""
        return Asked(self._continuation.name(scheme), origin, exchange.admitted)

    def _forward(self, exchange: Exchange, way: Forward) -> None:
        record = way.record
        exchange.way, exchange.access = way, way.access
        if not exchange.admitted:
            if not self.admission.enter(record.id, way.grant.id):
                exchange.refuse(errors.overloaded(self.admission.full))
                return
            exchange.admitted = True
            active = self._active.get(record.id)
            if active is None:
                active = self._active[record.id] = set()
            active.add(exchange)
        self._upstreams.send(exchange, way)

    def _verify(self, exchange: Exchange, need: Verify) -> bool:
        """Check a signature, if this client's address has not sent too many bad ones lately."""
        address = exchange.client.address
        if not self.admission.signature_allowed(address):
            exchange.refuse(errors.overloaded("tokens.failures_per_minute"))
            return False
        genuine = verify(need.token, need.peeked)
        claims = need.peeked.claims if genuine else None
        self._knowledge.tokens.remember(need.family, need.token, claims)
        if not genuine:
            self.admission.signature_failed(address)
        return True

    # --- Needs that take time -------------------------------------------------------------------------

    def _learn(self, exchange: Exchange, need: Learn) -> None:
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
        began = self.clock()
        try:
            async with asyncio.timeout(LEARN_PATIENCE):
                await coming.wait()
        except TimeoutError:
            pass  # decided with the keys there are
        exchange.waited += self.clock() - began
        exchange.task = None
        self._learning.discard(exchange)
        if exchange.phase is Phase.PARKED:
            self.start(exchange)

    def _park(self, exchange: Exchange, need: LookUp | Wake) -> None:
        exchange.phase, exchange.access = Phase.PARKED, need.access
        if isinstance(need, Wake):
            if exchange.client.half_closed:
                exchange.client_gone()  # nobody is woken for a client that has left
                exchange.client.abort()
                return
            if not self.admission.park(need.record.id, need.access.claims.grant):
                exchange.refuse(errors.overloaded(self.admission.full))
                return
            self._waking.add(exchange)
        exchange.task = self._scope.spawn(self._settle(exchange, need), name="settle")

    async def _settle(self, exchange: Exchange, need: LookUp | Wake) -> None:
        """Settle one need of one exchange, then decide about it again."""
        began = self.clock()
        error = None
        try:
            if began >= exchange.deadline:
                # Decided again and again without getting anywhere: records that flap faster than we look.
                error = EdgeError(errors.SANDBOX_RESUME_TIMEOUT)
            elif isinstance(need, Wake):
                await self._wake(exchange, need)
            elif need.grant_id:
                await self._catalog.look_up_grant(need.grant_id)
            else:
                await self._catalog.look_up_sandbox(need.sandbox_id)
        except Unavailable:
            error = EdgeError(errors.CONTROL_PLANE_UNAVAILABLE)
        except EdgeError as refusal:
            error = refusal
        exchange.waited += self.clock() - began
        exchange.task = None
        if exchange.phase is not Phase.PARKED:
            return
        if error is not None:
            exchange.refuse(error)
        else:
            self.start(exchange)

    async def _wake(self, exchange: Exchange, need: Wake) -> None:
        try:
            role = await self._wakes.settle(
                need.record,
                grant_id=need.access.claims.grant,
                woken_by=self._described(exchange.head),
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
            self.admission.unpark(claims.sub, claims.grant)

    def is_waking(self, exchange: Exchange) -> bool:
        """Whether the exchange waits for a sandbox to wake."""
        return exchange in self._waking

    # --- What exchanges ask for -----------------------------------------------------------------------

    def new_request_id(self) -> bytes:
        """An id unique to this process and, by its random prefix, among processes."""
        self._id_count += 1
        return self._id_prefix + b"%x" % self._id_count

    def request_head(self, exchange: Exchange) -> bytes:
        """The head for the upstream. What it shares with the request before is made once."""
        head, way = exchange.head, exchange.way
        assert way is not None
        section = head.section
        passage = section.passage
        if passage is None or passage.way is not way:
            peer = exchange.client.peer_of(head)
            name = self._continuation.name(peer.scheme)
            outward = outbound.outward(section, way, peer, name)
            passage = Passage(self._knowledge.tokens.era, way, outward)
            if way.access.family is not Family.EDGE and not head.proxy_marker:
                section.passage = passage  # the credential is in the section, not in the query
        return outbound.head_of(head, passage.outward, exchange.request_id)

    def request_relay(self, head: Head) -> RequestRelay:
        """A relay for a request body."""
        return RequestRelay(
            head, self._trailer_fields, max_trailer_bytes=self.settings.limits.header_bytes
        )

    def answer_relay(self, exchange: Exchange, before: Answer | None) -> AnswerRelay:
        """A relay for the answer to this exchange; ``before`` is the connection's last answer."""
        access = exchange.access
        assert access is not None
        head = exchange.head
        cookie, name = None, self._cookie_name
        if head.section.forwarded or access.continues:
            scheme = exchange.client.peer_of(head).scheme
            name = self._continuation.name(scheme)
            if access.continues:
                cookie = self._continuation.set_cookie(head, access.claims, scheme)
        return AnswerRelay(
            head,
            self._answers,
            own_cookie=name,
            max_head_bytes=self.settings.limits.header_bytes,
            closing=exchange.ends_connection,
            cookie=cookie,
            before=before,
        )

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

    def tunneled(self, exchange: Exchange) -> None:
        """The exchange is a tunnel from now on."""
        access = exchange.access
        assert access is not None
        self.admission.become_tunnel(access.target.sandbox_id)
        self._note(exchange, access)

    def over(self, exchange: Exchange) -> None:
        """The exchange is over: give its place back, count it, tell of it."""
        if exchange in self._waking:
            self._stop_waiting(exchange)
        if exchange.learned:
            self._learning.discard(exchange)
        access = exchange.access
        if access is not None:
            self._note(exchange, access)
            if exchange.admitted:
                exchange.admitted = False
                sandbox_id = access.target.sandbox_id
                active = self._active[sandbox_id]
                active.discard(exchange)
                if not active:
                    del self._active[sandbox_id]
                tunnel = exchange.tunnel is not None
                self.admission.leave(sandbox_id, access.claims.grant, tunnel=tunnel)
        self._observer.exchange(self._report(exchange, access))

    def refused_unread(self, error: EdgeError, address: str, request_id: bytes) -> None:
        """Bytes that never became a request were answered with an error."""
        self._observer.exchange(
            ExchangeReport(
                started=self.wall(), duration=0.0, waited=0.0, request_id=request_id.decode(),
                peer=address, method="", host="", path="", status=error.problem.status,
                problem=error.problem, end=End.COMPLETE, role=Role.NONE, tunnel=False,
                sandbox_id="", port=0, grant_id="", bytes_in=0, bytes_out=0,
                limit=error.limit,
            )
        )  # fmt: skip

    def _report(self, exchange: Exchange, access: Access | None) -> ExchangeReport:
        head, claims = exchange.head, access.claims if access is not None else None
        return ExchangeReport(
            exchange.started_at,
            self.clock() - exchange.started,
            exchange.waited,
            exchange.request_id.decode(),
            exchange.client.address,
            head.method.decode(),
            head.section.host.decode("latin-1"),
            head.path.decode("latin-1"),
            exchange.status,
            exchange.problem,
            exchange.end,
            exchange.role,
            exchange.tunnel is not None,
            claims.sub if claims is not None else "",
            claims.port if claims is not None else 0,
            claims.grant if claims is not None else "",
            exchange.noted_in if access is not None else exchange.bytes_in,
            exchange.noted_out if access is not None else exchange.bytes_out,
            exchange.limit,
        )

    @staticmethod
    def _described(head: Head) -> str:
        return redact_text(f"{head.method.decode()} {head.path.decode('latin-1')}"[:200])

    def _note(self, exchange: Exchange, access: Access) -> None:
        """Report what the exchange has used since it was last noted."""
        tunnel, admitted = exchange.tunnel is not None, exchange.admitted
        bytes_in, bytes_out = exchange.bytes_in, exchange.bytes_out
        moved_in, moved_out = bytes_in - exchange.noted_in, bytes_out - exchange.noted_out
        first = admitted and not exchange.noted
        problem = exchange.problem
        if not (first or moved_in or moved_out or problem):
            return
        if first:
            exchange.noted = True
        exchange.noted_in, exchange.noted_out = bytes_in, bytes_out
        self._usage.note(
            access.target.sandbox_id,
            access.claims.grant,
            requests=int(first and not tunnel),
            websockets=int(first and tunnel),
            bytes_in=moved_in,
            bytes_out=moved_out,
            error=problem.code if problem is not None else None,
        )

    # --- The world changes ----------------------------------------------------------------------------

    def _record_changed(self, record: SandboxRecord | GrantRecord) -> None:
        """A newer record: what rests on the old one ends here and now."""
        if isinstance(record, SandboxRecord):
            self._sandbox_changed(record)
        elif record.status is not GrantStatus.ACTIVE:
            now = self.wall()
            for exchange in list(self._active.get(record.sandbox_id, ())):
                self._cut_without(record, exchange, now)

    def _sandbox_changed(self, record: SandboxRecord) -> None:
        going_on = record.state in _COMING_BACK
        waiting = self._upstreams.retire(record.id, keep=record.incarnation if going_on else None)
        for exchange in list(self._active.get(record.id, ())):
            way = exchange.way
            # Nothing of the others rests on the old incarnation: one that waits will be decided again.
            if exchange.phase not in (Phase.RELAYING, Phase.TUNNEL) or way is None:
                continue
            if not going_on or way.record.incarnation != record.incarnation:
                exchange.cut(End.SANDBOX_LEFT_RUNNING)
        for exchange in waiting:
            self.start(exchange)  # nothing was sent: it goes to the next incarnation
        if record.previews_disabled:
            for exchange in list(self._active.get(record.id, ())):
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
        self._upstreams.sweep()
        now = self.wall()
        doubtful: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {}
        for exchange in self.active():
            access, way = exchange.access, exchange.way
            if access is None or way is None:
                continue
            # What an upgrade counts as is known when it is answered.
            if exchange.tunnel is not None:
                self._note(exchange, access)
            elif not exchange.head.websocket:
                self._note(exchange, access)
                exchange.check_reader()
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

    def active(self) -> Iterator[Exchange]:
        """Every exchange that holds a place in a sandbox, tunnels included."""
        for exchanges in list(self._active.values()):
            yield from list(exchanges)

    def waiting(self) -> list[Exchange]:
        """Every exchange that waits for a sandbox to wake."""
        return list(self._waking)

    def close(self) -> None:
        """Let go of every idle upstream connection."""
        self._upstreams.close()

    # --- What routes ask for (`edge.traffic.upstream.Owner`) ------------------------------------------

    def spawn(self, coro: Coroutine[Any, Any, None], name: str) -> None:
        """Run in the server's scope."""
        self._scope.spawn(coro, name=name)

    def dialed(self, outcome: str) -> None:
        """Count a connection attempt."""
        self._observer.dialed(outcome)

    def listening(self, sandbox_id: str) -> None:
        """A port of this sandbox accepted."""
        wake = self._wakes.current(sandbox_id)
        if wake is not None:
            wake.listening(self.clock())

    def unreachable(self, sandbox_id: str, problem: Problem) -> None:
        """An exchange waited in vain for a port of this sandbox to accept."""
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


__all__ = ["Flow", "Knowledge"]
