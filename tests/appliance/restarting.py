"""A control plane in a process of its own that a test kills and starts again, in one directory, at one port."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any, Self

import aiohttp
from service import KEY, TOKEN

from edge.appliance.api.operator import PREFIX as OPERATOR
from edge.state.wire import PREFIX as INTERNAL

ROOT = Path(__file__).parents[2]
GONE = (aiohttp.ClientError, ConnectionError)
"""What a call raises whose control plane is killed."""


class Plane:
    """The control plane of one data directory. It keeps the port that it got first."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.port = 0
        self._config = folder / "config.json"
        self._errors = folder / "stderr"
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()

    async def start(self) -> dict[str, Any]:
        """Start it, in the state in which the last one was killed; what it says once it listens."""
        said = {"port": self.port, "api_key": KEY, "service_token": TOKEN, "issuer": "test"}
        said |= {"public_hostname": "edge.test", "public_scheme": "https", "public_port": 8443}
        self._config.write_text(json.dumps(said | {"data_dir": str(self.data)}))
        with self._errors.open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "edge.appliance", "--config", str(self._config),
                stdout=PIPE, stderr=errors, cwd=ROOT,
            )  # fmt: skip
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        assert line, self._errors.read_text()
        heard: dict[str, Any] = json.loads(line)
        self.port = heard["port"]
        self._session = aiohttp.ClientSession(f"http://127.0.0.1:{self.port}")
        return heard

    def strike(self) -> None:
        """Kill it now."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)

    async def kill(self) -> None:
        """Kill it if it lives, and wait for its end; it had nothing to complain of."""
        if self._process is None:
            return
        if self._process.returncode is None:
            self.strike()
        await self._process.communicate()
        self._process = None
        await self._session.close()
        assert self._errors.read_text() == ""

    async def call(
        self, method: str, path: str, body: Any = None, *, key: str = KEY, **headers: str
    ) -> tuple[int, Any]:
        """Status and JSON of an answer. Raises one of `GONE` when it is killed meanwhile."""
        headers |= {"Authorization": f"Bearer {key}"}
        options = {} if body is None else {"json": body}
        async with self._session.request(method, path, headers=headers, **options) as answer:
            data = await answer.read()
            return answer.status, json.loads(data) if data else None

    async def api(self, method: str, path: str = "", body: Any = None, **headers: str) -> Any:
        """A call about sandboxes that succeeds."""
        status, answer = await self.call(method, f"/v1/sandboxes{path}", body, **headers)
        assert status < 300, answer
        return answer

    async def operator(self, method: str, path: str, body: Any = None) -> Any:
        """A call of the operator API that succeeds."""
        status, answer = await self.call(method, f"{OPERATOR}/{path}", body, key=TOKEN)
        assert status == 200, answer
        return answer

    async def edge(self, method: str, path: str, body: Any = None) -> Any:
        """A call of the internal API that succeeds."""
        status, answer = await self.call(method, f"{INTERNAL}/{path}", body, key=TOKEN)
        assert status < 300, answer
        return answer
