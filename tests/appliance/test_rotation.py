"""Rotations while everything runs: control plane, edge, and clients that never stop asking."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from service import TOKEN, Service, until
from yarl import URL

from edge.cli import main
from edge.core.settings import Settings
from edge.ops.edge import Edge
from edge.ops.server import build_edge
from edge.state import keys
from edge.state.keyfiles import read_keys


@dataclass
class World:
    """A control plane, an edge that reads its keys, and a sandbox whose app answers."""

    service: Service
    edge: Edge
    folder: Path
    sandbox: str
    port: int

    async def mint(self) -> URL:
        """A fresh preview URL."""
        path = f"/v1/sandboxes/{self.sandbox}/ports/{self.port}/signed-preview-url"
        status, made = await self.service.api("POST", path, {})
        assert status == 200, made
        return URL(made["url"], encoded=True)

    async def open(self, url: URL) -> int:
        """The status that the edge answers with."""
        parts = urlsplit(str(url))
        here = URL(f"http://127.0.0.1:{self.edge.port}/?{parts.query}", encoded=True)
        async with self.service.session.get(here, headers={"Host": parts.netloc}) as answer:
            return answer.status

    async def rotate(self, *options: str) -> None:
        """What an operator types."""
        await asyncio.to_thread(main, ["keys", "rotate", str(self.folder), *options])


def kid(url: URL) -> str:
    """The key that signed the token of a URL."""
    head = url.query["edge_token"].split(".")[0]
    return str(json.loads(base64.urlsafe_b64decode(head + "=="))["kid"])


@pytest.fixture
async def world(
    tmp_path: Path, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """Everything up, and the first key in use."""
    monkeypatch.setattr(keys, "HINT_INTERVAL", 0.0)
    async with Service(tmp_path / "data") as service:
        base = f"http://127.0.0.1:{service.plane.port}"
        settings = {
            "public_hostname": "edge.test",
            "listen": {"port": 0, "admin_port": 0},
            "control_plane": {"url": base, "token": TOKEN},
            "tokens": {
                "issuer": "test",
                "jwks_url": f"{base}/.well-known/jwks.json",
                "jwks_refresh": 0.2,
            },
            "cookie": {"keys": [{"kid": "fleet", "secret": "s" * 32}]},
            "log": {"access": "", "level": "error"},
            "drain": {"timeout": 0, "waiters": 0, "tunnels": 0},
        }
        edge = build_edge(Settings.model_validate(settings))
        await edge.start()
        try:
            await until(lambda: not edge.unready())
            sandbox = await service.create()
            command = f"exec python3 -m http.server --bind 127.0.0.1 {unused_tcp_port}"
            body = {"command": command, "shell": True, "background": True}
            assert (await service.api("POST", f"/v1/sandboxes/{sandbox}/exec", body))[0] == 200
            path = f"/v1/sandboxes/{sandbox}/ports/{unused_tcp_port}/readiness"
            _, said = await service.api("POST", path, {"kind": "tcp", "timeout_secs": 30})
            assert said["ready"], said
            yield World(service, edge, tmp_path / "data", sandbox, unused_tcp_port)
        finally:
            await edge.stop()


async def test_not_one_request_is_refused_during_a_rotation(world: World) -> None:
    """Tokens minted before, during and after: all accepted, all the time, with no restart and no signal."""
    links = [await world.mint()]
    old = kid(links[0])
    statuses: set[int] = set()

    async def visit(seconds: float, new: str) -> None:
        async with asyncio.timeout(seconds):
            while kid(links[-1]) != new:
                links.append(await world.mint())
                for link in (links[0], links[len(links) // 2], links[-1]):
                    statuses.add(await world.open(link))

    assert await world.open(links[0]) == 200
    await world.rotate("--grace", "1")
    new = read_keys(world.folder)[-1].key.kid
    await visit(30, new)
    assert {kid(link) for link in links} == {old, new}
    # One by one again, now that the new key signs: the old ones are good until they expire.
    for link in links[:: max(1, len(links) // 20)]:
        statuses.add(await world.open(link))
    assert statuses == {200}
    assert set(world.edge.keys.keys.issued) == {old, new}


async def test_after_a_leak_old_links_end_and_new_ones_work_at_once(world: World) -> None:
    """``--revoke``: the very next link is good, and the ones before are refused."""
    before = await world.mint()
    assert await world.open(before) == 200
    await world.rotate("--revoke")
    after = await world.mint()
    assert kid(after) != kid(before)
    assert await world.open(after) == 200
    await until(lambda: set(world.edge.keys.keys.issued) == {kid(after)})
    assert await world.open(before) == 401
