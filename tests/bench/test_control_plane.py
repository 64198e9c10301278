"""The bench's control plane, asked by the edge's own state port."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from bench.control_plane import ControlPlane
from bench.world import LIVE, World
from edge.core.records import SandboxRecord, State, Transport
from edge.core.settings import ControlPlaneSettings
from edge.state.http import HttpStatePort
from edge.state.port import Change, Heartbeat, RefusalReason, ResumeRefused, Usage, UsageBatch

SLEEPER = "sb_sleeper00001"


@pytest.fixture
async def server() -> AsyncIterator[tuple[TestServer, HttpStatePort]]:
    """A control plane with one paused sandbox, and a state port that may use it."""
    world = World(fast_port=1, live_port=2)
    world.add_sandbox(SLEEPER, State.PAUSED)
    world.token(SLEEPER, LIVE, Transport.HTTP)
    control_plane = ControlPlane(json.loads(world.for_control_plane()))
    async with TestServer(control_plane.app()) as running:
        settings = ControlPlaneSettings(
            url=str(running.make_url("")).rstrip("/"), token=SecretStr(world.service_token)
        )
        port = HttpStatePort(settings, "edge-of-the-bench")
        try:
            yield running, port
        finally:
            await port.close()


async def test_records_are_told(server: tuple[TestServer, HttpStatePort]) -> None:
    """Known ids have records, unknown ones have none."""
    _, port = server
    sandbox, grant = await port.sandbox(SLEEPER), await port.grant("grant_0")
    assert sandbox is not None
    assert sandbox.state is State.PAUSED
    assert grant is not None
    assert grant.sandbox_id == SLEEPER
    assert await port.sandbox("sb_nobody0000") is None
    await port.report(UsageBatch("edge", 1, (Usage(SLEEPER, "grant_0"),)))
    await port.ack(SLEEPER, 1, 0)


async def test_a_resume_happens_once(server: tuple[TestServer, HttpStatePort]) -> None:
    """Compare-and-resume: the second call with the same incarnation gets the running one."""
    running, port = server
    first = await port.resume(SLEEPER, 1, "preview", 5.0)
    again = await port.resume(SLEEPER, 1, "preview", 5.0)
    assert (first.state, first.incarnation) == (State.RUNNING, 2)
    assert again == first
    with pytest.raises(ResumeRefused) as refused:
        await port.resume("sb_nobody0000", 1, "preview", 5.0)
    assert refused.value.reason is RefusalReason.NOT_FOUND
    async with ClientSession() as session, session.get(running.make_url("/bench/running")) as told:
        assert 0 < (await told.json())[SLEEPER] < time.monotonic_ns()


async def test_changes_are_replayed_and_followed(server: tuple[TestServer, HttpStatePort]) -> None:
    """Two changes a resume, after any cursor, then a heartbeat that says where we stand."""
    _, port = server
    await port.resume(SLEEPER, 1, "preview", 5.0)
    watch = port.watch(0)
    seen = []
    async for event in watch:
        seen.append(event)
        if isinstance(event, Heartbeat):
            break
    await watch.aclose()
    changes = [event for event in seen if isinstance(event, Change)]
    records = [change.record for change in changes]
    assert [r.state for r in records if isinstance(r, SandboxRecord)] == [
        State.RESUMING,
        State.RUNNING,
    ]
    assert seen[-1] == Heartbeat(changes[-1].cursor)
