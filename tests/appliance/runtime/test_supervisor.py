"""The supervisor as a process of its own, spoken to over its socket."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from families import LINUX, alive, until

from edge.appliance.runtime.link import sweep

ROOT = Path(__file__).resolve().parents[3]


class Peer:
    """The control plane's end, speaking line by line."""

    def __init__(self, cgroups: bool) -> None:
        self.sock, theirs = socket.socketpair()
        self.sock.settimeout(20)
        self.mark = f"sb_peer.{os.urandom(8).hex()}"
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge.appliance.runtime.supervisor",
                 str(theirs.fileno()), self.mark, "cgroup" if cgroups else "signals"],
                pass_fds=[theirs.fileno()], cwd=ROOT, start_new_session=True,
            )  # fmt: skip
        self.lines = self.sock.makefile("rb")

    def ask(self, verb: str, **what: object) -> dict[str, object]:
        self.tell(verb, **what)
        return self.hear()

    def tell(self, verb: str, descriptors: tuple[int, ...] = (), **what: object) -> None:
        line = json.dumps({"id": 1, "do": verb, **what}).encode() + b"\n"
        socket.send_fds(self.sock, [line], list(descriptors))

    def hear(self) -> dict[str, object]:
        answer = json.loads(self.lines.readline())
        assert isinstance(answer, dict)
        return answer

    def spawn(self, *argv: str, number: int = 1, stdout: int | None = None) -> dict[str, object]:
        folder, null = os.open("/", os.O_RDONLY), os.open(os.devnull, os.O_RDWR)
        descriptors = (folder, null, null if stdout is None else stdout, null)
        self.tell("spawn", descriptors, argv=list(argv), env={"PATH": os.defpath}, number=number)
        os.close(folder)
        os.close(null)
        return self.hear()

    def close(self) -> None:
        self.lines.close()
        self.sock.close()


@pytest.fixture
def peer(cgroups: bool) -> Iterator[Peer]:
    """A supervisor and its peer; both gone at the end."""
    made = Peer(cgroups)
    yield made
    made.close()
    try:
        made.process.wait(15)
    except subprocess.TimeoutExpired:
        made.process.kill()
        made.process.wait()
        raise
    finally:
        sweep(made.mark)  # One that a test killed could not clear up.


def test_commands_start_and_their_ends_are_told(peer: Peer) -> None:
    """Each command is told by its number, with its code, after the answer that named its pid."""
    for number, script, code in ((1, "exit 3", 3), (2, "kill -KILL $$", 137), (3, ":", 0)):
        answer = peer.spawn("sh", "-c", script, number=number)
        assert isinstance(answer["ok"], int)
        assert peer.hear() == {"exited": number, "code": code}


def test_a_command_that_cannot_start_is_refused(peer: Peer) -> None:
    """With the reason, and the descriptors that came with it are closed."""
    reading, writing = os.pipe()
    answer = peer.spawn("/no/such/program", stdout=writing)
    os.close(writing)
    assert answer["error"] == "not_executable"
    assert "No such file" in str(answer["message"])
    assert os.read(reading, 1) == b"", "nobody holds the writing end any more"
    os.close(reading)


def test_a_command_gets_its_descriptors_only(peer: Peer) -> None:
    """What is written arrives, and the supervisor keeps no end open after the command."""
    reading, writing = os.pipe()
    peer.spawn("echo", "hello", stdout=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"hello\n"
    assert "exited" in peer.hear()


def test_the_frozen_start_nothing(peer: Peer) -> None:
    """Refused at once, freezing twice is fine, and after the thaw it starts."""
    for _ in range(2):
        assert peer.ask("freeze")["ok"] is True
    assert peer.spawn("true")["error"] == "frozen"
    assert peer.ask("thaw")["ok"] is True
    assert "ok" in peer.spawn("sleep", "975")


@LINUX
def test_kill_answers_after_the_end(peer: Peer) -> None:
    """The end of the command is told, it is gone, and a second kill finds nothing."""
    pid = peer.spawn("sleep", "974")["ok"]
    assert isinstance(pid, int)
    peer.tell("kill", pid=pid, number=1)
    answers = [peer.hear(), peer.hear()]
    assert {"exited": 1, "code": 137} in answers and {"id": 1, "ok": True} in answers
    assert not alive(pid)
    assert peer.ask("kill", pid=pid, number=1)["ok"] is False
    assert peer.ask("memory")["ok"] == 0


@LINUX
def test_kill_all_spares_the_supervisor(peer: Peer) -> None:
    """Everybody else is gone; it goes on serving."""
    pid = peer.spawn("sleep", "973")["ok"]
    assert isinstance(pid, int)
    peer.tell("kill_all")
    assert {"exited": 1, "code": 137} in (peer.hear(), peer.hear())
    assert not alive(pid)
    assert "ok" in peer.spawn("true", number=2)


@pytest.mark.parametrize("way", ["close", "half a line", "SIGTERM"])
def test_it_ends_with_its_peer(cgroups: bool, way: str) -> None:
    """The end of the socket, even within a request, and SIGTERM kill everything and then itself."""
    peer = Peer(cgroups)
    pid = peer.spawn("sleep", "972")["ok"]
    assert isinstance(pid, int) and alive(pid)
    if way == "SIGTERM":
        peer.process.send_signal(signal.SIGTERM)
    elif way == "half a line":
        peer.sock.sendall(b'{"id": 9, "do": "th')
    if way != "SIGTERM":
        peer.close()
    assert peer.process.wait(15) == 0
    assert not alive(pid)
    peer.close()


def test_ctrl_c_is_not_for_it(peer: Peer) -> None:
    """Signals of the terminal leave it alone; the control plane ends it in order."""
    assert peer.ask("memory")["ok"] == 0
    for number in (signal.SIGINT, signal.SIGHUP):
        peer.process.send_signal(number)
    assert peer.ask("memory")["ok"] == 0


@LINUX
async def test_its_death_kills_the_commands(peer: Peer) -> None:
    """A command dies with a supervisor that had no time to do anything (PR_SET_PDEATHSIG)."""
    pid = peer.spawn("sleep", "971")["ok"]
    assert isinstance(pid, int)
    peer.process.kill()
    await until(lambda: not alive(pid))


@LINUX
def test_orphans_fall_to_it_and_are_reaped(peer: Peer) -> None:
    """A daemon becomes its child, and leaves no zombie when it ends."""
    reading, writing = os.pipe()
    peer.spawn(
        "sh", "-c", "(setsid sh -c 'echo $$; read x < /proc/self/fd/9; :' &)", stdout=writing
    )
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        daemon = int(pipe.readline())
        pipe.read()  # Ends when the daemon has ended.
    assert peer.hear() == {"exited": 1, "code": 0}
    while peer.ask("memory")["ok"]:
        pass  # It closed the pipe on its way out, and is not quite gone yet.
    deadline = 2000
    while Path(f"/proc/{daemon}").exists() and deadline:
        deadline -= 1
        assert peer.ask("memory")["ok"] == 0  # It reaps between two requests.
    assert deadline


def test_it_starts_without_the_control_planes_libraries() -> None:
    """Neither asyncio nor anything from outside of the standard library is loaded."""
    script = (
        "import sys, edge.appliance.runtime.supervisor\n"
        "print([name for name in ('asyncio', 'dataclasses', 'aiohttp', 'pathlib') if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-S", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"


@LINUX
def test_processor_time_outlives_those_who_used_it(peer: Peer) -> None:
    """What a command and its children have used is still counted once they are reaped, and counted once."""
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    peer.spawn("sh", "-c", f"{sys.executable} -c '{burn}' & wait")
    assert peer.hear() == {"exited": 1, "code": 0}
    used = peer.ask("cpu")["ok"]
    assert isinstance(used, float) and 0.29 <= used < 3.0
    assert peer.ask("cpu")["ok"] == pytest.approx(used, abs=0.05)
