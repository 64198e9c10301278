"""Sending the change log to one edge: changes in order, heartbeats in between."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from edge.appliance.feed import Feed
from edge.state.port import Heartbeat, Resync, WatchEvent

HEARTBEAT = 0.3
"""Seconds between heartbeats."""


async def send_changes(
    feed: Feed, send: Callable[[WatchEvent], Awaitable[None]], cursor: int
) -> None:
    """Until cancelled, or until ``send`` raises. ``send`` may take its time; nothing piles up.

    A watcher that falls behind what the log keeps is told to resync.
    """
    clock = asyncio.get_running_loop().time
    beat = clock()
    while True:
        # Taken before the look at the log: a change right after it must not be slept through.
        news = feed.news
        changes = feed.since(cursor)
        if changes is None:
            cursor = feed.cursor
            await send(Resync(cursor))
            continue
        for change in changes:
            await send(change)
            cursor = change.cursor
        if clock() >= beat:
            await send(Heartbeat(cursor))
            beat = clock() + HEARTBEAT
        try:
            async with asyncio.timeout(max(0.0, beat - clock())):
                await news.wait()
        except TimeoutError:
            pass
