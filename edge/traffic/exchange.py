"""One request and its answer: a phase, two connections, and what each event means.

::

    IDLE ---> PARKED ---> DIALING ---> RELAYING ---> CLOSED
     |          ^  |          |            |---> TUNNEL ---> CLOSED
     |          |__|          |            |
     +------------+-----------+------------+---> CLOSED   (refused, client gone, cut)

The client's side (`edge.traffic.listener`) and the upstream's (`edge.traffic.upstream`) report what
happens to their connections; the exchange moves bytes through its relays and says when it is over.
What *should* happen to a request is not decided here but in `edge.core.decide`, whether it may be sent
again in `edge.traffic.retry`, and who is to blame when nothing moves in `edge.traffic.stalls`.
"""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import TYPE_CHECKING

from edge.core import errors
from edge.core.answer import InvalidAnswer
from edge.core.decision import Access, Forward
from edge.core.errors import EdgeError, Problem, bad_request
from edge.core.framing import FramingError
from edge.core.head import Head
from edge.core.reports import End, Role
from edge.traffic import pages
from edge.traffic.relay import AnswerRelay, RequestRelay
from edge.traffic.retry import Sent, may_be_repeated
from edge.traffic.tunnel import Tunnel

if TYPE_CHECKING:
    from edge.traffic.flow import Flow
    from edge.traffic.listener import ClientConnection
    from edge.traffic.upstream import UpstreamConnection


class Phase(Enum):
    """Where an exchange stands."""

    IDLE = "being decided"
    PARKED = "a need is being settled"
    DIALING = "waits for a connection to the upstream"
    RELAYING = "request and answer are under way"
    TUNNEL = "bytes flow both ways"
    CLOSED = "over"


class Exchange:
    """One request and its answer. Times are `flow.clock` seconds unless said otherwise."""

    # Most requests never change most of these: a class attribute costs them nothing.
    phase = Phase.IDLE
    sent = Sent.NOTHING
    role = Role.NONE
    end = End.COMPLETE
    request: RequestRelay | None = None
    answer: AnswerRelay | None = None
    access: Access | None = None
    way: Forward | None = None
    upstream: UpstreamConnection | None = None
    tunnel: Tunnel | None = None
    task: asyncio.Task[None] | None = None
    problem: Problem | None = None
    limit = ""
    status = 0
    waited = 0.0
    admitted = False
    place = ""  # the grant on which it was admitted; decided again, it may go by another one
    retried = False
    learned = False  # whether newer keys were asked for on its behalf
    noted = False  # whether the request itself was reported as usage
    noted_in = noted_out = 0
    quiet_at = -1
    quiet_since = 0.0

    def __init__(self, flow: Flow, client: ClientConnection, head: Head) -> None:
        self.flow = flow
        self.client = client
        self.head = head
        section = head.section
        if section.chunked or section.length:
            self.request = flow.request_relay(head)
        self.request_id = (section.request_ids and head.request_id) or flow.new_request_id()
        self.started = flow.clock()
        self.started_at = flow.wall()

    @property
    def deadline(self) -> float:
        """When the window is over for this exchange, should it have to wait."""
        return self.started + self.flow.settings.wake.window

    def __repr__(self) -> str:
        where = self.head.host.decode("latin-1")
        return f"<Exchange {self.head.method.decode()} {where} {self.phase.name} sent={self.sent.name}>"

    @property
    def sandbox_id(self) -> str:
        """The sandbox it was authorised for, or an empty string."""
        return self.access.target.sandbox_id if self.access is not None else ""

    @property
    def port(self) -> int:
        """The port it was authorised for, or 0."""
        return self.access.target.port if self.access is not None else 0

    @property
    def bytes_in(self) -> int:
        """Body bytes (or tunnel bytes) from client to upstream."""
        if self.tunnel is not None:
            return self.tunnel.bytes_in
        return self.request.payload if self.request is not None else 0

    @property
    def bytes_out(self) -> int:
        """Body bytes (or tunnel bytes) from upstream to client."""
        if self.tunnel is not None:
            return self.tunnel.bytes_out
        return self.answer.payload if self.answer is not None else 0

    @property
    def request_complete(self) -> bool:
        """Every byte of the request has come from the client."""
        return self.request is None or self.request.done

    def ends_connection(self) -> bool:
        """Whether the client's connection must end with this exchange."""
        most = self.flow.settings.limits.requests_per_connection
        return (
            self.flow.draining
            or not self.head.section.keep_alive
            or (most > 0 and self.client.requests >= most)
        )

    # --- the client's side ----------------------------------------------------------------------------

    def client_data(self) -> None:
        """More bytes lie in the client's buffer. Before RELAYING they stay there, held."""
        if self.phase is Phase.RELAYING and not self.request_complete:
            self._upload()

    def client_eof(self) -> None:
        """The client will send no more. It may still want its answer, but nobody is woken for it."""
        if self.phase is Phase.RELAYING:
            gone = not self.request_complete
        else:
            # Until then the body lies unread in the client's buffer, and may be whole.
            gone = self.flow.is_waking(self)
        if gone:
            self.abandon()

    def abandon(self) -> None:
        """The client has left before it could be served: nothing more is done for it."""
        self.client_gone()
        self.client.abort()

    def client_gone(self) -> None:
        """The client's connection is lost."""
        if self.phase is not Phase.CLOSED:
            self.give_up(End.CLIENT_GONE)

    def client_writable(self, writable: bool) -> None:
        """The client reads too slowly (or again): the upstream's bytes must wait."""
        if self.upstream is not None:
            self.upstream.read_more(writable)

    def _upload(self) -> None:
        """Move body bytes from the client's buffer to the upstream."""
        request, upstream = self.request, self.upstream
        assert request is not None and upstream is not None
        try:
            out = request.feed(self.client.take())
        except FramingError as e:
            self._malformed_body(str(e))
            return
        if out:
            upstream.transport.write(out)
        self._after_upload(request)

    def _after_upload(self, request: RequestRelay) -> None:
        if request.done:
            self.client.give_back(request.rest)
            self._await_answer()
        else:
            self.client.expect_body()

    def _malformed_body(self, why: str) -> None:
        if self.status:
            self.truncate(End.CLIENT_GONE)
        else:
            self.refuse(bad_request(why))

    # --- the upstream's side --------------------------------------------------------------------------

    def relay_through(self, upstream: UpstreamConnection) -> None:
        """A connection to the upstream is ours: send what there is of the request."""
        flow = self.flow
        self.phase, self.upstream = Phase.RELAYING, upstream
        self.answer = flow.answer_relay(self, upstream.before)
        out = flow.request_head(self)
        request = self.request
        if request is not None:
            try:
                held = self.client.take()
                out += request.feed(held) if held else b""
            except FramingError as e:
                upstream.release(reusable=True)  # nothing was written to it
                self.upstream = None
                self.refuse(bad_request(str(e)))
                return
            if self.client.half_closed and not request.done:
                upstream.release(reusable=True)
                self.upstream = None
                self.abandon()
                return
        self.sent = Sent.MAYBE
        upstream.transport.write(out)
        if self.role is not Role.NONE:
            flow.dispatched(self)
        if request is not None:
            self._after_upload(request)
        else:
            self._await_answer()

    def _await_answer(self) -> None:
        if not self.status:
            self.client.expect_answer()

    def upstream_data(self, data: bytes) -> None:
        """Bytes of the answer."""
        answer = self.answer
        assert answer is not None
        try:
            out = answer.feed(data)
        except (InvalidAnswer, FramingError):
            self.fail(errors.PREVIEW_UPSTREAM_INVALID, End.UPSTREAM_INVALID)
            return
        if not self.status:
            self.sent = Sent.CERTAIN
            if answer.final is not None:
                self.status = answer.final.status
                self.client.clear_deadline()
                if self.role is not Role.NONE:
                    self.flow.answered(self)
        if out:
            self.client.transport.write(out)
        if answer.done:
            if self.status == 101:
                self._open_tunnel(answer)
            else:
                self._answer_done(answer, reusable=True)

    def upstream_eof(self, *, clean: bool) -> None:
        """The upstream's connection ended; ``clean`` = by FIN, not by a reset."""
        answer = self.answer
        assert answer is not None
        last = answer.finish() if clean else None
        if last is not None:
            if last:
                self.client.transport.write(last)
            self._answer_done(answer, reusable=False)
        elif may_be_repeated(self):
            self.retried = True
            self._drop_upstream()
            self.sent = Sent.NOTHING
            self.flow.start(self)
        else:
            self.fail(errors.PREVIEW_UPSTREAM_CLOSED, End.UPSTREAM_GONE)

    def upstream_writable(self, writable: bool) -> None:
        """The upstream reads too slowly (or again): the client's bytes must wait."""
        self.client.read_more(writable)

    def fail(self, problem: Problem, end: End, *, limit: str = "") -> None:
        """The upstream did not do its part: an error, or no more of an answer that is under way."""
        if self.status:
            self.truncate(end)
        else:
            self.refuse(EdgeError(problem, {"limit": limit} if limit else {}), end)

    def truncate(self, end: End) -> None:
        """End an answer that is under way and will not be completed."""
        assert self.answer is not None
        self.give_up(end)
        self.client.close_truncated(delimited=self.answer.delimited)

    def _answer_done(self, answer: AnswerRelay, *, reusable: bool) -> None:
        final, upstream = answer.final, self.upstream
        assert final is not None and upstream is not None
        self.upstream = None
        complete = self.request_complete
        upstream.before = final if final.block else None
        upstream.release(reusable=reusable and complete and final.keep_alive and not answer.surplus)
        self._over(End.COMPLETE)
        self.client.answered(keep_alive=complete and not answer.close, linger=not complete)

    def _open_tunnel(self, answer: AnswerRelay) -> None:
        upstream = self.upstream
        assert upstream is not None
        self.phase = Phase.TUNNEL
        self.tunnel = Tunnel(
            self.client.transport, upstream.transport, self._tunnel_over, self.flow.liveness
        )
        self.flow.tunneled(self)
        early = self.client.take()
        upstream.detach()
        self.client.detach()
        self.tunnel.open(
            from_client=early,
            from_upstream=answer.surplus,
            client_full=self.client.write_paused,
            upstream_full=upstream.write_paused,
            client_ended=self.client.half_closed,
        )

    def _tunnel_over(self, end: End) -> None:
        self._over(end)
        self.client.tunnel_over()

    # --- ends -----------------------------------------------------------------------------------------

    def refuse(self, error: EdgeError, end: End = End.COMPLETE) -> None:
        """Answer with an error. Nothing of an answer may have gone out before."""
        self._drop_upstream()
        if self.way is not None and self.way.refusal is not None:
            error = EdgeError(self.way.refusal.problem, close=error.close)
        self.status, self.problem, self.limit = error.problem.status, error.problem, error.limit
        complete = not error.close and self._swallow_body()
        keep = complete and self.head.section.keep_alive and not self.flow.draining
        request_id = self.request_id.decode()
        self.client.transport.write(pages.render(error, self.head, request_id, close=not keep))
        self._over(end)
        self.client.answered(keep_alive=keep, linger=not complete)

    def _swallow_body(self) -> bool:
        """Read over a small body that has come already, so that the connection can go on after a refusal."""
        if self.request is not None and not self.request.done:
            try:
                self.request.feed(self.client.take())
            except FramingError:
                return False
            self.client.give_back(self.request.rest)
        return self.request_complete

    def cut(self, end: End, problem: Problem | None = None) -> None:
        """End it now, wherever it stands: its sandbox or its grant is gone, or the edge is going.

        ``problem`` is what the client is told, if nothing of an answer has gone out yet.
        """
        if self.phase is Phase.TUNNEL:
            assert self.tunnel is not None
            if end is End.DRAINED:
                self.tunnel.leave()
            else:
                self.tunnel.close(end)
        elif self.phase is Phase.RELAYING:
            default = errors.EDGE_DRAINING if end is End.DRAINED else errors.PREVIEW_UPSTREAM_CLOSED
            self.fail(problem or default, end)
        elif self.phase in (Phase.PARKED, Phase.DIALING):
            self.refuse(EdgeError(problem or errors.EDGE_DRAINING), end)

    def give_up(self, end: End) -> None:
        """Nothing more is done for it. What becomes of the client's connection is the caller's to say."""
        self._drop_upstream()
        self._over(end)

    def _drop_upstream(self) -> None:
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.release(reusable=False)

    def _over(self, end: End) -> None:
        self.end = end
        task, self.task = self.task, None
        self.phase = Phase.CLOSED
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        self.flow.over(self)
