"""Stalls: exchanges under way that do not move. Whose turn was it, and how do they end?"""

from __future__ import annotations

from edge.core import errors
from edge.core.reports import End
from edge.traffic.exchange import Exchange, Phase


def end_overdue(exchange: Exchange) -> None:
    """A deadline of the relaying phase has passed: it ends on account of whoever did not do its part."""
    upstream = exchange.upstream
    assert upstream is not None
    if exchange.client.write_paused:
        exchange.give_up(End.CLIENT_STALLED)
        exchange.client.reset()
    elif upstream.write_paused or exchange.request_complete:
        timeout, end = errors.PREVIEW_UPSTREAM_TIMEOUT, End.UPSTREAM_STALLED
        exchange.fail(timeout, end, limit="deadlines.first_byte")
    elif not exchange.status:
        exchange.refuse(errors.too_slow("deadlines.body_stall"), End.CLIENT_STALLED)
    else:
        exchange.truncate(End.CLIENT_STALLED)


def end_unread(exchange: Exchange) -> None:
    """After its FIN, a client may read on or be gone altogether; only bytes sent to it would tell.

    So an answer that brings none for a while (a stream of events, its page closed) ends here, or it
    would hold its place, and its sandbox awake, for as long as the app is silent.
    """
    limit = exchange.flow.settings.deadlines.body_stall
    relaying = exchange.phase is Phase.RELAYING
    if not (limit and exchange.status and relaying and exchange.client.half_closed):
        return
    now, sent = exchange.flow.clock(), exchange.bytes_out
    if sent != exchange.quiet_at:
        exchange.quiet_at, exchange.quiet_since = sent, now
    elif now - exchange.quiet_since >= limit:
        exchange.truncate(End.CLIENT_GONE)
