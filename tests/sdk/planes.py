"""A control plane that can be killed and started anew, and a way to it that can be cut."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import aiohttp

ROOT = Path(__file__).parents[2]
KEY = "nsk_sdk_test"


class Plane:
    """A process on one directory and one port, whichever run it is in. Its calls bypass the client."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._child: subprocess.Popen[bytes] | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        self._session = aiohttp.ClientSession(
            f"http://127.0.0.1:{self.port}", headers={"Authorization": f"Bearer {KEY}"}
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        await self.end(signal.SIGTERM)

    @property
    def login(self) -> dict[str, Any]:
        """What a client needs to know."""
        return {"base_url": f"http://127.0.0.1:{self.port}", "api_key": KEY}

    async def start(self) -> None:
        """A run; on the port of the one before."""
        said = {
            "port": self.port,
            "api_key": KEY,
            "service_token": "service-token-of-at-least-32-characters",
            "data_dir": str(self._folder),
        }
        self._child = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-m", "edge.appliance", "--config", "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if not k.startswith("NULLSPACE_")},
        )
        assert self._child.stdin is not None and self._child.stdout is not None
        self._child.stdin.write(json.dumps(said).encode() + b"\n")
        self._child.stdin.flush()
        line = await asyncio.to_thread(self._child.stdout.readline)
        self.port = json.loads(line)["port"]

    async def end(self, how: signal.Signals) -> None:
        """The end of a run."""
        child, self._child = self._child, None
        if child is None:
            return
        child.send_signal(how)
        await asyncio.to_thread(child.wait, 20)
        assert child.stdin is not None and child.stdout is not None
        child.stdin.close()
        child.stdout.close()

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """A call that succeeds."""
        async with self._session.request(method, f"/v1{path}", json=body) as answer:
            assert answer.status < 300, await answer.text()
            return await answer.json() if answer.status != 204 else None

    async def live(self) -> str:
        """A short life of a sandbox, five events long; its id."""
        sandbox = (await self.call("POST", "/sandboxes", {}))["id"]
        await self.call("POST", f"/sandboxes/{sandbox}/timeout", {"timeout_ms": 60_000})
        await self.call("DELETE", f"/sandboxes/{sandbox}")
        return str(sandbox)

    async def listed(self, query: str = "") -> list[str]:
        """The ids of all events, oldest first: the oracle."""
        ids: list[str] = []
        while True:
            page = await self.call(
                "GET", f"/lifecycle/events?order=asc&limit=1000&offset={len(ids)}{query}"
            )
            ids += [event["id"] for event in page["events"]]
            if not page["has_more"]:
                return ids


class Cutter:
    """A way to a port that cuts connections off: after some bytes, in the middle of whatever they are."""

    def __init__(self, port: int, seed: int) -> None:
        self._to = port
        self._dice = random.Random(seed)
        self._open: set[asyncio.Task[None]] = set()
        self.cuts = 0
        self.calm = False
        """Whether connections are left alone from now on."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._client, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        if self._open:
            await asyncio.wait(self._open)
        await self._server.wait_closed()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        left = self._dice.randrange(300, 5000)
        writers = [writer]
        try:
            back, out = await asyncio.open_connection("127.0.0.1", self._to)
            writers.append(out)
            up = asyncio.create_task(_pump(reader, out))
            try:
                while data := await back.read(self._dice.randrange(1, 2000)):
                    if not self.calm and len(data) > left:
                        writer.write(data[:left])
                        await writer.drain()
                        self.cuts += 1
                        break
                    left -= len(data)
                    writer.write(data)
                    await writer.drain()
            finally:
                up.cancel()
                await asyncio.wait([up])
        except OSError:
            pass
        finally:
            for each in writers:
                # Half of the time as a reset.
                if self._dice.random() < 0.5:
                    each.transport.abort()
                each.close()
                with suppress(OSError):
                    await each.wait_closed()
            self._open.discard(task)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
        writer.close()
