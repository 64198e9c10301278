"""What an exchange is given for its way: an id, the head for the upstream, a relay for either body."""

from __future__ import annotations

import os
from collections.abc import Callable

from edge.core import outbound
from edge.core.answer import Answer, AnswerScanner
from edge.core.credentials import Family, Keys
from edge.core.decision import Passage
from edge.core.fields import FieldReader
from edge.core.head import Head
from edge.core.settings import Settings
from edge.core.token_cache import TokenCache
from edge.traffic.continuation import Continuation
from edge.traffic.exchange import Exchange
from edge.traffic.proxies import Proxies
from edge.traffic.relay import AnswerRelay, RequestRelay


class Equipment:
    """Makes these; what exchanges can share of them is made once. ``wall`` gives Unix time in seconds."""

    def __init__(
        self,
        settings: Settings,
        *,
        keys: Callable[[], Keys],
        tokens: TokenCache,
        proxies: Proxies,
        wall: Callable[[], float],
    ) -> None:
        self._header_bytes = settings.limits.header_bytes
        self._answers = AnswerScanner(max_fields=settings.limits.header_count)
        self._trailer_fields = FieldReader.for_requests()
        self._continuation = Continuation(keys, wall)
        self._cookie_name = self._continuation.name(settings.public_scheme.encode())
        self._tokens = tokens
        self._proxies = proxies
        self._id_prefix = os.urandom(6).hex().encode() + b"-"
        self._id_count = 0

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
            peer = self._proxies.peer_of(exchange.client.address, head)
            name = self._continuation.name(peer.scheme)
            outward = outbound.outward(section, way, peer, name)
            passage = Passage(self._tokens.era, way, outward)
            if (
                way.access.family is not Family.EDGE
                and not head.proxy_marker
                and way.refusal is None
            ):
                section.passage = passage  # the credential is in the section, not in the query
        return outbound.request_head(head, passage.outward, exchange.request_id)

    def request_relay(self, head: Head) -> RequestRelay:
        """A relay for a request body."""
        return RequestRelay(head, self._trailer_fields, max_trailer_bytes=self._header_bytes)

    def answer_relay(self, exchange: Exchange, before: Answer | None) -> AnswerRelay:
        """A relay for the answer to this exchange; ``before`` is the connection's last answer."""
        access = exchange.access
        assert access is not None
        head = exchange.head
        cookie, name = None, self._cookie_name
        if head.section.forwarded or access.continues:
            scheme = self._proxies.peer_of(exchange.client.address, head).scheme
            name = self._continuation.name(scheme)
            if access.continues:
                cookie = self._continuation.set_cookie(head, access.claims, scheme)
        return AnswerRelay(
            head,
            self._answers,
            own_cookie=name,
            max_head_bytes=self._header_bytes,
            closing=exchange.ends_connection,
            cookie=cookie,
            before=before,
        )
