"""The demo sandbox: a small real app that pauses when nobody uses it and wakes when somebody does."""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from edge.appliance.parts import Parts
from edge.appliance.problems import ApiError
from edge.appliance.readiness import wait_ready
from edge.appliance.requests import LONGEST_TIMEOUT_MS, LONGEST_TTL, Readiness
from edge.appliance.runtime import Command
from edge.appliance.sandbox import RESTART, Plan, Sandbox
from edge.appliance.store import Store

INACTIVITY = 20.0
"""Seconds without activity after which the demo pauses."""

ATTEMPTS = 3
"""Ports tried: a free one may be taken by somebody else before the app has it."""

APP = Path(__file__).parent / "app.py"


class DemoFailed(Exception):
    """The demo app did not come up. The message is one line."""


@dataclass(frozen=True, slots=True)
class Demo:
    """The running demo. The link hands the page its WebSocket URL in the fragment, which no server sees:
    a page cannot use its cookie for a WebSocket.
    """

    sandbox_id: str
    url: str = field(repr=False)
    websocket_url: str = field(repr=False)

    @property
    def link(self) -> str:
        """What to open in a browser."""
        return f"{self.url}#ws={quote(self.websocket_url, safe='')}"


async def end_demos(parts: Parts) -> None:
    """Remove the demos of earlier runs: of what their visitors saw nothing is left. Raises `StoreError`."""
    _declare(parts.store)
    for (sandbox_id,) in parts.store.read("SELECT sandbox_id FROM demos"):
        try:
            await parts.sandboxes.destroy(parts.sandboxes.get(sandbox_id), RESTART)
        except ApiError:
            pass  # Somebody has killed it already.
        parts.store.write("DELETE FROM demos WHERE sandbox_id = ?", (sandbox_id,))


def _declare(store: Store) -> None:
    store.declare("CREATE TABLE IF NOT EXISTS demos (sandbox_id TEXT PRIMARY KEY)")


async def start_demo(parts: Parts) -> Demo:
    """Create the sandbox, start the app, wait until it listens. Raises `DemoFailed`."""
    _declare(parts.store)

    def mark(sandbox: Sandbox) -> None:
        parts.store.write("INSERT INTO demos VALUES (?)", (sandbox.id,))

    plan = Plan(
        template="demo",
        vcpus=1,
        memory_mb=128,
        cwd="/workspace",
        metadata={"demo": True},
        auto_resume=True,
        inactivity_timeout=INACTIVITY,
        checkout={"source": "cold_create", "hit": False},
        mask_request_host=None,
        traffic_token_sha256=None,
    )
    try:
        sandbox = await parts.sandboxes.create(
            plan,
            envs={},
            cwd=None,
            timeout_ms=LONGEST_TIMEOUT_MS,
            timeout_action="hibernate",
            kept=mark,
        )
        for _ in range(ATTEMPTS):
            port = _free_port()
            command = Command(argv=[sys.executable, "-P", str(APP), str(port)])
            parts.sandboxes.reach(sandbox.id, port)
            async with parts.sandboxes.use(sandbox.id):
                await parts.runtime.spawn(sandbox.id, command)
                asked = Readiness(kind="http", path="/healthz", timeout_secs=20, interval_ms=100)
                ready = (await wait_ready(sandbox, port, asked, parts.wall))["ready"]
            if ready:
                preview = parts.grants.issue(sandbox.id, port, LONGEST_TTL)
                return Demo(sandbox.id, preview.url, preview.websocket_url)
    except (ApiError, OSError) as e:
        raise DemoFailed(f"the demo could not be started: {e}") from None
    raise DemoFailed("the demo could not be started: the app does not listen")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
