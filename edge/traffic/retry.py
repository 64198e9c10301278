"""Sending a request again without harm: what the upstream may have seen of it, and the rule."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.traffic.exchange import Exchange


class Sent(Enum):
    """What the upstream may have seen of the request."""

    NOTHING = "not a byte was written"
    MAYBE = "written, and no sign yet that it was read"
    CERTAIN = "the upstream has begun to answer"


_IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE"})


def may_be_repeated(exchange: Exchange) -> bool:
    """RFC 9110 section 9.2.2: a kept-alive connection closed under an idempotent request; once.

    Only without a body, because what was sent of it is gone, and only before a byte of an answer.
    """
    return (
        exchange.sent is Sent.MAYBE
        and not exchange.retried
        and exchange.upstream is not None
        and exchange.upstream.reused
        and exchange.request is None
        and exchange.head.method in _IDEMPOTENT
    )
