"""A real control plane for tests of whoever operates it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edge.appliance.config import read_config
from edge.appliance.sandbox import Plan
from edge.appliance.server import ControlPlane
from edge.commands.operator import Door
from edge.commands.screen import base_url

TOKEN = "service-token-of-at-least-32-characters"


@asynccontextmanager
async def control_plane(folder: Path) -> AsyncIterator[ControlPlane]:
    """One on a free port."""
    said = {"port": 0, "api_key": "nsk_test", "service_token": TOKEN, "data_dir": str(folder)}
    one = ControlPlane(read_config(json.dumps(said)))
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


def door(plane: ControlPlane, token: str = TOKEN) -> Door:
    """Where its operator API is."""
    return Door(base_url("127.0.0.1", plane.port), token)


async def grant(plane: ControlPlane) -> tuple[str, str]:
    """A new sandbox and a grant of its."""
    plan = Plan("base", 1, 1, "/workspace", {}, False, None, {}, None, None)
    sandbox = await plane.parts.sandboxes.create(
        plan, envs={}, cwd=None, timeout_ms=60_000, timeout_action="destroy"
    )
    return sandbox.id, plane.parts.grants.issue(sandbox.id, 8080).grant.id


async def in_thread(act: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """The client waits for answers that this very loop gives."""
    return await asyncio.to_thread(act, *arguments, **named)
