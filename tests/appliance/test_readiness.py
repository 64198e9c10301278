"""Readiness: real ports, and never a sandbox that does not run."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from nullspace.types import PreviewReadiness

from edge.appliance.readiness import wait_ready
from edge.appliance.requests import Readiness
from edge.appliance.sandbox import Plan, Sandbox
from edge.core.records import State


@pytest.fixture
async def app() -> AsyncIterator[tuple[int, list[str]]]:
    """An app that answers by its path: /500, /302, anything else 204; its port and what it was asked."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        status = {"/500": 500, "/302": 302}.get(request.path, 204)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1], asked
    await runner.cleanup()


def _sandbox(state: State = State.RUNNING) -> Sandbox:
    plan = Plan("base", 1, 1, "/workspace", {}, True, None, {}, None, None)
    return Sandbox("sb_1", 1, plan, 0.0, 1000, "hibernate", state)


async def _ask(sandbox: Sandbox, port: int, **body: object) -> PreviewReadiness:
    wanted = Readiness.model_validate({"timeout_secs": 1, "interval_ms": 100} | body)
    return PreviewReadiness(**await wait_ready(sandbox, port, wanted, lambda: 1.0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "ready"),
    [
        ({}, True),
        ({"kind": "http"}, True),
        ({"kind": "http", "path": "/302"}, True),
        ({"kind": "http", "path": "/500"}, False),
    ],
)
async def test_a_port_that_answers(
    app: tuple[int, list[str]], body: dict[str, object], ready: bool
) -> None:
    """TCP needs a connect, HTTP an answer below 500; redirects are not followed."""
    port, asked = app
    told = await _ask(_sandbox(), port, **body)
    assert told.ready is told.service_ready is ready
    assert told.route_ready is True
    assert told.code == (None if ready else "preview_service_not_ready")
    assert "/elsewhere" not in asked
    assert told.path == (body.get("path", "/") if body else None)


async def test_a_port_that_begins_to_listen_meanwhile() -> None:
    """Probing goes on until somebody is there."""
    with socket.socket() as later:
        later.bind(("127.0.0.1", 0))
        asyncio.get_running_loop().call_later(0.15, later.listen)
        told = await _ask(_sandbox(), later.getsockname()[1], timeout_secs=10)
    assert told.ready and told.attempts > 1
    assert 100 < told.elapsed_ms < 30_000


async def test_nobody_there_is_told_in_time() -> None:
    """Not ready is an answer before the client gives up, with the reason."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        told = await _ask(_sandbox(), silent.getsockname()[1])
    assert not told.ready and told.route_ready
    assert told.elapsed_ms < 30_000  # a busy machine takes its time; the client waits as long
    assert told.error is not None and "Nothing answers" in told.error


async def test_silence_is_not_readiness() -> None:
    """A port that accepts and says nothing is not ready for HTTP."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        assert (await _ask(_sandbox(), port)).ready
        told = await _ask(_sandbox(), port, kind="http")
    assert not told.ready
    assert told.error is not None and "in time" in told.error


@pytest.mark.parametrize("state", [State.PAUSED, State.DESTROYED, State.ERROR])
async def test_a_sandbox_that_does_not_run_is_not_asked(
    app: tuple[int, list[str]], state: State
) -> None:
    """A frozen app accepts connections: the state decides, at once, and nothing is sent."""
    port, asked = app
    told = await _ask(_sandbox(state), port, kind="http", timeout_secs=60)
    assert (told.ready, told.route_ready, told.attempts) == (False, False, 1)
    assert asked == []
