"""The embedded control plane and the real edge in front of it, with apps played by the test.

Sandboxes share this machine's network, so an app of the test on loopback is an app in every sandbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from service import TOKEN, Service

from edge.appliance.api.operator import PREFIX
from edge.appliance.config import EdgeLine
from edge.core.settings import Settings
from edge.ops.edge import Edge
from edge.ops.server import build_edge
from tests.flows.rawclient import Answer, RawClient
from tests.flows.scriptedapp import Handler, ScriptedApp, echo

UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
)


def edge_of(port: int, wall: Callable[[], float]) -> Edge:
    """An edge in front of the control plane at this port, as production builds it."""
    base = f"http://127.0.0.1:{port}"
    settings = Settings.model_validate(
        {
            "public_hostname": "edge.test",
            "listen": {"port": 0, "admin_port": 0},
            "control_plane": {"url": base, "token": TOKEN},
            "tokens": {"issuer": "test", "jwks_url": f"{base}/.well-known/jwks.json"},
            "cookie": {"keys": [{"kid": "fleet", "secret": "f" * 32}]},
            "log": {"access": "", "level": "error"},
            "drain": {"timeout": 0, "waiters": 0, "tunnels": 0},
        }
    )
    return build_edge(settings, wall=wall)


class Whole:
    """Both, running. ``wall`` is the edge's clock."""

    def __init__(self, folder: Path, wall: Callable[[], float]) -> None:
        self._folder = folder
        self._wall = wall
        self._cleanup = AsyncExitStack()

    async def __aenter__(self) -> Self:
        service = Service(self._folder, public_hostname="edge.test", public_scheme="https")
        self.service = await self._cleanup.enter_async_context(service)
        self.edge = edge_of(service.plane.port, self._wall)
        await self.edge.start()
        self._cleanup.push_async_callback(self.edge.stop)
        service.plane.parts.set_edge(EdgeLine(public_port=self.edge.port), service.plane.port)
        await self.until(lambda: not self.edge.unready())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._cleanup.aclose()

    async def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait for what has no event of its own."""
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.005)

    async def app(self, handler: Handler = echo) -> ScriptedApp:
        """An app that lives until the end of the test."""
        return await self._cleanup.enter_async_context(ScriptedApp(handler))

    async def api(self, method: str, path: str, body: Any = None) -> Any:
        """A call of the public API that succeeds."""
        status, answer = await self.service.api(method, f"/v1/sandboxes{path}", body)
        assert status < 300, answer
        return answer

    async def operator(self, path: str) -> Any:
        """A call of the operator API that succeeds; a switch when it is no list."""
        method = "GET" if path.startswith("audit") else "POST"
        key = {"Authorization": f"Bearer {TOKEN}"}
        status, answer = await self.service.api(method, f"{PREFIX}/{path}", None, **key)
        assert status == 200, answer
        return answer

    async def grant(self, sandbox: str, grant: str) -> dict[str, Any]:
        """A grant as the tenant sees it."""
        items = (await self.api("GET", f"/{sandbox}/preview-urls"))["items"]
        return next(item for item in items if item["id"] == grant)

    async def counted(
        self, sandbox: str, grant: str, holds: Callable[[dict[str, Any]], bool]
    ) -> dict[str, Any]:
        """The grant, once the edge has reported what makes ``holds`` true."""
        async with asyncio.timeout(20):
            while not holds(found := await self.grant(sandbox, grant)):  # noqa: ASYNC110 - a report
                await asyncio.sleep(0.05)
        return found

    async def answered(self, data: bytes, status: int) -> None:
        """Wait until news on its way to the edge make it answer so."""
        async with asyncio.timeout(20):
            while True:
                async with await RawClient.open(self.edge.port) as client:
                    await client.send(data)
                    if (await client.head()).status == status:
                        return

    async def client(self) -> RawClient:
        """A connection to the edge."""
        return await self._cleanup.enter_async_context(await RawClient.open(self.edge.port))

    async def ask(self, request: bytes) -> Answer:
        """One request on a connection of its own, and its answer."""
        async with await RawClient.open(self.edge.port) as client:
            return await client.ask(request)


def request(url: str, path: str = "", fields: bytes = b"", method: str = "GET") -> bytes:
    """A request to a URL that the API gave; ``path`` replaces the URL's, its query stays."""
    parts = urlsplit(url)
    line = f"{method} {path or parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
    return line.encode() + fields + b"\r\n"


def header(name: str, value: str) -> bytes:
    """A field line."""
    return f"{name}: {value}\r\n".encode()
