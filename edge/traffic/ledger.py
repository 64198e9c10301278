"""The ledger: which exchanges hold a place, what they have used, and what is told when they are over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edge.core.decision import Access, Forward
from edge.core.errors import EdgeError
from edge.core.reports import End, ExchangeReport, Observer, Role
from edge.traffic.exchange import Exchange
from edge.wake.admission import Admission
from edge.wake.usage import UsageReporter


class Ledger:
    """Every exchange that was forwarded is entered once and leaves once, whatever becomes of it.

    ``wall`` is Unix time, ``clock`` monotonic; both in seconds.
    """

    def __init__(
        self,
        admission: Admission,
        usage: UsageReporter,
        observer: Observer,
        *,
        wall: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._admission = admission
        self._usage = usage
        self._observer = observer
        self._wall = wall
        self._clock = clock
        self._active: dict[str, set[Exchange]] = {}

    def enter(self, exchange: Exchange, way: Forward) -> bool:
        """Take a place in the sandbox; False (see ``Admission.full``) when there is none."""
        sandbox_id = way.record.id
        if way.access.anonymous:
            if not self._admission.enter_anonymous(sandbox_id):
                return False
        elif not self._admission.enter(
            sandbox_id, way.grant.id, waited=exchange.role is not Role.NONE
        ):
            return False
        exchange.admitted, exchange.place = True, way.grant.id
        active = self._active.get(sandbox_id)
        if active is None:
            active = self._active[sandbox_id] = set()
        active.add(exchange)
        return True

    def active(self) -> Iterator[Exchange]:
        """Every exchange that holds a place, tunnels included."""
        for exchanges in list(self._active.values()):
            yield from list(exchanges)

    def active_in(self, sandbox_id: str) -> list[Exchange]:
        """Those of one sandbox."""
        return list(self._active.get(sandbox_id, ()))

    def tunneled(self, exchange: Exchange) -> None:
        """The exchange is a tunnel from now on."""
        access = exchange.access
        assert access is not None
        self._admission.become_tunnel(access.target.sandbox_id)
        self.note(exchange, access)

    def note(self, exchange: Exchange, access: Access) -> None:
        """Report what the exchange has used since it was last noted."""
        tunnel, admitted = exchange.tunnel is not None, exchange.admitted
        # A body that came with a refusal was read over, and reached nobody.
        bytes_in, bytes_out = (exchange.bytes_in, exchange.bytes_out) if admitted else (0, 0)
        moved_in, moved_out = bytes_in - exchange.noted_in, bytes_out - exchange.noted_out
        first = admitted and not exchange.noted
        problem = exchange.problem
        if not (first or moved_in or moved_out or problem):
            return
        if first:
            exchange.noted = True
        exchange.noted_in, exchange.noted_out = bytes_in, bytes_out
        if access.anonymous:
            return  # no grant to charge; and a stranger does not keep a sandbox awake
        self._usage.note(
            access.target.sandbox_id,
            access.claims.grant,
            requests=int(first and not tunnel),
            websockets=int(first and tunnel),
            bytes_in=moved_in,
            bytes_out=moved_out,
            error=problem.code if problem is not None else None,
        )

    def over(self, exchange: Exchange) -> None:
        """The exchange is over: give its place back, count it, tell of it."""
        access = exchange.access
        if access is None and exchange.admitted:
            # Decided again, and its credential no longer holds: the place was taken by the one before.
            assert exchange.way is not None
            access = exchange.way.access
        if access is not None:
            self.note(exchange, access)
            if exchange.admitted:
                exchange.admitted = False
                sandbox_id = access.target.sandbox_id
                active = self._active[sandbox_id]
                active.discard(exchange)
                if not active:
                    del self._active[sandbox_id]
                if access.anonymous:
                    self._admission.leave_anonymous(sandbox_id)
                else:
                    tunnel = exchange.tunnel is not None
                    self._admission.leave(sandbox_id, exchange.place, tunnel=tunnel)
        self._observer.exchange(self._report(exchange, access))

    def refused_unread(self, error: EdgeError, address: str, request_id: bytes) -> None:
        """Bytes that never became a request were answered with an error."""
        self._observer.exchange(
            ExchangeReport(
                started=self._wall(), duration=0.0, waited=0.0, request_id=request_id.decode(),
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
            self._clock() - exchange.started,
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
