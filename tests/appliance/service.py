"""A real control plane, started as production starts it, and a plain HTTP client for it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import ClientSession

from edge.appliance.config import Config, read_config
from edge.appliance.server import ControlPlane
from edge.state.port import Heartbeat, WatchEvent
from edge.state.wire import PREFIX, event_from_json

KEY = "nsk_test"
TOKEN = "service-token-of-at-least-32-characters"
PAUSES = {"timeout_action": "hibernate", "auto_resume": True}


def config(data_dir: Path, **changes: object) -> Config:
    """Settings for a test: any port, previews on edge.test."""
    said: dict[str, object] = {
        "port": 0,
        "api_key": KEY,
        "service_token": TOKEN,
        "issuer": "test",
        "public_hostname": "edge.test",
        "public_port": 8443,
        "public_scheme": "https",
        "data_dir": str(data_dir),
        "reserved_ports": [3002],
    }
    return read_config(json.dumps(said | changes))


async def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for what has no event of its own: another process, or the other end of a socket."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)


class Service:
    """A running control plane. Answers come as (status, JSON), where empty bodies are None."""

    def __init__(self, data_dir: Path, **changes: object) -> None:
        self.plane = ControlPlane(config(data_dir, **changes))

    async def __aenter__(self) -> Self:
        await self.plane.start()
        self.session = ClientSession(f"http://127.0.0.1:{self.plane.port}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()
        await self.plane.stop()

    async def raw(self, method: str, path: str, **options: Any) -> tuple[Any, bytes]:
        """An answer's head and its bytes; no key is sent."""
        async with self.session.request(method, path, allow_redirects=False, **options) as answer:
            return answer, await answer.read()

    async def api(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> tuple[int, Any]:
        """A call of the public API."""
        return await self._call(method, path, body, KEY, headers)

    async def edge(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """A call of the internal API."""
        return await self._call(method, f"{PREFIX}/{path}", body, TOKEN, {})

    async def create(self, **body: Any) -> str:
        """The id of a new sandbox."""
        status, made = await self.api("POST", "/v1/sandboxes", body)
        assert status == 201, made
        return str(made["id"])

    async def _call(
        self, method: str, path: str, body: Any, key: str, more: dict[str, str]
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"} | more
        options = {"data": body} if isinstance(body, bytes) else {"json": body}
        if body is None:
            options = {}
        answer, data = await self.raw(method, path, headers=headers, **options)
        return answer.status, json.loads(data) if data else None

    def watch(self, edge: str, cursor: int | None = None) -> Watcher:
        """The event stream as an edge sees it."""
        query = {"edge": edge} | ({} if cursor is None else {"cursor": str(cursor)})
        return Watcher(self, query)

    def stream(self, sandbox: str, **options: Any) -> Streaming:
        """A socket for one command."""
        return Streaming(self, sandbox, options)


FRAME = 64 * 1024 + 1
"""Characters of a frame, at most: half a character that came before can show as one more."""


class Streaming:
    """One socket of ``S/ws?channel=exec``."""

    def __init__(self, service: Service, sandbox: str, options: dict[str, Any]) -> None:
        self._service = service
        self._path = f"/v1/sandboxes/{sandbox}/ws"
        self._options = {"params": {"channel": "exec"}} | options

    async def __aenter__(self) -> Self:
        self.socket = await self._service.session.ws_connect(
            self._path, headers={"Authorization": f"Bearer {KEY}"}, **self._options
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()

    async def say(self, kind: str, **what: Any) -> None:
        """Send a frame."""
        await self.socket.send_json({"type": kind, **what})

    async def start(self, **command: Any) -> int:
        """Start a command; its pid."""
        await self.say("exec_start", **command)
        frame = await self.hear()
        assert frame["type"] == "exec_started", frame
        return int(frame["pid"])

    async def hear(self) -> Any:
        """The next frame; None when the socket is closed instead."""
        message = await self.socket.receive(timeout=30)
        return json.loads(message.data) if message.type is aiohttp.WSMsgType.TEXT else None

    async def rest(self) -> tuple[str, str, Any]:
        """Both streams to the end, and the last frame; it has to be followed by the close."""
        got = {"exec_stdout": "", "exec_stderr": ""}
        while (frame := await self.hear())["type"] in got:
            assert len(frame["data"]) <= FRAME, "more than 64 KiB of output"
            got[frame["type"]] += frame["data"]
        assert await self.hear() is None, "nothing comes after the last frame"
        return got["exec_stdout"], got["exec_stderr"], frame


class Watcher:
    """One edge's event socket."""

    def __init__(self, service: Service, query: dict[str, str]) -> None:
        self._service = service
        self._query = query

    async def __aenter__(self) -> Self:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        self.socket = await self._service.session.ws_connect(
            f"{PREFIX}/events",
            params=self._query,
            headers=headers,
            timeout=aiohttp.ClientWSTimeout(ws_close=0.5),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()

    async def next(self) -> WatchEvent:
        """The next frame, whatever it is."""
        return event_from_json(await self.socket.receive_str())

    async def change(self) -> Any:
        """The next frame that is no heartbeat."""
        while isinstance(event := await self.next(), Heartbeat):
            pass
        return event

    async def until(self, state: str) -> Any:
        """The next sandbox record in this state."""
        while True:
            record = (await self.change()).record
            if getattr(record, "state", None) == state:
                return record
