"""``preview-edge dev``: the first screen and every line below it, and that nothing outlives it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.ports import free_port
from edge.commands.dev import EDGE_PATIENCE
from tests.ops.programs import PREVIEW_EDGE, Program, eventually, family, fetch
from tests.ops.test_edge import spellings
from tests.state.redis.valkey import Valkey

FREE = ("--api-port", "0", "--edge-port", "0", "--admin-port", "0")
KEY = "nsk_the_key_of_this_test"
NO_SERVER = {"PREVIEW_EDGE_PUBLIC_HOSTNAME": "other.example", "PREVIEW_EDGE_LISTEN__PORT": "1"}
WOKE = re.compile(
    r"\d\d:\d\d:\d\d  woke (sb_\w+) for (.+?)(?: \(\d+ waiting\))?: "
    r"resume [\d.]+ m?s, listen [\d.]+ m?s, first byte [\d.]+ m?s"
)
SLEEPY = {"timeout_action": "hibernate", "auto_resume": True}


class Dev(Program):
    """A running ``dev``, and a client for its API."""

    def __init__(self, folder: Path, *options: str, **environ: str) -> None:
        environ = {"NULLSPACE_API_KEY": KEY} | environ
        super().__init__(folder, "dev", *FREE, *options, environ=environ, command=PREVIEW_EDGE)

    def up(self) -> None:
        """Wait for the first screen."""
        self.until(lambda: "Ctrl-C ends everything" in self.out)

    def row(self, name: str) -> str:
        """A row of the first screen."""
        found = re.search(rf"^  {name} +(\S.*)$", self.out, re.MULTILINE)
        assert found, self.out
        return found[1]

    def commands(self) -> list[str]:
        """The commands to try."""
        _, _, rest = self.out.partition("Three commands to try in another terminal:\n\n")
        return [line.strip() for line in rest.partition("\n\n")[0].splitlines()]

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """A call of the API that succeeds."""
        status, _, answer = fetch(
            self.row("API") + path, method, body, Authorization=f"Bearer {self.row('API key')}"
        )
        assert status < 300, (status, answer)
        return json.loads(answer) if answer else None

    def sandbox(self, script: str = "", **body: Any) -> tuple[str, str, str]:
        """A new sandbox running a shell script with ``$P`` as a free port: id, URL, port."""
        sandbox = self.api("POST", "/v1/sandboxes", SLEEPY | body)["id"]
        port = str(free_port())
        if script:
            command = {"command": "sh", "args": ["-c", script], "background": True}
            command["envs"] = {"P": port, "STARTED_BELOW": str(self.folder)}
            self.api("POST", f"/v1/sandboxes/{sandbox}/exec", command)
        url = self.api("POST", f"/v1/sandboxes/{sandbox}/ports/{port}/signed-preview-url", {})
        return sandbox, url["url"], port

    def state(self, sandbox: str) -> str:
        """What the API says; looking does not wake."""
        return str(self.api("GET", f"/v1/sandboxes/{sandbox}")["status"])

    def woken(self, sandbox: str) -> list[str]:
        """Who woke this sandbox, by the lines on the screen."""
        lines = [WOKE.fullmatch(line) for line in self.out.splitlines()]
        return [line[2] for line in lines if line and line[1] == sandbox]


SERVER = f"exec {sys.executable} -m http.server $P --bind 127.0.0.1"


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """One for the tests that only look: two workers, a short window, a shell set up for ``serve``."""
    with Dev(tmp_path_factory.mktemp("dev"), "--workers", "2", "--window", "4", **NO_SERVER) as one:
        one.up()
        yield one


# --- The first screen -------------------------------------------------------------------------------


def count_of(page: bytes) -> int:
    """The demo's counter."""
    found = re.search(rb'id="count"[^>]*>(\d+)<', page)
    assert found, page
    return int(found[1])


def test_the_first_screen_is_true(dev: Dev) -> None:
    """The key of the environment, listeners that answer, the data directory, the preview link."""
    assert dev.row("API key") == KEY and KEY in dev.commands()[0]
    assert fetch(dev.row("API") + "/healthz")[0] == 200
    assert b"API key" in fetch(dev.row("console") + "/login")[2]
    admin = dev.row("admin").partition("/metrics")[0]
    for page in ("/metrics", "/readyz", "/healthz"):
        assert fetch(admin + page)[0] == 200 and page in dev.row("admin")
    assert (dev.folder / dev.row("data")).is_dir()
    status, headers, page = fetch(dev.row("preview").partition("#")[0])
    assert status == 200 and count_of(page) > 0
    assert headers["Set-Cookie"].startswith("ns_preview=")
    assert dev.row("preview").startswith("http://") and ".localhost:" in dev.row("preview")


def test_commands_that_want_the_edges_settings_find_them(dev: Dev) -> None:
    """`token inspect` beside it; the file is for its owner alone, as long as it runs."""
    file = dev.folder / dev.row("data") / "settings" / "edge-1.toml"
    assert file.stat().st_mode & 0o077 == 0
    done = subprocess.run(
        [sys.executable, "-m", "edge", "token", "inspect", "--config", str(file)],
        input=dev.row("preview"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.needs_tool("curl")
def test_each_of_the_three_commands_works(dev: Dev) -> None:
    """Pause it, wake it (the counter is intact, one line tells of it), ask for it with the client."""
    link = dev.row("preview").partition("#")[0]
    pause, wake, ask = dev.commands()
    before = count_of(fetch(link)[2])
    paused = json.loads(shell(dev, pause))
    assert dev.state(paused["sandbox_id"]) == "paused"
    told = len(dev.woken(paused["sandbox_id"]))
    assert count_of(shell(dev, wake)) == before + 1
    dev.until(lambda: len(dev.woken(paused["sandbox_id"])) > told)
    assert dev.woken(paused["sandbox_id"])[told:] == ["GET /"]
    install, _, run = ask.partition(" && ")
    assert install == "pip install nullspace-sdk==0.1.9"  # The version this environment has.
    said = shell(dev, run.replace("python3", sys.executable, 1))
    assert paused["sandbox_id"].encode() in said and b"running" in said.lower()


def shell(dev: Dev, command: str) -> bytes:
    """What a command prints that is typed into another terminal."""
    done = subprocess.run(
        ["sh", "-c", command], cwd=dev.folder, capture_output=True, timeout=50, check=False
    )
    assert done.returncode == 0, done
    return done.stdout


def test_the_operator_finds_it_by_its_data_directory(dev: Dev) -> None:
    """In another terminal, without a key: a switch works within the second, and is taken back."""
    sandbox, url, _ = dev.sandbox(SERVER)
    dev.until(lambda: fetch(url)[0] == 200)
    operator = f"{PREVIEW_EDGE[0]} operator --data-dir {dev.row('data')}"
    said = shell(dev, f"{operator} disable-previews {sandbox} --reason test")
    assert said.decode() == f"{sandbox}: previews disabled\n"
    dev.until(lambda: fetch(url)[0] == 403)
    shell(dev, f"{operator} enable-previews {sandbox}")
    dev.until(lambda: fetch(url)[0] == 200)
    trail = shell(dev, f"{operator} audit --sandbox {sandbox} --actor operator").decode()
    assert [line.split()[1] for line in trail.splitlines()] == ["disabled", "enabled"]


def test_what_the_control_plane_has_to_say(dev: Dev) -> None:
    """A line like all others, not one of its log."""
    folder = dev.folder / dev.row("data")
    broken = folder / "signing-key-20200101T000000Z.pem"
    broken.write_text("no key")
    try:
        fetch(dev.row("API") + "/.well-known/jwks.json")
        dev.until(lambda: "\ncontrol plane: keys unusable: error " in dev.out)
    finally:
        broken.unlink()
    assert '"event"' not in dev.out + dev.err


def test_workers_are_what_was_asked_for(dev: Dev) -> None:
    """Two processes behind the one edge port."""
    assert sum(" worker " in command for command in family(dev.folder).values()) == 2


# --- Wakes ------------------------------------------------------------------------------------------


def test_a_sandbox_that_fell_asleep_is_woken_by_a_request(dev: Dev) -> None:
    """Without activity it pauses; a request wakes it, once, and one readable line says who did."""
    sandbox, url, _ = dev.sandbox(SERVER, inactivity_timeout_ms=500)
    assert fetch(url)[0] == 200
    assert eventually(lambda: dev.state(sandbox) == "paused")
    status, _, page = fetch(url.replace("/?", "/?who=1&"))
    assert status == 200 and b"Directory listing" in page
    dev.until(lambda: bool(dev.woken(sandbox)))
    assert dev.woken(sandbox) == ["GET /"]


def test_the_window_is_the_one_that_was_asked_for(dev: Dev) -> None:
    """A port where nobody listens after the wake: four seconds, not twenty, and the line says so."""
    sandbox, url, _ = dev.sandbox()
    dev.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
    began = time.monotonic()
    status, headers, body = fetch(url)
    lasted = time.monotonic() - began
    assert (status, json.loads(body)["code"]) == (503, "sandbox_resume_timeout")
    assert headers["Retry-After"] == "5" and 3.9 < lasted < 15
    dev.until(lambda: f"could not wake {sandbox} for GET /: sandbox_resume_timeout" in dev.out)


def test_a_sandbox_learns_nothing_of_ours(dev: Dev) -> None:
    """Neither the API's key nor any setting is in the environment of its commands."""
    sandbox, _, _ = dev.sandbox()
    said = dev.api("POST", f"/v1/sandboxes/{sandbox}/exec", {"command": "env"})
    assert KEY not in said["stdout"]
    assert "PREVIEW_EDGE_" not in said["stdout"] and "NULLSPACE_API_KEY" not in said["stdout"]


def test_the_access_log_is_in_the_data_directory_without_a_token(dev: Dev) -> None:
    """One file for all workers."""
    _, url, _ = dev.sandbox(SERVER)
    assert eventually(lambda: fetch(url)[0] == 200)
    log = dev.folder / dev.row("data") / "access.log"
    assert eventually(lambda: '"status":200' in log.read_text())
    token = url.partition("edge_token=")[2]
    assert token and not any(form in log.read_text() for form in spellings(token))


# --- The end ----------------------------------------------------------------------------------------

DAEMONS = """
setsid sleep 1000 &
(trap '' TERM INT HUP; setsid sleep 1000) &
setsid sh -c 'trap "" TERM INT HUP; cd /; sleep 1000 & wait' &
"""


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Dev]:
    """A ``dev`` with two workers and two sandboxes whose processes try to escape; one is frozen."""
    with Dev(tmp_path, "--no-demo", "--workers", "2") as one:
        one.up()
        for _ in range(2):
            sandbox, url, _ = one.sandbox(DAEMONS + SERVER)
            assert eventually(lambda url=url: fetch(url)[0] == 200)
        # Before the pause: who is frozen on the way to it never becomes one.
        assert eventually(lambda: list(family(tmp_path).values()).count("sleep 1000 ") == 6)
        one.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
        yield one


def child(dev: Dev, words: str) -> int:
    """The process id of one of dev's own children."""
    (pid,) = [pid for pid, command in family(dev.folder).items() if words in command]
    return pid


def nothing_left(dev: Dev) -> bool:
    """No process, and no file but the data directory (and what the test itself made)."""
    assert eventually(lambda: not family(dev.folder)), family(dev.folder)
    left = {path.name for path in dev.folder.iterdir()} | {p.name for p in dev.temporary.iterdir()}
    assert left == {".preview-edge", "tmp", "stdout", "stderr"}
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(full: Dev, number: signal.Signals) -> None:
    """Ctrl-C goes to the whole foreground group, as from a terminal; exit status 0, not one complaint."""
    os.killpg(full.process.pid, number)
    assert full.ended() == 0
    assert not family(full.folder), "something outlived dev"
    assert nothing_left(full)
    assert full.out.endswith("\nStopping.\n") and full.err == ""


@pytest.mark.parametrize(
    ("words", "name"), [(" serve --tied", "edge"), ("edge.appliance", "control plane")]
)
def test_a_child_that_is_killed_takes_everything_down(full: Dev, words: str, name: str) -> None:
    """Half a pair is of no use: one line says which died, exit status 1, nothing is left."""
    os.kill(child(full, words), signal.SIGKILL)
    assert full.ended() == 1
    line = f"preview-edge: the {name} has ended (killed by SIGKILL); stopping the rest\n"
    assert full.err == line
    assert nothing_left(full)


def test_children_do_not_outlive_a_killed_parent(full: Dev) -> None:
    """SIGKILL leaves no time to say anything; the pipes tell."""
    full.signal(signal.SIGKILL)
    full.ended()
    assert nothing_left(full)


def test_the_next_run_in_the_same_directory(tmp_path: Path) -> None:
    """After SIGKILL: sandboxes in error with their files, told of on the screen; one demo, not two."""
    data = ("--data-dir", str(tmp_path / "data"))
    with Dev(tmp_path / "first", *data) as first:
        first.up()
        sandbox, _, _ = first.sandbox("echo kept > file; sleep 1000")
        assert eventually(lambda: (tmp_path / f"data/sandboxes/{sandbox}/workspace/file").exists())
        (old,) = [one["id"] for one in first.api("GET", "/v1/sandboxes") if one["id"] != sandbox]
        first.signal(signal.SIGKILL)
        first.ended()
        assert eventually(lambda: not family(tmp_path / "first"))
    with Dev(tmp_path / "second", *data) as second:
        second.up()
        second.until(lambda: "state=error'\n" in second.out)
        assert "A sandbox of an earlier run is in state error" in second.out
        (command,) = [line for line in second.out.splitlines() if "state=error" in line]
        listed = json.loads(shell(second, command.strip()))
        assert [one["id"] for one in listed["items"]] == [sandbox]
        states = {one["id"]: one["status"] for one in second.api("GET", "/v1/sandboxes")}
        assert len(states) == 2 and states[sandbox] == "error" and old not in states
        body = {"path": "file"}
        read = second.api("POST", f"/v1/sandboxes/{sandbox}/files/read", body)
        assert read["content"] == "kept\n"
        second.api("DELETE", f"/v1/sandboxes/{sandbox}")
        assert not (tmp_path / "data/sandboxes" / sandbox).exists()


def test_a_second_signal_does_not_wait(full: Dev) -> None:
    """An edge that hangs (stopped) is not waited for; sandboxes are still ended."""
    os.kill(child(full, " serve --tied"), signal.SIGSTOP)
    began = time.monotonic()
    full.signal(signal.SIGINT)
    full.until(lambda: "Stopping." in full.out)
    full.signal(signal.SIGINT)
    full.ended()
    assert time.monotonic() - began < EDGE_PATIENCE
    assert nothing_left(full)


def test_a_signal_before_everything_is_up(tmp_path: Path) -> None:
    """Whenever it comes, dev ends and leaves nothing."""
    with Dev(tmp_path) as dev:
        assert eventually(lambda: len(family(tmp_path)) > 1)
        dev.signal(signal.SIGTERM)
        assert dev.ended() == 0
        assert nothing_left(dev)


# --- A fleet ----------------------------------------------------------------------------------------

HUSH = "a-password-nobody-may-see"


@pytest.fixture
def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Dev]:
    """Three edges over a Redis that wants a password, or (``without``) over none."""
    with_redis = getattr(request, "param", "") != "without"
    valkey = Valkey(tmp_path / "redis", password=HUSH)
    try:
        if with_redis:
            asyncio.run(valkey.start())
        environ = {"PREVIEW_EDGE_REDIS__URL": valkey.url} if with_redis else {}
        folder = tmp_path / "dev"
        with Dev(folder, "--edges", "3", "--no-demo", **environ) as one:
            one.up()
            yield one
    finally:
        valkey.kill()


def at(dev: Dev, number: int, url: str) -> tuple[int, bytes]:
    """Status and body of a preview asked for at one of the edges."""
    found = re.match(r"http://127\.0\.0\.1:(\d+)", dev.row(f"edge-{number}"))
    assert found
    status, _, body = fetch(re.sub(r":\d+/", f":{found[1]}/", url, count=1))
    return status, body


@pytest.mark.parametrize("fleet", ["with", "without"], indirect=True)
def test_a_fleet_on_a_laptop(fleet: Dev, request: pytest.FixtureRequest) -> None:
    """Every edge serves every preview, one wake is enough for all; a password is in no command line and no output."""
    sandbox, url, _ = fleet.sandbox(SERVER)
    for number in (1, 2, 3):
        fleet.until(lambda number=number: at(fleet, number, url)[0] == 200)
        admin = fleet.row(f"edge-{number}").partition("(admin ")[2].removesuffix(")")
        fleet.until(lambda admin=admin: fetch(admin + "/readyz")[0] == 200)
    fleet.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
    assert at(fleet, 3, url)[0] == 200
    fleet.until(lambda: f"edge-3 woke {sandbox} for GET /" in fleet.out)
    said = fleet.api("POST", f"/v1/sandboxes/{sandbox}/exec", {"command": "env"})["stdout"]
    log = (fleet.folder / fleet.row("data") / "access.log").read_text()
    commands = " ".join(family(fleet.folder).values())
    assert HUSH not in fleet.out + fleet.err + said + log + commands
    assert fleet.row("redis").startswith(
        "redis://127.0.0.1:" if "without" not in request.node.name else "none: each edge follows"
    )
    os.kill(child(fleet, "edge-2.toml"), signal.SIGKILL)
    assert fleet.ended() == 1
    assert (
        fleet.err == "preview-edge: the edge-2 has ended (killed by SIGKILL); stopping the rest\n"
    )
    assert nothing_left(fleet)


# --- What goes wrong --------------------------------------------------------------------------------


def test_two_of_them_in_one_directory(dev: Dev, tmp_path: Path) -> None:
    """The second would end the first one's sandboxes: refused in one line, exit status 2."""
    assert not dev.over, dev.err
    data = str(dev.folder / dev.row("data"))
    with Dev(tmp_path, "--data-dir", data) as second:
        assert second.ended() == 2
        (line,) = second.err.splitlines()
        assert line.startswith("preview-edge: ") and "is in use by another control plane" in line
        assert not family(tmp_path)


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_somebodys_settings_are_left_alone(tmp_path: Path, kind: str) -> None:
    """A directory, or where a link leads, that holds other files than ours: one line, exit status 2, nothing is removed."""
    data = tmp_path / "data"
    data.mkdir()
    theirs = data / "settings" if kind == "folder" else tmp_path / "theirs"
    theirs.mkdir()
    for name in ("edge-1.toml", "base.py")[: 2 if kind == "folder" else 1]:
        (theirs / name).write_text("precious")
    if kind == "link":
        (data / "settings").symlink_to(theirs)
    before = sorted(theirs.iterdir())
    with Dev(tmp_path, "--no-demo", "--data-dir", str(data)) as dev:
        assert dev.ended() == 2
        (line,) = dev.err.splitlines()
        assert "settings cannot be made" in line and "move it away" in line
    assert sorted(theirs.iterdir()) == before
    assert all(file.read_text() == "precious" for file in before)


def test_a_made_up_key_is_printed(tmp_path: Path) -> None:
    """Without NULLSPACE_API_KEY there is still one, and it works; without a demo there is none."""
    with Dev(tmp_path, "--no-demo", NULLSPACE_API_KEY="") as dev:
        dev.up()
        assert re.fullmatch(r"nsk_[0-9a-f]{32}", dev.row("API key"))
        assert dev.api("GET", "/v1/sandboxes") == []
        assert "preview " not in dev.out
        assert dev.commands()[0].startswith("curl ") and len(dev.commands()) == 3
        listed = json.loads(shell(dev, dev.commands()[0]))
        assert listed["status"] == "running"
        assert json.loads(shell(dev, dev.commands()[1]))[0]["id"] == listed["id"]
