"""``preview-edge serve`` as a process of its own, between a scripted control plane and scripted apps."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import aiohttp

from tests.flows.controlplane import TOKEN
from tests.flows.rawclient import Answer, RawClient
from tests.flows.stage import Stage
from tests.ops.programs import PATIENCE, Program, toml


class Serving(Stage):
    """A stage whose edge is a process: ``program``, listening on ``port`` and ``admin_port``."""

    program: Program
    port: int
    admin_port: int

    def __init__(self, folder: Path, *arguments: str, **settings: Any) -> None:
        super().__init__(folder, jwks="url")
        self.folder = folder
        self.access_log = folder / "access.log"
        self._arguments = arguments
        self._groups = settings

    async def __aenter__(self) -> Self:
        self.plane.jwks = self.mint.jwks
        await self.plane.start()
        self._cleanup.push_async_callback(self.plane.stop)
        try:
            self.program = self._cleanup.enter_context(self.start())
            said = await self.said()
            self.port, self.admin_port = said["port"], said["admin_port"]
            await self.ready()
        except BaseException:
            await self._cleanup.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.plane.fault = None
        self.program.__exit__()
        await self._cleanup.aclose()
        assert not self.plane.crashes, self.plane.crashes

    def start(self, **options: Any) -> Program:
        """The edge as a user starts it, with a settings file."""
        base = f"http://127.0.0.1:{self.plane.port}"
        groups: dict[str, Any] = {
            "public_hostname": self.mint.site,
            "listen": {"port": 0, "admin_port": 0},
            "control_plane": {"url": base, "token": TOKEN},
            "tokens": {"jwks_url": f"{base}/.well-known/jwks.json"},
            "cookie": {"keys": [{"kid": "fleet", "secret": self.mint.fleet}]},
            "log": {"access": str(self.access_log)},
        }
        for name, value in self._groups.items():
            groups[name] = groups.get(name, {}) | value if isinstance(value, dict) else value
        file = self.folder / "edge.toml"
        file.write_text(toml(groups))
        return Program(self.folder, "serve", "--config", str(file), *self._arguments, **options)

    async def said(self) -> dict[str, Any]:
        """Its first line."""
        await self.until(lambda: "\n" in self.program.out)
        said: dict[str, Any] = json.loads(self.program.out.split("\n", 1)[0])
        return said

    async def client(self) -> RawClient:
        return await RawClient.open(self.port)

    async def admin(self, path: str) -> tuple[int, str]:
        """Status and text of an admin page."""
        url = f"http://127.0.0.1:{self.admin_port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()

    async def ready(self) -> None:
        """Wait until it says so."""
        for _ in self._looks():
            if (await self.admin("/readyz"))[0] == 200:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"not ready: {await self.admin('/readyz')}\n{self.program.err}")

    async def unready(self) -> list[str]:
        """Wait until it is not, and why."""
        for _ in self._looks():
            status, text = await self.admin("/readyz")
            if status == 503:
                reasons: list[str] = json.loads(text)["reasons"]
                return reasons
            await asyncio.sleep(0.01)
        raise AssertionError("still ready")

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what the process does."""
        for _ in self._looks():
            if holds():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"late: {self.program.out}\n{self.program.err}")

    async def ended(self) -> int:
        """Its exit status, once it has ended by itself."""
        await self.until(lambda: self.program.over)
        return self.program.ended()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.program.signal(number)

    def access(self) -> list[dict[str, Any]]:
        """The access log's lines so far."""
        return [json.loads(line) for line in self.access_log.read_text().splitlines()]

    @staticmethod
    def _looks() -> itertools.takewhile[float]:
        clock = asyncio.get_running_loop().time
        end = clock() + PATIENCE
        return itertools.takewhile(lambda now: now < end, iter(clock, None))


__all__ = ["Answer", "Serving"]
