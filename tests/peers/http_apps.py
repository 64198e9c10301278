"""One small HTTP app, served by aiohttp, by the standard library (HTTP/1.0) and by Node.

=========== ==============================================================================
path        answers
=========== ==============================================================================
/echo       JSON: what came, with length and SHA-256 of the body
/plain      a short text with repeated and oddly spelled fields
/none       204
/same       304
/moved      302 to a relative address
/bytes      100 000 bytes, or the range that is asked for
/pieces     a body in 50 pieces whose length is not known before
/events     five events; each waits for a request of /next that says the last one was seen
/early      two 103 before the answer (Node)
/trailers   a body with trailers (Node)
/refuse     403 to whoever expects a 100 (Node)
=========== ==============================================================================
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiohttp import web

from tests.peers.node_peer import Node
from tests.peers.part import payload

BYTES = payload(100_000)
PIECE = payload(45)
PLAIN = [
    ("Set-Cookie", "a=1; Path=/"),
    ("X-Odd-CASE", "kept,  as it is"),
    ("Set-Cookie", "b=2"),
    ("Content-Type", "text/plain"),
]
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


def _fixed(path: str, asked: str) -> tuple[int, list[tuple[str, str]], bytes]:
    """The answers that depend on nothing but the path and a Range."""
    match path:
        case "/plain":
            return 200, PLAIN, b"plain\n"
        case "/none":
            return 204, [("X-None", "yes")], b""
        case "/same":
            return 304, [("ETag", '"v1"')], b""
        case "/moved":
            return 302, [("Location", "/plain?x=1")], b""
        case "/bytes":
            return _bytes(asked)
    raise AssertionError(path)


def _bytes(asked: str) -> tuple[int, list[tuple[str, str]], bytes]:
    match = _RANGE.fullmatch(asked)
    if match is None:
        return 200, [], BYTES
    first, last = match.groups()
    start = int(first) if first else len(BYTES) - int(last)
    end = int(last) if first and last else len(BYTES) - 1
    if start >= len(BYTES):
        return 416, [("Content-Range", f"bytes */{len(BYTES)}")], b""
    return 206, [("Content-Range", f"bytes {start}-{end}/{len(BYTES)}")], BYTES[start : end + 1]


def _echoed(method: str, target: str, fields: list[tuple[str, str]], body: bytes) -> bytes:
    came = {"method": method, "target": target, "fields": fields, "length": len(body)}
    return json.dumps(came | {"sum": hashlib.sha256(body).hexdigest()}).encode()


@asynccontextmanager
async def aiohttp_app() -> AsyncIterator[int]:
    """By aiohttp; gives the port."""
    seen = asyncio.Semaphore(0)

    async def handle(request: web.Request) -> web.StreamResponse:
        match request.path:
            case "/echo":
                fields = [(k.decode(), v.decode("latin-1")) for k, v in request.raw_headers]
                body = _echoed(request.method, request.path_qs, fields, await request.read())
                return web.Response(body=body, content_type="application/json")
            case "/next":
                seen.release()
                return web.Response(status=204)
            case "/pieces" | "/events":
                return await stream(request)
            case path:
                status, fields, body = _fixed(path, request.headers.get("Range", ""))
                return web.Response(status=status, headers=fields, body=body)

    async def stream(request: web.Request) -> web.StreamResponse:
        events = request.path == "/events"
        response = web.StreamResponse()
        response.content_type = "text/event-stream" if events else "application/octet-stream"
        await response.prepare(request)
        for n in range(5 if events else 50):
            await response.write(b"data: %d\n\n" % n if events else PIECE)
            if events:
                await seen.acquire()
        return response

    app = web.Application(client_max_size=1 << 26)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.05)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class _Handler(BaseHTTPRequestHandler):
    """HTTP/1.0, as the standard library speaks unless told otherwise: every body ends with the connection."""

    timeout = 20
    seen: threading.Semaphore

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        match path:
            case "/echo":
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                self._say(200, [], _echoed(self.command, self.path, self.headers.items(), body))
            case "/next":
                self.seen.release()
                self._say(204, [], b"")
            case "/pieces" | "/events":
                self._stream(events=path == "/events")
            case _:
                self._say(*_fixed(path, self.headers.get("Range", "")))

    def _say(self, status: int, fields: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        if status not in (204, 304):
            fields = [*fields, ("Content-Length", str(len(body)))]
        for name, value in fields:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _stream(self, *, events: bool) -> None:
        self.send_response(200)
        self.end_headers()
        for n in range(5 if events else 50):
            self.wfile.write(b"data: %d\n\n" % n if events else PIECE)
            if events:
                self.seen.acquire(timeout=20)

    def __getattr__(self, name: str) -> Any:
        # The base looks for a `do_GET`, a `do_POST` and so on.
        if name.startswith("do_"):
            return self._answer
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base
        """Say nothing."""


@asynccontextmanager
async def standard_app() -> AsyncIterator[int]:
    """By ``http.server``, each connection in a thread; gives the port."""
    handler = type("Handler", (_Handler,), {"seen": threading.Semaphore(0)})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            await asyncio.to_thread(server.shutdown)
            thread.join()


@asynccontextmanager
async def node_app(node: Node) -> AsyncIterator[int]:
    """By Node's ``http``; gives the port."""
    async with node.actor() as actor:
        yield (await (await actor.order("app")).told())["port"]
