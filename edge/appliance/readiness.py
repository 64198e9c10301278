"""Is anything listening? Asked of the port itself, and only while the record says it runs.

A frozen app still accepts connections, and answers them after the thaw: so the state decides, never a
connect alone. Nothing here wakes a sandbox or counts as activity.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import aiohttp

from edge.appliance.requests import Readiness
from edge.appliance.sandbox import Sandbox
from edge.appliance.views import Json, rfc3339
from edge.core.errors import PREVIEW_SERVICE_NOT_READY
from edge.core.records import State

ATTEMPT = 2.0
"""Seconds for one attempt."""

SHORTEST_ATTEMPT = 0.05
"""Seconds for the last attempt, however little time is left."""

ANSWER_EARLY = 0.97
"""Part of ``timeout_secs`` that is used: clients give up after exactly that many seconds."""

HOPELESS = frozenset({State.PAUSED, State.DESTROYED, State.ERROR})
"""States that no waiting of ours will change."""


async def wait_ready(
    sandbox: Sandbox, port: int, wanted: Readiness, wall: Callable[[], float]
) -> Json:
    """Probe until something answers or the time is up."""
    clock = asyncio.get_running_loop().time
    start = clock()
    deadline = start + wanted.timeout_secs * ANSWER_EARLY
    attempts = 0
    trouble: str | None = None
    while True:
        attempts += 1
        limit = min(ATTEMPT, max(deadline - clock(), SHORTEST_ATTEMPT))
        trouble = await _trouble(sandbox, port, wanted, limit)
        left = deadline - clock()
        if trouble is None or sandbox.state in HOPELESS or left <= 0:
            break
        await asyncio.sleep(min(wanted.interval_ms / 1000, left))
    body: Json = {
        "ready": trouble is None,
        "route_ready": sandbox.state is State.RUNNING,
        "service_ready": trouble is None,
        "sandbox_id": sandbox.id,
        "port": port,
        "kind": wanted.kind,
        "checked_at": rfc3339(wall()),
        "elapsed_ms": round((clock() - start) * 1000),
        "attempts": attempts,
    }
    if wanted.kind == "http":
        body["path"] = wanted.path or "/"
    if trouble is not None:
        problem = PREVIEW_SERVICE_NOT_READY
        body |= {"code": problem.code, "error": trouble, "suggested_action": problem.action}
    return body


async def _trouble(sandbox: Sandbox, port: int, wanted: Readiness, limit: float) -> str | None:
    """Why the service is not ready; None when it is."""
    if sandbox.state is not State.RUNNING:
        return f"The sandbox is {sandbox.state.value}."
    try:
        async with asyncio.timeout(limit):
            host, outside = sandbox.upstream.address(port)
            if wanted.kind == "tcp":
                await _connect(host, outside)
                return None
            status = await _get(host, outside, wanted.path or "/")
    except TimeoutError:
        return f"Port {port} did not answer in time."
    except (OSError, aiohttp.ClientError, ValueError):
        return f"Nothing answers on port {port}."
    return None if status < 500 else f"GET {wanted.path or '/'} was answered {status}."


async def _connect(host: str, port: int) -> None:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()


async def _get(host: str, port: int, path: str) -> int:
    """The status of a GET; neither body nor redirect is followed up."""
    async with (
        aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session,
        session.get(f"http://{host}:{port}{path}", allow_redirects=False) as answer,
    ):
        return answer.status
