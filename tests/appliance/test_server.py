"""The process as a parent sees it: lines in, lines out, a clean end however it comes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from service import KEY, TOKEN, Service, until

from edge.appliance.server import StartError

ROOT = Path(__file__).parents[2]


class Child:
    """A control plane in a process of its own."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def tell(self, message: dict[str, Any]) -> None:
        """A line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(message).encode() + b"\n")

    async def said(self) -> dict[str, Any]:
        """The next line of its standard output."""
        assert self.process.stdout is not None
        return dict(json.loads(await self.process.stdout.readline()))

    async def end(self) -> tuple[int, str]:
        """Its exit status and what it said on standard error."""
        assert self.process.stderr is not None
        text = (await self.process.stderr.read()).decode()
        return await self.process.wait(), text


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Any]:
    """Start one with ``--config``; what still runs after the test is killed."""
    children: list[Child] = []

    async def start(source: str = "-", **changes: Any) -> Child:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edge.appliance", "--config", source,
            stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=ROOT,
        )  # fmt: skip
        child = Child(process)
        children.append(child)
        if source == "-":
            child.tell(_config(tmp_path, **changes))
        return child

    yield start
    for child in children:
        if child.process.returncode is None:
            child.process.kill()
        await child.end()


def _config(folder: Path, **changes: Any) -> dict[str, Any]:
    said = {"port": 0, "api_key": KEY, "service_token": TOKEN, "data_dir": str(folder / "data")}
    return said | changes


async def _exec(port: int, command: str, **body: Any) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
        async with session.post("/v1/sandboxes", json={}) as made:
            sandbox = (await made.json())["id"]
        call = {"command": command, "shell": True, **body}
        async with session.post(f"/v1/sandboxes/{sandbox}/exec", json=call) as ran:
            return dict(await ran.json())


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "end of input"])
async def test_every_end_is_clean(start: Any, how: str, tmp_path: Path) -> None:
    """Status 0, nothing on standard error, no process of a sandbox left."""
    child = await start()
    port = (await child.said())["port"]
    pid = (await _exec(port, "sleep 600", background=True))["pid"]
    assert _alive(pid)
    if how == "end of input":
        child.process.stdin.close()
    else:
        child.process.send_signal(getattr(signal, how))
    assert await child.end() == (0, "")
    # It is dead; only whoever inherits orphans on this machine has to notice.
    await until(lambda: not _alive(pid))
    left = {entry.name for entry in (tmp_path / "data").iterdir()}
    assert left <= {
        "lock", "signing-key.pem", "sandboxes", "snapshots", "state.sqlite", "volumes",
    }  # fmt: skip


async def test_the_edge_is_awaited_before_the_demo(start: Any) -> None:
    """The demo's addresses carry the port that the second line named; its link has the fragment."""
    child = await start(await_edge=True, demo=True)
    assert (await child.said())["event"] == "listening"
    child.tell({"public_port": 4444, "reserved_ports": [4444, 4445]})
    demo = await child.said()
    assert demo.keys() == {"event", "sandbox_id", "url", "websocket_url", "link"}
    assert demo["event"] == "demo" and ".localhost:4444/?edge_token=" in demo["url"]
    assert demo["websocket_url"].startswith("ws://")
    address, _, fragment = demo["link"].partition("#")
    assert address == demo["url"] and fragment.startswith("ws=ws%3A%2F%2F")
    child.process.send_signal(signal.SIGTERM)
    assert await child.end() == (0, "")


async def test_a_file_as_config(start: Any, tmp_path: Path) -> None:
    """With a file, standard input is nobody's business and its end ends nothing."""
    file = tmp_path / "config.json"
    file.write_text(json.dumps(_config(tmp_path)))
    child = await start(str(file))
    child.process.stdin.close()
    port = (await child.said())["port"]
    assert (await _exec(port, "echo here"))["stdout"] == "here\n"
    child.process.send_signal(signal.SIGTERM)
    assert await child.end() == (0, "")


async def test_a_line_that_is_none_ends_it(start: Any) -> None:
    """An edge line that cannot be read is logged as JSON, and the process stops."""
    child = await start(await_edge=True)
    await child.said()
    child.tell({"public_port": "x"})
    status, text = await child.end()
    assert status == 0
    assert "public_port" in json.loads(text)["error"]


async def test_what_a_killed_run_leaves(start: Any, tmp_path: Path) -> None:
    """The files of a sandbox are kept, and told of; what belongs to none is gone when the next one listens."""
    child = await start()
    await _exec((await child.said())["port"], "echo x > file")
    child.process.kill()
    await child.end()
    sandboxes = tmp_path / "data" / "sandboxes"
    (sandbox,) = sandboxes.iterdir()
    (sandboxes / "sb_unheard0f" / "workspace").mkdir(parents=True)
    (sandboxes / "stray").write_text("x")
    second = await start()
    assert (await second.said())["in_error"] == 1
    assert list(sandboxes.iterdir()) == [sandbox]
    assert (sandbox / "workspace" / "file").read_text() == "x\n"


async def test_the_state_is_for_this_user_only(tmp_path: Path) -> None:
    """The file and its companions."""
    async with Service(tmp_path) as service:
        await service.create()
        files = [path for path in tmp_path.iterdir() if path.name.startswith("state.sqlite")]
        assert files and {path.stat().st_mode & 0o777 for path in files} == {0o600}


@pytest.mark.parametrize("text", ["no database", "damaged"])
async def test_a_state_that_cannot_be_read_is_told(start: Any, tmp_path: Path, text: str) -> None:
    """One line that names the way out, status 2; not a file is touched."""
    file = tmp_path / "data" / "state.sqlite"
    (tmp_path / "data" / "sandboxes" / "sb_12345678").mkdir(parents=True)
    if text == "no database":
        file.write_bytes(b"this is no database, and long enough to be taken for one\n" * 100)
    else:
        database = sqlite3.connect(file)
        database.execute("CREATE TABLE sandboxes (id NOT NULL PRIMARY KEY, body TEXT NOT NULL)")
        database.execute("INSERT INTO sandboxes VALUES ('sb_12345678', '{\"state\": \"dancing\"}')")
        database.commit()
        database.close()
    status, told = await (await start()).end()
    assert status == 2 and told.count("\n") == 1 and "another data directory" in told
    assert (tmp_path / "data" / "sandboxes" / "sb_12345678").is_dir()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
async def test_a_killed_one_leaves_its_pools_and_none_of_their_processes(
    start: Any, tmp_path: Path
) -> None:
    """After kill -9 the instances end by themselves; the next run fills the pool with new ones."""

    def supervisors() -> set[str]:
        # Each names its sandbox on its command line.
        names = {entry.name.encode() for entry in sandboxes.iterdir()}
        found = set()
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = process.read_bytes()
            except OSError:
                continue
            found |= {name.decode() for name in names if b"\0" + name + b"." in words}
        return found

    sandboxes = tmp_path / "data" / "sandboxes"
    child = await start()
    port = (await child.said())["port"]
    headers = {"Authorization": f"Bearer {KEY}"}
    body = {"template_ref": "base", "name": "n", "min_ready": 2, "max_ready": 2}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"http://127.0.0.1:{port}/v1/template-warm-pools", json=body) as made,
    ):
        assert made.status == 201
    await until(lambda: len(supervisors()) == 2, 30)
    first = supervisors()
    child.process.kill()
    await child.end()
    await until(lambda: not supervisors(), 30)
    second = await start()
    await second.said()
    await until(lambda: len(supervisors()) == 2, 30)
    assert not supervisors() & first
    second.process.send_signal(signal.SIGTERM)
    assert await second.end() == (0, "")
    assert list(sandboxes.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"port": -1}, "config: port"),
        ({"data_dir": "/dev/null/x"}, "choose another data directory"),
        ({"host": "192.0.2.1"}, "loopback"),
    ],
)
async def test_what_cannot_start_says_why(
    start: Any, changes: dict[str, Any], message: str
) -> None:
    """One line, status 2, no traceback."""
    child = await start(**changes)
    status, text = await child.end()
    assert status == 2 and message in text
    assert text.count("\n") == 1


async def test_a_missing_file_says_so(start: Any, tmp_path: Path) -> None:
    """The name of the file and what is wrong with it."""
    status, text = await (await start(str(tmp_path / "none.json"))).end()
    assert status == 2 and "none.json: No such file" in text


async def test_a_taken_port_and_a_taken_directory_are_told(tmp_path: Path) -> None:
    """A second one with the same directory or port does not start, and leaves the first alone."""
    async with Service(tmp_path / "a") as first:
        for folder, port, message in [
            (tmp_path / "a", 0, "is in use by another control plane"),
            (tmp_path / "b", first.plane.port, "choose another port"),
        ]:
            second = Service(folder, port=port)
            with pytest.raises(StartError, match=message):
                await second.plane.start()
            await second.plane.stop()
        assert (await first.api("GET", "/v1/sandboxes"))[0] == 200


async def test_stopping_twice_is_stopping(tmp_path: Path) -> None:
    """The second stop finds nothing to do; a stop right after making is fine too."""
    service = Service(tmp_path)
    await service.plane.stop()
    async with service:
        await service.plane.stop()


async def test_a_command_under_way_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """A foreground command of minutes ends with its sandbox."""
    async with Service(tmp_path) as service:
        sandbox = await service.create()
        body = {"command": "sleep", "args": ["600"], "timeout_secs": 700}
        running = asyncio.create_task(service.api("POST", f"/v1/sandboxes/{sandbox}/exec", body))
        await until(lambda: bool(service.plane.parts.runtime.processes(sandbox)))
        async with asyncio.timeout(5):
            await service.plane.stop()
        status, ran = await running
        assert (status, ran["exit_code"]) == (200, 128 + 9)


@pytest.mark.parametrize("name", ["sandboxes", "snapshots"])
async def test_a_project_is_no_data_directory(start: Any, tmp_path: Path, name: str) -> None:
    """What lies there without a state of ours is somebody's: it is left alone, and nothing starts."""
    precious = tmp_path / "data" / name / "precious"
    precious.mkdir(parents=True)
    child = await start()
    child.process.stdin.close()
    status, said = await child.end()
    assert status == 2 and "is no data directory" in said and name in said
    assert precious.is_dir()
