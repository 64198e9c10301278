"""The admin listener: is it alive, should it get traffic, what has it counted. For private networks.

======== =======================================================================================
/healthz 200 as long as the process answers at all
/readyz  200, or 503 with the reasons, as JSON: ``{"ready": false, "reasons": ["draining"]}``
/metrics Prometheus text
======== =======================================================================================
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from edge.ops.private import is_one_of_us
from edge.ops.process import cannot_listen

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """One admin listener. ``unready`` gives the reasons to stay away, ``metrics`` the exposition text."""

    def __init__(
        self,
        *,
        unready: Callable[[], Awaitable[list[str]]],
        metrics: Callable[[], Awaitable[bytes]],
    ) -> None:
        self._unready = unready
        self._metrics = metrics
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._scrape)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def listen(self, host: str, port: int) -> int:
        """Listen on TCP; returns the port. Raises `StartError`."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as e:
            raise cannot_listen("listen.admin_port", host, port, e) from None
        address: tuple[str, int] = self._runner.addresses[0]
        return address[1]

    async def listen_privately(self, path: Path) -> None:
        """Listen on a Unix socket, for our own user. Raises OSError."""
        self._runner.app.middlewares.append(_private)
        await self._runner.setup()
        await web.UnixSite(self._runner, path).start()

    async def close(self) -> None:
        """Stop listening."""
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = await self._unready()
        body: dict[str, object] = {"ready": not reasons}
        if reasons:
            body["reasons"] = reasons
        return web.json_response(body, status=503 if reasons else 200)

    async def _scrape(self, _: web.Request) -> web.Response:
        text = await self._metrics()
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})


@web.middleware
async def _private(request: web.Request, handler: Handler) -> web.StreamResponse:
    peer = request.get_extra_info("socket")
    if peer is None or not is_one_of_us(peer):
        raise web.HTTPForbidden
    return await handler(request)
