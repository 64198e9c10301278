"""Following the control plane's changes: what the events of the stream prove, and reconnecting for ever.

The rule that everything here serves: *connected is not caught up*. A heartbeat says "everything up to
``cursor`` has been sent", so only a heartbeat at exactly the place where we stand proves that nothing is
missing. Every other heartbeat is judged:

=============================  ==========================================================================
heartbeat's cursor             what it means
=============================  ==========================================================================
where we stand                 caught up
beyond where we stand          changes were lost or overtaken on the way: everything known is in doubt
behind the cursor we named     as the first: the control plane's log was replaced, everything is in doubt
otherwise behind               it is an old one that came late, and proves nothing
=============================  ==========================================================================

Only a heartbeat moves the cursor that a reconnect names, so a change that was overtaken by a later one
is sent again. Repeated changes are harmless: of two records the higher version wins.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Protocol

from edge.core.records import Record
from edge.core.reports import Observer
from edge.state.port import Change, Heartbeat, Resync, StatePort, Unavailable, WatchEvent

FIRST_DELAY = 0.05
"""Seconds before the first reconnect; doubled with each failure in a row."""
LAST_DELAY = 2.0
"""Longest pause between reconnects, in seconds."""


class Sink(Protocol):
    """Who draws the conclusions."""

    def hear_change(self, record: Record) -> None:
        """A record that may be newer than what is known."""

    def hear_heartbeat(self) -> None:
        """Nothing is missing: every change up to this moment has been heard."""

    def doubt_everything(self) -> None:
        """Changes may have been missed, and nobody knows which."""


class Watch:
    """The watch of one edge. ``silence`` is how many seconds without any event end a connection."""

    def __init__(
        self,
        port: StatePort,
        sink: Sink,
        *,
        silence: float,
        observer: Observer,
        rng: random.Random | None = None,
    ) -> None:
        self._port = port
        self._sink = sink
        self._silence = silence
        self._observer = observer
        self._random = rng or random.Random()
        self._cursor: int | None = None  # of the last heartbeat that proved something
        self._seen: int | None = None  # the highest cursor heard of on this connection
        self._greeted = False  # whether this connection has said anything yet
        self._proved = False  # whether a heartbeat of this connection has proved anything yet
        self._failures = 0

    async def run(self) -> None:
        """Follow the stream until cancelled."""
        while True:
            self._seen = self._cursor
            self._greeted = self._proved = False
            reason = await self._follow(self._port.watch(self._cursor))
            delay = min(LAST_DELAY, FIRST_DELAY * 2 ** min(self._failures, 10))
            self._failures += 1
            if self._failures == 1:
                self._observer.event("watch_lost", reason=reason)
            await asyncio.sleep(delay * self._random.uniform(0.5, 1.0))

    async def _follow(self, events: AsyncIterator[WatchEvent]) -> str:
        """Hear one connection out; the answer is why it ended."""
        while True:
            try:
                # A half-open connection raises nothing: without a bound it would be trusted for ever.
                async with asyncio.timeout(self._silence):
                    event = await anext(events)
            except StopAsyncIteration:
                return "the stream ended"
            except TimeoutError:
                return f"nothing was heard for {self._silence:g} s"
            except Unavailable as e:
                return str(e) or "unavailable"
            self._hear(event)

    def _hear(self, event: WatchEvent) -> None:
        # A stream without a cursor starts "now": what was looked up before it began may have changed
        # in between, unheard. Its first event is the earliest moment at which it is known to have begun.
        if not self._greeted and self._cursor is None:
            self._sink.doubt_everything()
        match event:
            case Change(cursor, record):
                self._seen = cursor if self._seen is None else max(self._seen, cursor)
                self._sink.hear_change(record)
            case Resync(cursor):
                self._doubt("changes may have been missed, all is asked for anew", cursor)
            case Heartbeat(cursor):
                self._hear_heartbeat(cursor)
        self._greeted = True

    def _hear_heartbeat(self, cursor: int) -> None:
        if self._seen is not None and cursor > self._seen:
            self._doubt("changes were lost", cursor)
        elif self._cursor is not None and cursor < self._cursor and not self._proved:
            self._doubt("the control plane's log was replaced", cursor)
        elif self._seen is not None and cursor < self._seen:
            return
        self._cursor = self._seen = cursor
        self._failures = 0
        if not self._proved:
            self._proved = True
            self._observer.event("watch_caught_up", cursor=cursor)
        self._sink.hear_heartbeat()

    def _doubt(self, why: str, cursor: int) -> None:
        self._cursor = self._seen = cursor
        self._observer.event("watch_doubt", reason=why, cursor=cursor)
        self._sink.doubt_everything()
