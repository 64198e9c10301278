"""What makes a page live: a stream of server-sent events that say *that* something has changed.

Nothing of what has changed goes over it: the page asks for itself again, so there is one way in which
things are shown, and a slow reader costs no memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from edge.appliance.console.guard import FIELDS
from edge.appliance.console.sessions import Session
from edge.appliance.parts import Parts
from edge.appliance.tasks import Scope

MAX_STREAMS = 8
"""Streams at once; the oldest goes when one more begins. Browsers open at most six to one address."""

BEAT = 5.0
"""Seconds after which a page is told to look anew although nothing has changed: times go on."""

GATHER = 0.25
"""Seconds between two messages, so that many changes make one."""

STALL = 10.0
"""Seconds a reader may take for a message."""

CHANGED, FULL, OVER = (f"event: {name}\ndata:\n\n".encode() for name in ("changed", "full", "over"))


@dataclass(slots=True, eq=False)
class Place:
    """One stream's place among those there may be."""

    lost: asyncio.Event = field(default_factory=asyncio.Event)


class Streams:
    """The places, oldest first. Who has left without a word is the oldest some day."""

    def __init__(self, most: int = MAX_STREAMS) -> None:
        self._most = most
        self._places: dict[Place, None] = {}

    @contextmanager
    def taken(self) -> Iterator[Place]:
        """A place, while in here and until it is lost to a newer stream."""
        if len(self._places) >= self._most:
            oldest = next(iter(self._places))
            del self._places[oldest]
            oldest.lost.set()
        place = Place()
        self._places[place] = None
        try:
            yield place
        finally:
            self._places.pop(place, None)

    def __len__(self) -> int:
        return len(self._places)


async def follow(
    request: web.Request,
    parts: Parts,
    streams: Streams,
    session: Session,
    left: Callable[[], float],
) -> web.StreamResponse:
    """Tell of changes until the session ends; ``left`` says in how many seconds that will be."""
    response = web.StreamResponse(headers=FIELDS)
    response.content_type = "text/event-stream"
    with streams.taken() as place:
        try:
            await response.prepare(request)
            await _tell(response, parts, session, place, left)
        except ConnectionError:
            pass  # The reader is gone, or the control plane ends.
    return response


async def _tell(
    response: web.StreamResponse,
    parts: Parts,
    session: Session,
    place: Place,
    left: Callable[[], float],
) -> None:
    while not session.ended.is_set() and left() > 0:
        if place.lost.is_set():
            await _send(response, FULL)
            return
        # Taken before the page looks: what changes after its look must not be slept through.
        news = (parts.feed.news, parts.events.news, parts.usage.news)
        await _send(response, CHANGED)
        ends = (session.ended, place.lost)
        await first_of(parts.scope, ends, GATHER)
        await first_of(parts.scope, (*news, *ends), min(BEAT, left()))
    await _send(response, OVER)


async def first_of(scope: Scope, events: Sequence[asyncio.Event], seconds: float) -> None:
    """Wait until one of them is set, at most so long. Raises ConnectionError once the scope is closed."""
    if any(event.is_set() for event in events):
        return
    try:
        tasks = [scope.spawn(event.wait(), name="console stream") for event in events]
    except RuntimeError as e:
        raise ConnectionAbortedError("the control plane ends") from e
    try:
        await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


async def _send(response: web.StreamResponse, message: bytes) -> None:
    """Raises ConnectionError for a reader that is gone or does not read."""
    try:
        async with asyncio.timeout(STALL):
            await response.write(message)
    except TimeoutError:
        raise ConnectionError("the reader does not read") from None
