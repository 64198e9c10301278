"""A control plane for the bench: the state port over HTTP (``edge/state/wire.py``), and nothing else.

``python -m bench.control_plane FILE`` reads what ``World.for_control_plane`` wrote and prints
``{"port": N}``. ``GET /bench/running`` tells for each sandbox that was resumed the CLOCK_MONOTONIC
nanoseconds just before anybody was told that it runs.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from edge.core.records import GrantRecord, SandboxRecord, State
from edge.state import wire
from edge.state.port import Change, Heartbeat, Resync

HEARTBEAT = 0.3
"""Seconds between heartbeats."""
RESUME = 0.005
"""Seconds a resume takes; long enough that the edge has to wait for it."""


class ControlPlane:
    """Records, their changes, and who is told."""

    def __init__(self, world: dict[str, Any]) -> None:
        self._token = world["service_token"]
        self._jwks = world["jwks"]
        sandboxes = [wire.sandbox_from_json(json.dumps(one)) for one in world["sandboxes"]]
        grants = [wire.grant_from_json(json.dumps(one)) for one in world["grants"]]
        self._sandboxes: dict[str, SandboxRecord] = {one.id: one for one in sandboxes}
        self._grants: dict[str, GrantRecord] = {one.id: one for one in grants}
        self._changes: list[Change] = []
        self._news = asyncio.Event()
        self._resumes: dict[str, asyncio.Lock] = {}
        self._running_at: dict[str, int] = {}

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._authorise])
        app.add_routes(
            [
                web.get("/.well-known/jwks.json", self.keys),
                web.get("/bench/running", self.running),
                web.get(f"{wire.PREFIX}/sandboxes/{{id}}", self.sandbox),
                web.post(f"{wire.PREFIX}/sandboxes/{{id}}/resume", self.resume),
                web.get(f"{wire.PREFIX}/grants/{{id}}", self.grant),
                web.post(f"{wire.PREFIX}/usage", self.take),
                web.post(f"{wire.PREFIX}/acks", self.take),
                web.get(f"{wire.PREFIX}/events", self.events),
            ]
        )
        return app

    @web.middleware
    async def _authorise(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        internal = request.path.startswith(wire.PREFIX)
        if internal and request.headers.get("Authorization") != f"Bearer {self._token}":
            return web.json_response({"code": "unauthorized"}, status=401)
        return await handler(request)

    async def keys(self, _: web.Request) -> web.Response:
        return web.json_response(self._jwks)

    async def running(self, _: web.Request) -> web.Response:
        return web.json_response(self._running_at)

    async def sandbox(self, request: web.Request) -> web.Response:
        record = self._sandboxes.get(request.match_info["id"])
        return _json(wire.sandbox_to_json(record)) if record else _not_found()

    async def grant(self, request: web.Request) -> web.Response:
        record = self._grants.get(request.match_info["id"])
        return _json(wire.grant_to_json(record)) if record else _not_found()

    async def take(self, request: web.Request) -> web.Response:
        """Usage and acks: read and let go."""
        await request.read()
        return web.Response(status=204)

    async def resume(self, request: web.Request) -> web.Response:
        """Compare-and-resume: only the incarnation that was seen paused is resumed, and only once."""
        sandbox_id = request.match_info["id"]
        call = wire.resume_from_json(await request.read())
        if sandbox_id not in self._sandboxes:
            return _not_found()
        async with self._resumes.setdefault(sandbox_id, asyncio.Lock()):
            record = self._sandboxes[sandbox_id]
            if record.state is State.PAUSED and record.incarnation == call.paused_incarnation:
                self._publish(replace(record, state=State.RESUMING, version=record.version + 1))
                await asyncio.sleep(RESUME)
                record = replace(
                    record,
                    state=State.RUNNING,
                    version=record.version + 2,
                    incarnation=record.incarnation + 1,
                    running_since=time.time(),
                )
                # Before the change and the answer: the edge may learn it from either.
                self._running_at[sandbox_id] = time.monotonic_ns()
                self._publish(record)
        return _json(wire.sandbox_to_json(record))

    async def events(self, request: web.Request) -> web.WebSocketResponse:
        """Changes after the cursor, then live ones, with heartbeats in between."""
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        cursor = int(request.query.get("cursor", len(self._changes)))
        if not 0 <= cursor <= len(self._changes):
            cursor = len(self._changes)
            await socket.send_str(wire.event_to_json(Resync(cursor)))
        try:
            await self._tell(socket, cursor)
        except ConnectionError:
            pass  # The edge has ended.
        return socket

    async def _tell(self, socket: web.WebSocketResponse, cursor: int) -> None:
        while True:
            news = (
                self._news
            )  # Taken before the look at the changes, so that none is slept through.
            for change in self._changes[cursor:]:
                await socket.send_str(wire.event_to_json(change))
                cursor = change.cursor
            await socket.send_str(wire.event_to_json(Heartbeat(cursor)))
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await news.wait()
            except TimeoutError:
                pass

    def _publish(self, record: SandboxRecord) -> None:
        self._sandboxes[record.id] = record
        self._changes.append(Change(len(self._changes) + 1, record))
        self._news.set()
        self._news = asyncio.Event()


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _not_found() -> web.Response:
    return web.json_response({"code": "not_found"}, status=404)


async def main(file: Path) -> None:
    control_plane = ControlPlane(json.loads(file.read_text()))
    runner = web.AppRunner(control_plane.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1])))
