"""The preview proxy target: which preview, and the tokens for it. Asked for anew before it expires."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

from nullspace import AsyncSandbox
from nullspace.client import AsyncNullspaceClient

LIFETIME = int(os.environ.get("PREVIEW_LIFETIME", "86400"))
"""Seconds a target is good for; 60 to 86400."""
BEFORE = float(os.environ.get("PREVIEW_RENEW_BEFORE", "300"))
"""Seconds before its expiry at which the next one is asked for."""
RETRY = 10.0
"""Seconds until the next try after one that failed. Meanwhile the old tokens are used."""

_log = logging.getLogger("uvicorn.error")


@dataclass(frozen=True)
class Target:
    """Where the edge is, which preview is meant, and the right to see it."""

    origin: str
    host: str
    http_token: str
    websocket_token: str
    traffic_token: str

    def headers(self, token: str) -> list[tuple[bytes, bytes]]:
        """What a request to the edge carries."""
        found = [
            (b"host", self.host.encode()),
            (b"x-nullspace-preview-proxy-token", token.encode()),
        ]
        if self.traffic_token:
            found.append((b"x-nullspace-traffic-access-token", self.traffic_token.encode()))
        return found


class Targets:
    """``current`` is the target to use now."""

    current: Target

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """From the API, by SANDBOX_ID and SANDBOX_PORT; or as given by PREVIEW_HTTP_TOKEN and others."""
        if "PREVIEW_HTTP_TOKEN" in os.environ:
            self.current = _given()
            yield
            return
        client = AsyncNullspaceClient()  # reads NULLSPACE_API_URL and NULLSPACE_API_KEY
        # `AsyncSandbox.connect` would wake the sandbox, if it is paused. That is for visitors to do.
        info = await AsyncSandbox.get_info_by_id(os.environ["SANDBOX_ID"])
        sandbox = AsyncSandbox(info, client)
        remaining = await self._renew(sandbox)
        renewing = asyncio.create_task(self._renew_for_ever(sandbox, remaining))
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            await client.close()

    async def _renew_for_ever(self, sandbox: AsyncSandbox, remaining: float) -> None:
        wait = max(remaining - BEFORE, 1.0)
        while True:
            await asyncio.sleep(wait)
            try:
                wait = max(await self._renew(sandbox) - BEFORE, 1.0)
            except Exception:
                _log.exception("No new target; trying again in %.0f s", RETRY)
                wait = RETRY

    async def _renew(self, sandbox: AsyncSandbox) -> float:
        """Ask for a target, and return the seconds it is good for."""
        port = int(os.environ["SANDBOX_PORT"])
        made = await sandbox.create_preview_proxy_target(port, expires_in_seconds=LIFETIME)
        url = urlsplit(made.http_url)
        self.current = Target(
            origin=os.environ.get("PREVIEW_ORIGIN") or f"{url.scheme}://{url.netloc}",
            host=url.netloc,
            http_token=made.http_token,
            websocket_token=made.websocket_token,
            traffic_token=os.environ.get("PREVIEW_TRAFFIC_TOKEN", ""),
        )
        return (made.expires_at - datetime.now(UTC)).total_seconds()


def _given() -> Target:
    host = os.environ["PREVIEW_HOST"]
    return Target(
        origin=os.environ.get("PREVIEW_ORIGIN") or f"https://{host}",
        host=host,
        http_token=os.environ["PREVIEW_HTTP_TOKEN"],
        websocket_token=os.environ.get("PREVIEW_WEBSOCKET_TOKEN", ""),
        traffic_token=os.environ.get("PREVIEW_TRAFFIC_TOKEN", ""),
    )
