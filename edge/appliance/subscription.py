"""Following the lifecycle events: what a client asks for, and how it gets it event by event.

A reader pulls: it stands on the number of the last event it has seen to, reads the next ones from the
log when its client has taken those before, and waits when there are none. So nothing is queued for it,
however slow it is, and the log's own bounds are its bounds: what was pruned before it got there is a gap,
which is told and ends the stream. The way is the same for a replay and for what happens now; there is no
seam between the two at which an event could be lost or come twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from pydantic import Field

from edge.appliance.bodies import read_json, validated
from edge.appliance.events import EventFilter, EventLog, LifecycleEvent, Operation, Status
from edge.appliance.problems import TOO_MANY_STREAMS, ApiError
from edge.appliance.requests import Body, Text

REPLAY = 100
"""Events a new stream begins with, where it does not say."""

BATCH = 100
"""Events read from the log at once."""

MAX_STREAMS = 100
"""Streams open at once: each is a connection, and looks at the log at every event."""

TOO_SLOW = "The reader is too slow; come back with after_event_id of the last event that was read."


class StreamError(Exception):
    """The stream ends. The message is for its client."""


class Places:
    """How many streams are open."""

    def __init__(self) -> None:
        self._taken = 0

    @contextmanager
    def taken(self) -> Iterator[None]:
        """One more while in here. Raises `ApiError` (too_many_streams)."""
        if self._taken >= MAX_STREAMS:
            raise ApiError(TOO_MANY_STREAMS, headers={"Retry-After": "5"})
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


class Subscription(Body):
    """The first frame of a client. What is None narrows nothing."""

    type: Literal["subscribe"]
    sandbox_id: Text | None = None
    snapshot_id: Text | None = None
    source_sandbox_id: Text | None = None
    target_sandbox_id: Text | None = None
    # Not strict: in JSON they are words.
    operation: Annotated[Operation, Field(strict=False)] | None = None
    status: Annotated[Status, Field(strict=False)] | None = None
    audience: Literal["customer"] | None = None
    metadata: dict[str, Any] | None = None
    """Pairs that an event's own metadata has to contain."""
    live_only: bool | None = None
    """Only what happens from now on; the cursor, if there is one, still has to be known."""
    after_event_id: Text | None = None
    """The cursor: everything after this event, whatever ``replay_limit`` says."""
    replay_limit: Annotated[int, Field(ge=0)] | None = None

    @property
    def filter(self) -> EventFilter:
        """What the log can narrow down by itself."""
        return EventFilter(
            sandbox_id=self.sandbox_id,
            snapshot_id=self.snapshot_id,
            source_sandbox_id=self.source_sandbox_id,
            target_sandbox_id=self.target_sandbox_id,
            operation=self.operation,
            status=self.status,
        )

    def admits(self, event: LifecycleEvent) -> bool:
        """Whether an event that passed the filter is asked for."""
        has = event.metadata
        wanted = (self.metadata or {}).items()
        return all(name in has and has[name] == value for name, value in wanted)

    def answer(self) -> dict[str, object]:
        """The first frame of the server."""
        told = self.model_dump(mode="json", exclude_none=True, exclude={"type"})
        return {
            "type": "subscribed",
            "subscription": {"audience": "customer"} | told,
            "reconnect_mode": "live_only" if self.live_only else "cursor_replay",
        }


def read_subscription(text: str, sandbox_id: str | None = None) -> Subscription:
    """A first frame; on the stream of one sandbox with its id. Raises `StreamError`."""
    try:
        document = read_json(text)
    except ApiError:
        raise StreamError("The frame is not JSON.") from None
    if not isinstance(document, dict) or document.get("type") != "subscribe":
        raise StreamError('The first frame must be an object with "type": "subscribe".')
    try:
        wanted = validated(Subscription, document)
    except ApiError as e:
        raise StreamError(e.message) from None
    if sandbox_id is None:
        return wanted
    if wanted.sandbox_id not in (None, sandbox_id):
        raise StreamError(f"sandbox_id: this is the stream of {sandbox_id}")
    return wanted.model_copy(update={"sandbox_id": sandbox_id})


class Reader:
    """Follows the log for one subscription."""

    def __init__(self, log: EventLog, wanted: Subscription) -> None:
        self._log = log
        self._wanted = wanted
        self._at = 0

    async def start(self) -> None:
        """Find the place to begin at. Raises `StreamError` for a cursor that is not known (any more)."""
        wanted, log = self._wanted, self._log
        self._at = log.head
        if wanted.after_event_id is not None:
            number = log.number(wanted.after_event_id)
            if number is None:
                raise StreamError(
                    "after_event_id: the event is not known, or not kept any more; what came after "
                    "it cannot be told without a gap"
                )
            if not wanted.live_only:
                self._at = number
        elif not wanted.live_only:
            self._at = await self._before(
                REPLAY if wanted.replay_limit is None else wanted.replay_limit
            )

    async def follow(self, send: Callable[[LifecycleEvent], Awaitable[None]]) -> None:
        """Send every event there is, then every one that happens, until cancelled.

        ``send`` may take its time. Raises `StreamError` when events went before they could be sent.
        """
        log, wanted = self._log, self._wanted
        if wanted.after_event_id is None:
            # Nothing was promised yet of what went between `start` and here.
            self._at = max(self._at, log.floor)
        while True:
            # Taken before the look at the log: an event right after it must not be slept through.
            news = log.news
            if self._at < log.floor:
                raise StreamError(TOO_SLOW)
            found, reached = log.after(self._at, wanted.filter, BATCH)
            for _, event in found:
                if wanted.admits(event):
                    await send(event)
            self._at = reached
            if len(found) < BATCH:
                await news.wait()
            else:
                await asyncio.sleep(0)  # a long replay lets the others have their turn

    async def _before(self, count: int) -> int:
        """The place before the newest ``count`` events that are asked for."""
        log, wanted = self._log, self._wanted
        head, low = log.head, log.floor
        if count == 0 or head == low:
            return head
        if not wanted.metadata:
            found = log.before(head, wanted.filter, 1, min(count, head - low) - 1)
            return found[0][0] - 1 if found else low
        while found := log.before(head, wanted.filter, BATCH):
            for number, event in found:
                if wanted.admits(event):
                    count -= 1
                    if count == 0:
                        return number - 1
            head = found[-1][0] - 1
            await asyncio.sleep(0)
        return low
