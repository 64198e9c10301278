"""The internal API for edges (``docs/internal-api.yaml``)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from aiohttp import WSMsgType, web

from edge.appliance.api.http import parts, query, read_body
from edge.appliance.events import Actor
from edge.appliance.feed import Feed
from edge.appliance.parts import Parts
from edge.appliance.problems import NOT_FOUND, ApiError, invalid
from edge.appliance.sandbox import Cause
from edge.appliance.watch import send_changes
from edge.state import wire
from edge.state.port import WatchEvent

PING = 5.0
"""Seconds between pings; an edge that is gone without a word is noticed after half as much more."""
STALL = 7.5
"""Seconds an edge may take nothing of what it is sent before it counts as gone, whatever else it does."""

T = TypeVar("T")


async def sandbox(request: web.Request) -> web.Response:
    """``GET sandboxes/{id}``."""
    record = parts(request).sandboxes.record(request.match_info["sandbox"])
    if record is None:
        raise ApiError(NOT_FOUND)
    return _json(wire.sandbox_to_json(record))


async def grant(request: web.Request) -> web.Response:
    """``GET grants/{id}``."""
    record = parts(request).grants.record(request.match_info["grant"])
    if record is None:
        raise ApiError(NOT_FOUND)
    return _json(wire.grant_to_json(record))


async def resume(request: web.Request) -> web.Response:
    """``POST sandboxes/{id}/resume``: compare-and-resume."""
    call = _parsed(wire.resume_from_json, await read_body(request))
    record = await parts(request).sandboxes.wake(
        request.match_info["sandbox"],
        paused_incarnation=call.paused_incarnation,
        cause=Cause(Actor.SYSTEM, call.reason[:100] or "preview"),
        timeout=min(call.timeout, 3600.0),
    )
    if record is None:
        raise ApiError(NOT_FOUND)
    return _json(wire.sandbox_to_json(record))


async def usage(request: web.Request) -> web.Response:
    """``POST usage``."""
    parts(request).usage.take(_parsed(wire.usage_from_json, await read_body(request)))
    return web.Response(status=204)


async def acks(request: web.Request) -> web.Response:
    """``POST acks``."""
    call = _parsed(wire.ack_from_json, await read_body(request))
    parts(request).edges.ack(call.edge, call.sandbox_id, call.version, call.in_flight)
    return web.Response(status=204)


async def events(request: web.Request) -> web.WebSocketResponse:
    """``GET events``: the change log as a WebSocket."""
    asked = query(request, "cursor", "edge")
    edge = asked.get("edge", "")
    if not 0 < len(edge) <= wire.MAX_EDGE_NAME:
        raise invalid(
            f"edge: the name of the edge is needed, with at most {wire.MAX_EDGE_NAME} characters"
        )
    the_parts = parts(request)
    cursor = _cursor(asked.get("cursor"), the_parts.feed)
    socket = web.WebSocketResponse(heartbeat=PING, timeout=0.2, max_msg_size=4096, compress=False)
    if not socket.can_prepare(request).ok:
        raise invalid("This is a WebSocket; ask for an upgrade.")
    await socket.prepare(request)
    await _watch(the_parts, socket, edge, cursor)
    if request.transport is not None and request.transport.get_write_buffer_size():
        # By itself, a transport that is closed waits for ever for somebody who takes nothing.
        request.transport.abort()
    return socket


async def _watch(the_parts: Parts, socket: web.WebSocketResponse, edge: str, cursor: int) -> None:
    async def send(event: WatchEvent) -> None:
        async with asyncio.timeout(STALL):
            await socket.send_str(wire.event_to_json(event))

    async def read() -> None:
        # Nothing is expected; reading notices the end and answers pings.
        async for message in socket:
            if message.type is WSMsgType.ERROR:
                return

    async def write() -> None:
        try:
            await send_changes(the_parts.feed, send, cursor)
        except (ConnectionError, TimeoutError):
            pass  # The edge is gone; it comes back with its last cursor.

    tasks = [the_parts.scope.spawn(side(), name=f"watch {edge}") for side in (read, write)]
    try:
        with the_parts.edges.watching(edge):
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        # A drain that was cancelled makes aiohttp's next one look cancelled, too, and us with it.
        await socket.close(drain=False)


def _cursor(text: str | None, feed: Feed) -> int:
    if text is None:
        return feed.cursor
    # Not `number`: cursors start from the clock, in milliseconds.
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise invalid("cursor: must be a number")
    return int(text)


def _parsed(parse: Callable[[bytes], T], body: bytes) -> T:
    try:
        return parse(body)
    except wire.WireError as e:
        raise invalid(str(e)[:500]) from None


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


ROUTES = [
    ("GET", f"{wire.PREFIX}/sandboxes/{{sandbox}}", sandbox),
    ("POST", f"{wire.PREFIX}/sandboxes/{{sandbox}}/resume", resume),
    ("GET", f"{wire.PREFIX}/grants/{{grant}}", grant),
    ("POST", f"{wire.PREFIX}/usage", usage),
    ("POST", f"{wire.PREFIX}/acks", acks),
    ("GET", f"{wire.PREFIX}/events", events),
]
