"""Several workers on one port: one page of metrics, respawned, ended with their supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.flows.scriptedapp import AppConnection
from tests.ops.programs import Program, family, toml
from tests.ops.serving import Serving
from tests.ops.test_serve import App

WORKERS = {"port": 0, "admin_port": 0, "workers": 2}


def samples(page: str) -> dict[str, float]:
    """Every sample of a metrics page."""
    return {
        sample.name + "".join(f",{k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for one in text_string_to_metric_families(page)
        for sample in one.samples
    }


SERVED = "preview_edge_requests_total,code=,end=complete,status=2xx"


def workers(serving: Serving) -> list[int]:
    """The process ids of the living workers."""
    return sorted(pid for pid, name in family(serving.folder).items() if " worker " in name)


async def ask_until(serving: Serving, request: bytes, holds: Callable[[], bool]) -> int:
    """Requests on connections of their own, until something has happened; how many it took."""
    for count in range(1, 1000):
        assert (await serving.ask(request)).status == 200
        if holds():
            return count
    raise AssertionError("it did not happen")


async def test_they_share_a_port_and_speak_as_one(tmp_path: Path) -> None:
    """Both serve; the page has their sum; one that dies is begun again, what it counted stays."""
    async with Serving(tmp_path, listen=WORKERS) as serving:
        box = serving.sandbox(await serving.app(App()))
        first = workers(serving)
        assert len(first) == 2 and serving.plane.counts["events"] == 2
        # Each worker looks the sandbox up once, so two look-ups are two workers that serve.
        count = await ask_until(serving, box.get("/"), lambda: serving.plane.counts["sandbox"] == 2)
        status, page = await serving.admin("/metrics")
        seen = samples(page)
        assert status == 200 and seen[SERVED] == count
        assert seen["preview_edge_ready"] == 1
        for secret in (box.id, box.grant, serving.mint.site):
            assert secret not in page

        await serving.until(lambda: len(serving.access()) == count)  # Lines gather for 0.1 s.
        os.kill(first[0], signal.SIGKILL)
        (reason,) = await serving.unready()
        assert reason.startswith("worker ") and reason.endswith(": not running")
        assert (await serving.admin("/healthz"))[0] == 200
        await serving.until(lambda: len(serving.program.events("worker_died")) == 1)
        assert serving.program.events("worker_died")[0]["status"] == -signal.SIGKILL
        await serving.until(lambda: serving.plane.counts["events"] == 3)
        await serving.ready()
        now = workers(serving)
        assert len(now) == 2 and first[1] in now and first[0] not in now
        # A worker's successor has to look the sandbox up anew: it serves again.
        count += await ask_until(
            serving, box.get("/"), lambda: serving.plane.counts["sandbox"] == 3
        )
        assert samples((await serving.admin("/metrics"))[1])[SERVED] == count

        await serving.until(lambda: len(serving.access()) == count)
        old = serving.access_log.rename(tmp_path / "access.log.1")
        serving.signal(signal.SIGHUP)
        await serving.until(serving.access_log.exists)
        serving.signal(signal.SIGTERM)
        assert await serving.ended() == 0
        assert not family(tmp_path) and not list(serving.program.temporary.iterdir())
        assert len(old.read_text().splitlines()) == count


async def held(connection: AppConnection) -> None:
    """An app that takes a request and never answers."""
    await connection.read_head()
    await connection.read_to_end()


async def test_a_second_signal_ends_them_all_at_once(tmp_path: Path) -> None:
    """Not only the supervisor: no worker drains on without one. Nothing is left."""
    async with Serving(tmp_path, listen=WORKERS, drain={"wait": 600.0}) as serving:
        app = await serving.app(held)
        box = serving.sandbox(app)
        async with await serving.client() as client:
            await client.send(box.get())
            await app.until(lambda: len(app.requests) == 1)
            serving.signal(signal.SIGTERM)
            assert all(reason.endswith("draining") for reason in await serving.unready())
            serving.signal(signal.SIGTERM)
            await serving.ended()
            assert not family(tmp_path) and not list(serving.program.temporary.iterdir())


async def test_orphans_end_by_themselves(tmp_path: Path) -> None:
    """The supervisor is killed: its workers drain, end, and remove what it could not."""
    async with Serving(tmp_path, listen=WORKERS) as serving:
        assert len(workers(serving)) == 2
        serving.signal(signal.SIGKILL)
        await serving.until(lambda: not family(tmp_path))
        assert not list(serving.program.temporary.iterdir())


LEAST: dict[str, Any] = {
    "public_hostname": "preview.example",
    "control_plane": {"token": "s" * 32, "url": "http://127.0.0.1:9"},
    "cookie": {"keys": [{"kid": "a", "secret": "s" * 32}]},
    "tokens": {"hs256": [{"kid": "k", "secret": "s" * 32}]},
}


@pytest.mark.parametrize("trouble", ["keys", "port", "admin_port"])
def test_what_stops_them_from_starting_is_told_in_one_line(tmp_path: Path, trouble: str) -> None:
    """A worker's trouble or the supervisor's own: exit status 2, and nothing is left."""
    groups = LEAST | {"listen": dict(WORKERS), "log": {"level": "error"}}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        if trouble == "keys":
            groups["tokens"] = {"jwks_file": str(tmp_path / "none.json")}
            said = f"tokens.jwks_file {tmp_path / 'none.json'}"
        else:
            groups["listen"][trouble] = port
            said = f"listen.{trouble}: 127.0.0.1:{port} is in use"
        (tmp_path / "edge.toml").write_text(toml(groups))
        with Program(tmp_path, "serve", "--config", "edge.toml") as program:
            assert program.ended() == 2
            told = [line for line in program.err.splitlines() if not line.startswith("{")]
            assert len(told) == 1 and told[0].startswith(f"preview-edge: {said}"), program.err
            assert not family(tmp_path) and not list(program.temporary.iterdir())


async def test_limits_hold_for_all_workers_together(tmp_path: Path) -> None:
    """Four connections in all are two for each of two workers, however the kernel spreads them."""
    limits = {"connections": 4}
    async with Serving(tmp_path, listen=WORKERS, admission=limits) as serving:
        box = serving.sandbox(await serving.app(App()))
        clients = [await serving.client() for _ in range(40)]
        try:
            requests = [asyncio.create_task(client.ask(box.get())) for client in clients]
            answers = await asyncio.gather(*requests, return_exceptions=True)
            served = [a for a in answers if not isinstance(a, BaseException) and a.status == 200]
            assert len(served) == 4
        finally:
            for client in clients:
                client.close()
