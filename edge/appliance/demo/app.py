"""The app inside the demo sandbox: a page, a counter in memory, a clock over a WebSocket.

It runs as a process of its own in the sandbox: ``python app.py PORT``. It must not keep its sandbox
awake by itself, so the clock ticks only for a while after the visitor did something.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from pathlib import Path

from aiohttp import WSMsgType, web

TICKING = 10
"""Seconds the clock runs after the page was loaded or used."""

PAGE = Path(__file__).with_name("page.html").read_text(encoding="utf-8")


class Counter:
    """Held in memory only: that it survives a pause is the point."""

    def __init__(self) -> None:
        self.count = 0


COUNTER: web.AppKey[Counter] = web.AppKey("counter")


async def page(request: web.Request) -> web.Response:
    """The page; each load counts."""
    counter = request.app[COUNTER]
    counter.count += 1
    text = PAGE.replace("{{count}}", str(counter.count))
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return web.Response(text=text, content_type="text/html", headers=headers)


async def add(request: web.Request) -> web.Response:
    """The button."""
    counter = request.app[COUNTER]
    counter.count += 1
    return web.json_response({"count": counter.count})


async def healthz(_: web.Request) -> web.Response:
    """Somebody listens."""
    return web.json_response({"status": "ok"})


async def clock(request: web.Request) -> web.WebSocketResponse:
    """Ticks once a second, falls silent after `TICKING` seconds, goes on with the next message."""
    socket = web.WebSocketResponse(max_msg_size=4096)
    await socket.prepare(request)
    while not socket.closed:
        for _ in range(TICKING):
            now = datetime.now().astimezone().strftime("%H:%M:%S")
            await socket.send_json({"type": "tick", "time": now})
            if await _used(socket, 1.0):
                break
        else:
            await socket.send_json({"type": "quiet"})
            if not await _used(socket, None):
                break
    return socket


async def _used(socket: web.WebSocketResponse, seconds: float | None) -> bool:
    """Whether the visitor did something within that time; False also when the socket has closed."""
    try:
        async with asyncio.timeout(seconds):
            message = await socket.receive()
    except TimeoutError:
        return False
    return message.type is WSMsgType.TEXT


def build_app() -> web.Application:
    """The application with a fresh counter."""
    app = web.Application()
    app[COUNTER] = Counter()
    app.router.add_get("/healthz", healthz)
    app.router.add_post("/add", add)
    # The WebSocket URL of a preview has the path / too.
    app.router.add_get("/", root)
    return app


async def root(request: web.Request) -> web.StreamResponse:
    """The page, or the clock for those who ask for an upgrade."""
    upgrade = request.headers.get("Upgrade", "").lower() == "websocket"
    return await (clock(request) if upgrade else page(request))


if __name__ == "__main__":
    web.run_app(build_app(), host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
