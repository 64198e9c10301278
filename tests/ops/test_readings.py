"""What a scrape reads from the parts of a running edge, and that a dashboard finds what it asks for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from math import inf
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.core.records import State
from tests.flows.scriptedapp import AppConnection
from tests.flows.scripts import after, hang
from tests.flows.stage import Stage, until

PREFIX = "preview_edge_"
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)


async def scrape(stage: Stage) -> dict[str, float]:
    """Samples as Prometheus would see them, by name and labels without the prefix."""
    url = f"http://127.0.0.1:{stage.edge.admin_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        text = await answer.text()
    samples = [
        sample for family in text_string_to_metric_families(text) for sample in family.samples
    ]
    return {
        sample.name.removeprefix(PREFIX)
        + "".join(f",{k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for sample in samples
    }


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """An edge that notices soon when the control plane is silent."""
    async with Stage(tmp_path, catalog={"fresh": 0.5, "stale_after": 1.0}) as stage:
        yield stage


async def test_gauges_follow_what_is_open(stage: Stage) -> None:
    """Connections, exchanges, waiting ones and tunnels, up while they last and down afterwards."""
    gate = asyncio.Event()

    async def serve(connection: AppConnection) -> None:
        head = await connection.read_head()
        if b"pgrade: websocket" in head:
            await connection.send(SWITCHING)
            await connection.read_to_end()
        else:
            await gate.wait()
            await connection.answer(b"")

    app = await stage.app(serve)
    running, asleep = stage.sandbox(app), stage.sandbox(app, State.PAUSED)
    stage.plane.on_resume = hang
    names = ("connections", "exchanges", "waiting", "tunnels")
    seen = await scrape(stage)
    assert [seen[name] for name in names] == [0, 0, 0, 0]
    async with (
        await stage.client(),
        await stage.client() as asking,
        await stage.client() as waiting,
        await stage.client() as tunnel,
    ):
        await asking.send(running.get())
        await app.until(lambda: len(app.requests) == 1)
        await waiting.send(asleep.get())
        await stage.plane.called("resume")
        assert (await tunnel.ask(running.upgrade())).status == 101
        seen = await scrape(stage)
        assert [seen[name] for name in names] == [4, 1, 1, 1]
        gate.set()
        assert (await asking.answer()).status == 200
    await until(lambda: not len(stage.edge.connections))
    seen = await scrape(stage)
    assert [seen[name] for name in names] == [0, 0, 0, 0]
    assert seen["tunnels_ended_total,reason=complete"] == 1


async def test_freshness_of_the_catalog(stage: Stage) -> None:
    """The age of the last heartbeat, and which degree of trust follows from it."""
    seen = await scrape(stage)
    assert 0 <= seen["catalog_heartbeat_age_seconds"] < inf
    degrees = {name: value for name, value in seen.items() if name.startswith("catalog_trust,")}
    assert sum(degrees.values()) == 1 and len(degrees) > 2
    await until(lambda: not stage.edge.unready())
    assert (await scrape(stage))["ready"] == 1
    await stage.plane.stop()
    await until(lambda: bool(stage.edge.unready()))
    seen = await scrape(stage)
    assert seen["ready"] == 0 and seen["catalog_trust,trust=fresh"] == 0
    assert seen["catalog_heartbeat_age_seconds"] > stage.edge.settings.catalog.stale_after


async def test_records_kept_and_lines_lost(stage: Stage) -> None:
    """One sandbox and its grant after one request; no line lost."""
    box = stage.sandbox(await stage.app())
    assert (await stage.ask(box.get())).status == 200
    seen = await scrape(stage)
    assert seen["catalog_entries,kind=sandboxes"] == seen["catalog_entries,kind=grants"] == 1
    assert seen["log_lines_dropped_total,log=access"] == 0
    assert seen["log_lines_dropped_total,log=event"] == 0
    assert seen["usage_pairs_given_up_total"] == 0


WANTED = """
requests_total request_duration_seconds_bucket wakes_total woken_requests_total
wake_phase_seconds_bucket waiting connections exchanges tunnels tunnels_ended_total bytes_total
upstream_connects_total catalog_heartbeat_age_seconds catalog_trust catalog_entries ready
""".split()


async def test_what_a_dashboard_asks_for_is_there(stage: Stage) -> None:
    """After one request that woke a sandbox: outcome, latency, leader and follower, phases, bytes, dials."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    gate = asyncio.Event()
    stage.plane.on_resume = after(gate)
    async with await stage.client() as first, await stage.client() as second:
        await first.send(box.get("/1"))
        await stage.plane.called("resume")
        await second.send(box.get("/2"))
        await until(lambda: len(stage.edge.flow.waiting()) == 2)
        gate.set()
        assert ((await first.answer()).status, (await second.answer()).status) == (200, 200)
    await until(lambda: not len(stage.edge.connections))
    seen = await scrape(stage)
    names = {name.partition(",")[0] for name in seen}
    assert set(WANTED) <= names
    assert seen["requests_total,code=,end=complete,status=2xx"] == 2
    assert seen["request_duration_seconds_count,waited=yes"] == 2
    assert seen["wakes_total,outcome=ok"] == 1
    assert seen["woken_requests_total,outcome=ok,role=leader"] == 1
    assert seen["woken_requests_total,outcome=ok,role=follower"] == 1
    for phase in ("resume", "dispatch", "listen", "first_byte"):
        assert seen[f"wake_phase_seconds_count,phase={phase}"] == 1
    assert seen["bytes_total,direction=out"] == 2 * len(b"GET /1 HTTP/1.1\n")
    assert seen["upstream_connects_total,outcome=connected"] >= 1


async def test_a_wake_whose_app_never_listens_is_no_success(tmp_path: Path) -> None:
    """Resumed, but no port accepts within the window: told at once, under the code that clients got."""
    async with Stage(tmp_path, wake={"window": 0.3}) as stage:
        box = stage.sandbox(await stage.app(listening=False), State.PAUSED)
        answer = await stage.ask(box.get())
        assert (answer.status, answer.code) == (503, "sandbox_resume_timeout")
        seen = await scrape(stage)
        assert seen["wakes_total,outcome=ok"] == 0
        assert seen["wakes_total,outcome=sandbox_resume_timeout"] == 1
        assert seen["wake_phase_seconds_count,phase=resume"] == 1
        assert seen["wake_phase_seconds_count,phase=listen"] == 0
