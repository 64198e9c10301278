"""A pause for inactivity in a fleet: the embedded control plane asks every edge, however the edges hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from edge.appliance.config import EdgeLine
from edge.core.records import GrantRecord, SandboxRecord, State
from edge.core.settings import Settings
from edge.ops.edge import Edge
from edge.ops.server import build_edge
from tests.appliance.service import PAUSES, TOKEN, Service
from tests.flows.rawclient import RawClient
from tests.flows.scriptedapp import AppConnection, ScriptedApp
from tests.flows.stage import until
from tests.state.redis.valkey import Valkey

IDLE = 300
"""Milliseconds without activity after which the sandbox may be paused."""


class Fleet:
    """The embedded control plane, publishing, and three edges; `states` is what has been said of its sandboxes."""

    def __init__(self, redis: Valkey, service: Service, edges: list[Edge]) -> None:
        self.redis = redis
        self.service = service
        self.edges = edges
        self.states: list[State] = []
        service.plane.parts.feed.listen(self._hear)

    def _hear(self, record: SandboxRecord | GrantRecord) -> None:
        if isinstance(record, SandboxRecord):
            self.states.append(record.state)

    async def preview(self, app: ScriptedApp) -> bytes:
        """A request to the app in a sandbox that pauses when nothing happens."""
        sandbox = await self.service.create(**PAUSES, inactivity_timeout_ms=IDLE)
        path = f"/v1/sandboxes/{sandbox}/ports/{app.port}/signed-preview-url"
        status, answer = await self.service.api("POST", path, {})
        assert status == 200, answer
        url = urlsplit(answer["url"])
        return f"GET /?{url.query} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode()


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Running, and every edge caught up."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Valkey(tmp_path))
        service = Service(tmp_path / "plane", public_hostname="edge.test", redis={"url": redis.url})
        service = await stack.enter_async_context(service)
        base = f"http://127.0.0.1:{service.plane.port}"
        edges = []
        for number in range(3):
            said: dict[str, Any] = {
                "public_hostname": "edge.test",
                "listen": {"port": 0, "admin_port": 0},
                "control_plane": {"url": base, "token": TOKEN, "edge_id": f"edge-{number}"},
                "redis": {"url": redis.url},
                "tokens": {"issuer": "test", "jwks_url": f"{base}/.well-known/jwks.json"},
                "cookie": {"keys": [{"kid": "fleet", "secret": "f" * 32}]},
                "log": {"access": "", "level": "error"},
                "drain": {"timeout": 0, "waiters": 0, "tunnels": 0},
            }
            edge = build_edge(Settings.model_validate(said))
            await edge.start()
            stack.push_async_callback(edge.stop)
            edges.append(edge)
        service.plane.parts.set_edge(EdgeLine(public_port=edges[0].port), service.plane.port)
        await until(lambda: not any(edge.unready() for edge in edges))
        await until(lambda: len(service.plane.parts.edges.live) == 3)
        yield Fleet(redis, service, edges)


@pytest.mark.parametrize("redis", ["there", "flushed", "gone"])
async def test_a_request_on_one_of_three_edges_keeps_the_sandbox_awake(
    fleet: Fleet, redis: str
) -> None:
    """Asked again and again, refused each time; once it is answered the sandbox sleeps, and any edge wakes it."""
    over = asyncio.Event()

    async def slow(connection: AppConnection) -> None:
        while await connection.read_head():
            await over.wait()
            await connection.answer(b"done")

    async with ScriptedApp(slow) as app:
        get = await fleet.preview(app)
        async with await RawClient.open(fleet.edges[1].port) as client:
            await client.send(get)
            await app.until(lambda: len(app.requests) == 1)
            if redis == "gone":
                fleet.redis.kill()
            elif redis == "flushed":
                async with fleet.redis.client() as direct:
                    await direct.flushall()
            for _ in range(2):
                asked = len(fleet.states)
                await until(lambda asked=asked: State.PAUSING in fleet.states[asked:])
                await until(lambda: fleet.states[-1] is not State.PAUSING)
                assert fleet.states[-1] is State.RUNNING
            over.set()
            assert (await client.answer()).body == b"done"
        await until(lambda: fleet.states[-1] is State.PAUSED, 40.0)
        async with await RawClient.open(fleet.edges[2].port) as client:
            assert (await client.ask(get)).body == b"done"
