"""The control plane of the fleet: the bench's own, with the publisher of the embedded one.

``python -m bench.fleet.plane FILE REDIS_URL`` prints ``{"port": N}``. ``GET /bench/calls`` tells how often each call
was made, ``resumed`` how many sandboxes have got a new incarnation. Sandboxes named ``sb_hang...`` never come back, those
named ``sb_late...`` after a while.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop
from aiohttp import web

from bench.control_plane import ControlPlane
from edge.core.records import GrantRecord, SandboxRecord
from edge.core.redis_settings import RedisSettings
from edge.state import wire
from edge.state.redis import LeftUsage, Publisher

HANGS = "sb_hang"
LATE = "sb_late"
WHILE = 0.3
"""Seconds, long enough that whoever was asked at the same time waits."""


class FleetPlane(ControlPlane):
    """Publishes what it knows, counts what it is asked."""

    def __init__(self, world: dict[str, Any], redis: RedisSettings) -> None:
        super().__init__(world)
        self.publisher = Publisher(redis, self._everything, wall=time.time, log=_log)
        self.left_usage = LeftUsage(redis, lambda _: None, log=_log)
        self._calls: Counter[str] = Counter()

    def app(self) -> web.Application:
        app = super().app()
        app.middlewares.append(self._count)
        app.add_routes([web.get("/bench/calls", self.calls)])
        return app

    async def calls(self, _: web.Request) -> web.Response:
        return web.json_response({**self._calls, "resumed": len(self._running_at)})

    async def resume(self, request: web.Request) -> web.Response:
        if request.match_info["id"].startswith(HANGS):
            await asyncio.sleep(3600)
        if request.match_info["id"].startswith(LATE):
            await asyncio.sleep(WHILE)
        return await super().resume(request)

    @web.middleware
    async def _count(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        if request.path.startswith(wire.PREFIX):
            rest = request.path.removeprefix(wire.PREFIX).strip("/").split("/")
            self._calls["resume" if rest[-1] == "resume" else rest[0]] += 1
        return await handler(request)

    def _everything(self) -> Iterator[SandboxRecord | GrantRecord]:
        yield from self._sandboxes.values()
        yield from self._grants.values()

    def _publish(self, record: SandboxRecord) -> None:
        super()._publish(record)
        self.publisher.publish(record)


def _log(event: str, **fields: object) -> None:
    print(json.dumps({"event": event, **fields}), file=sys.stderr, flush=True)


async def main(file: Path, url: str) -> None:
    # A machine that is busy with twenty edges shall not look like a Redis in trouble.
    redis = RedisSettings.model_validate({"url": url, "timeout": 30.0})
    plane = FleetPlane(json.loads(file.read_text()), redis)
    runner = web.AppRunner(plane.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    await asyncio.gather(plane.publisher.run(), plane.left_usage.run())


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2]))
