"""What most people would write: a proxy of aiohttp's server and its ClientSession, streaming, on uvloop.

``python -m bench.aiohttp_proxy PORT ACCESS_LOG FAST_PORT LIVE_PORT``
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from logging.handlers import MemoryHandler

import uvloop
from aiohttp import ClientSession, ClientTimeout, DummyCookieJar, TCPConnector, web
from multidict import CIMultiDict

HOP_BY_HOP = frozenset(
    "connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding "
    "upgrade".split()
)


class Proxy:
    """Forwards everything below ``/live/`` to one port and the rest to another."""

    def __init__(self, fast_port: int, live_port: int) -> None:
        self._fast = f"http://127.0.0.1:{fast_port}"
        self._live = f"http://127.0.0.1:{live_port}"
        self._session: ClientSession

    async def start(self, _: web.Application) -> None:
        self._session = ClientSession(
            connector=TCPConnector(limit=0),
            timeout=ClientTimeout(total=None),
            cookie_jar=DummyCookieJar(),
            auto_decompress=False,
        )

    async def stop(self, _: web.Application) -> None:
        await self._session.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        base = self._live if request.raw_path.startswith("/live/") else self._fast
        async with self._session.request(
            request.method,
            base + request.raw_path,
            headers=end_to_end(request.headers),
            data=request.content if request.body_exists else None,
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(
                status=answer.status, reason=answer.reason, headers=end_to_end(answer.headers)
            )
            await response.prepare(request)
            async for block in answer.content.iter_any():
                await response.write(block)
            await response.write_eof()
            return response


def end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers a proxy passes on."""
    return CIMultiDict((k, v) for k, v in headers.items() if k.lower() not in HOP_BY_HOP)


def main(port: int, access_log: str, fast_port: int, live_port: int) -> None:
    # As in the other proxies, lines are written in batches.
    log = logging.getLogger("access")
    log.setLevel(logging.INFO)
    log.addHandler(MemoryHandler(512, target=logging.FileHandler(access_log)))
    proxy = Proxy(fast_port, live_port)
    app = web.Application(client_max_size=0)
    app.on_startup.append(proxy.start)
    app.on_cleanup.append(proxy.stop)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    web.run_app(
        app, host="127.0.0.1", port=port, access_log=log, print=None, loop=uvloop.new_event_loop()
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
