"""One whole edge: its start, its readiness, its logs, its end."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edge.core.credentials import Family
from edge.core.records import State, Transport
from edge.ops.process import StartError
from edge.ops.server import build_edge
from edge.state.port import WatchEvent
from tests.flows.scriptedapp import AppConnection
from tests.flows.scripts import hang
from tests.flows.stage import PROXY_HEADER, Stage, until
from tests.ops.test_server import SECRET, of
from tests.wake.scriptedport import ScriptedPort

TRAFFIC_HEADER = "x-nullspace-traffic-access-token"


async def admin(port: int, path: str) -> tuple[int, str]:
    """Status and text of an admin page."""
    url = f"http://127.0.0.1:{port}{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


# --- Starting --------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["port", "admin_port"])
async def test_a_taken_port_is_told_and_nothing_is_left(which: str) -> None:
    """The other listener is closed again, and no task stays behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        edge = build_edge(of(listen={"port": 0, "admin_port": 0} | {which: port}))
        with pytest.raises(StartError, match=rf"listen\.{which}: 127\.0\.0\.1:{port} is in use"):
            await edge.start()
    if which == "port":
        with pytest.raises(aiohttp.ClientConnectorError):
            await admin(edge.admin_port, "/healthz")


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"tokens": {"jwks_file": "/nowhere/jwks.json"}}, "tokens.jwks_file /nowhere/jwks.json"),
        ({"log": {"access": "/nowhere/access.log"}}, "log.access: /nowhere/access.log cannot be"),
    ],
)
async def test_a_file_that_is_missing_is_told(groups: dict[str, Any], said: str) -> None:
    """What nobody will repair by waiting ends the start."""
    with pytest.raises(StartError, match=said):
        await build_edge(of(**groups)).start()


# --- Readiness --------------------------------------------------------------------------------------


async def test_why_an_edge_is_not_ready_yet() -> None:
    """Nothing listens, no keys, no word: all of it told, none of it fatal. Alive all the same."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        edge = build_edge(
            of(
                control_plane={"token": SECRET, "url": url},
                tokens={"jwks_url": f"{url}/jwks.json"},
            )
        )
        no_word = "no word from the control plane yet"
        assert edge.unready() == ["starting", "keys not loaded", no_word]
        await edge.start()
        try:
            assert edge.port and edge.admin_port
            status, text = await admin(edge.admin_port, "/readyz")
            assert status == 503
            assert json.loads(text)["reasons"] == ["keys not loaded", no_word]
            assert (await admin(edge.admin_port, "/healthz"))[0] == 200
        finally:
            await edge.stop()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """An edge with an access log, which notices a silent control plane within a second."""
    stage = Stage(
        tmp_path,
        catalog={"fresh": 0.5, "stale_after": 1.0},
        log={"access": str(tmp_path / "access.log")},
        tokens={"failures_per_minute": 0},
    )
    async with stage:
        yield stage


async def test_ready_silent_and_ready_again(stage: Stage) -> None:
    """A control plane that falls silent, its connections open, is noticed; so is its return."""
    await until(lambda: not stage.edge.unready())
    stage.plane.fall_silent()
    await until(lambda: bool(stage.edge.unready()))
    status, text = await admin(stage.edge.admin_port, "/readyz")
    assert status == 503
    (reason,) = json.loads(text)["reasons"]
    assert reason.startswith("catalog ") and reason.endswith(": the control plane is silent")
    stage.plane.fall_silent(silent=False)
    await until(lambda: not stage.edge.unready())


async def test_a_crash_of_one_loop_is_told_and_ends_nothing(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Our own mistake in the watch: an event for the operator, and a second try."""

    class Mistaken(ScriptedPort):
        async def watch(self, cursor: int | None) -> AsyncIterator[WatchEvent]:
            self.watches.append(cursor)
            if len(self.watches) == 1:
                raise RuntimeError("a mistake")
            await asyncio.Event().wait()
            yield  # type: ignore[misc]

    port = Mistaken(report=[None])
    edge = build_edge(of(), state_port=port)
    await edge.start()
    await until(lambda: len(port.watches) == 2)
    await edge.stop()
    (line,) = capfd.readouterr().err.splitlines()
    crash = json.loads(line)
    assert (crash["event"], crash["task"]) == ("crash", "catalog") and "a mistake" in crash["error"]


# --- Logs and metrics -------------------------------------------------------------------------------


def spellings(secret: str) -> list[str]:
    """A secret in every form in which it could be written down: parts of it, encoded or not.

    Of base64 there are three, by where the secret begins within three bytes.
    """
    forms = []
    for part in secret.split("."):
        piece = part[-24:]
        forms += [piece, "".join(f"%{byte:02X}" for byte in piece.encode())]
        forms += [base64.b64encode(b"x" * i + piece.encode())[4:-4].decode() for i in range(3)]
    return forms


async def answer_all(connection: AppConnection) -> None:
    """An app that mirrors nothing."""
    while head := await connection.read_head():
        await connection.read_body(head)
        await connection.answer(b"ok")


async def test_logs_and_metrics_of_all_kinds_of_requests(
    stage: Stage, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One line an exchange, and no credential in any line, page or error; no id on the metrics page.

    Good and bad tokens in query, path, cookie, Referer, proxy and traffic headers, and bytes that never
    become a request.
    """
    box = stage.sandbox(await stage.app(answer_all))
    asleep = stage.sandbox(await stage.app(answer_all), State.PAUSED)
    token, proxy = box.token(), box.token(Family.PROXY)
    forged = token[:-8] + "AAAAAAAA"
    expired = box.token(exp=1.0)
    cookie = box.token(Family.CONTINUATION)
    foreign = asleep.token()
    traffic = "traffic-secret-of-the-customer-0123456789"

    def bare(path: str, *fields: str) -> bytes:
        lines = [f"GET {path} HTTP/1.1", f"Host: {box.host}", *fields, "", ""]
        return "\r\n".join(lines).encode()

    refused = 0
    requests = [
        (200, box.get("/ok", token=token)),
        (200, bare("/cookie", f"Cookie: __Host-ns_preview={cookie}; a=b")),
        (
            200,
            bare("/referer?edge_token=" + token, f"Referer: http://{box.host}/?edge_token={token}"),
        ),
        (200, bare("/proxy", f"{PROXY_HEADER}: {proxy}", f"{TRAFFIC_HEADER}: {traffic}")),
        (200, asleep.get("/wake", token=foreign)),
        (200, box.get(f"/in/path/{token}", token=token)),
        (200, box.get(f"/encoded/{quote(token, safe='').replace('.', '%2E')}", token=token)),
        (200, box.get("/twice/" + "".join(f"%25{b:02X}" for b in token.encode()), token=token)),
        (200, box.get(f"/named/edge_token%3D{token}", token=token)),
        (200, box.get(f"/again/{base64.urlsafe_b64encode(token.encode()).decode()}", token=token)),
        (401, box.get("/forged", token=forged)),
        (401, box.get("/expired", token=expired)),
        (401, box.get(f"/{forged}", token="garbage")),
        (403, box.get("/foreign", token=foreign)),
        (401, bare("/bad-proxy", f"{PROXY_HEADER}: {forged}")),
        (401, bare("/none")),
        (400, f"GET /{token} HTTP/1.1\r\nHost : {box.host}\r\n\r\n".encode()),
        (400, f"BAD {token}\r\n\r\n".encode()),
        (404, f"GET /{token} HTTP/1.1\r\nHost: {token[:60]}.example\r\n\r\n".encode()),
        (405, f"TRACE /{token} HTTP/1.1\r\nHost: {box.host}\r\n\r\n".encode()),
    ]
    pages = []
    for status, request in requests:
        answer = await stage.ask(request)
        assert answer.status == status, (request, answer)
        refused += status >= 400
        if status >= 400:
            pages.append((answer.head + answer.body).decode("latin-1"))
    _, page = await admin(stage.edge.admin_port, "/metrics")
    await stage.stop_edge()

    lines = (tmp_path / "access.log").read_text().splitlines()
    assert len(lines) == len(requests)
    assert [json.loads(line)["status"] for line in lines] == [status for status, _ in requests]
    told = [*lines, page, capfd.readouterr().err, *pages]
    for secret in (token, proxy, forged, expired, cookie, foreign, traffic):
        for form in spellings(secret):
            for text in told:
                assert form.lower() not in text.lower(), (form, text)
    for known in (box.id, asleep.id, box.grant, "sb-flow", "preview.example", "127.0.0.1"):
        assert known not in page
    families = {family.name: family for family in text_string_to_metric_families(page)}
    requests_family = families["preview_edge_requests"]
    assert sum(s.value for s in requests_family.samples if s.name.endswith("_total")) == len(
        requests
    )
    refusals = [s for s in requests_family.samples if s.labels.get("code")]
    assert sum(s.value for s in refusals) == refused


async def test_logs_are_opened_anew_when_they_were_moved(stage: Stage, tmp_path: Path) -> None:
    """What logrotate and SIGHUP do: the old file keeps its lines, a new one gets the rest."""
    box = stage.sandbox(await stage.app())
    log, old = tmp_path / "access.log", tmp_path / "access.log.1"
    await stage.ask(box.get("/1"))
    await until(lambda: log.stat().st_size > 0)
    log.rename(old)
    stage.edge.logs.reopen()
    await until(log.exists)
    await stage.ask(box.get("/2"))
    await stage.stop_edge()
    paths = [
        [json.loads(line)["path"] for line in file.read_text().splitlines()] for file in (old, log)
    ]
    assert paths == [["/1"], ["/2"]]


# --- The end ----------------------------------------------------------------------------------------


async def test_the_end_in_order(tmp_path: Path) -> None:
    """Not ready first, then nothing new accepted, waiters answered, the last usage told, admin last."""
    drain = {"wait": 0.2, "timeout": 20.0, "waiters": 0.0, "tunnels": 0.0}
    gate = asyncio.Event()

    async def slow(connection: AppConnection) -> None:
        await connection.read_head()
        await gate.wait()
        await connection.answer(b"done")

    async with Stage(tmp_path, drain=drain) as stage:
        app = await stage.app(slow)
        running, asleep = stage.sandbox(app), stage.sandbox(app, State.PAUSED)
        stage.plane.on_resume = hang
        edge = stage.edge
        async with await stage.client() as working, await stage.client() as waiting:
            await working.send(running.get())
            await app.until(lambda: len(app.requests) == 1)
            await waiting.send(asleep.get())
            await stage.plane.called("resume")
            stopping = asyncio.create_task(stage.stop_edge())
            await until(lambda: "draining" in edge.unready())
            assert (await admin(edge.admin_port, "/readyz"))[0] == 503
            answer = await waiting.answer()
            assert (answer.status, answer.code) == (503, "edge_draining")
            assert answer.value("retry-after") == "5"
            with pytest.raises(ConnectionRefusedError):
                await stage.client()
            assert (await admin(edge.admin_port, "/healthz"))[0] == 200
            gate.set()
            answer = await working.answer()
            assert (answer.status, answer.body) == (200, b"done")
            assert answer.value("connection") == "close"
            await asyncio.wait_for(stopping, 20)
        with pytest.raises(aiohttp.ClientConnectorError):
            await admin(edge.admin_port, "/healthz")
        reported = [item for batch in stage.plane.usage for item in batch.items]
        assert sum(item.requests for item in reported if item.sandbox_id == running.id) == 1
        assert sum(item.bytes_out for item in reported) == 4


async def test_a_websocket_token_is_of_no_use_to_the_log(stage: Stage, tmp_path: Path) -> None:
    """A tunnel is one exchange too: one line, when it is over."""
    app = await stage.app(answer_all)
    box = stage.sandbox(app)
    token = box.token(kind=Transport.WEBSOCKET)
    answer = await stage.ask(box.upgrade("/ws", token=token))
    assert answer.status == 200  # The app refuses the upgrade, in its own words.
    await stage.stop_edge()
    (line,) = (tmp_path / "access.log").read_text().splitlines()
    assert json.loads(line)["path"] == "/ws"
    assert not any(form in line for form in spellings(token))
