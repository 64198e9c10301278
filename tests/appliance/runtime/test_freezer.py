"""Stopping whole families: in order, completely, and undone exactly."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from families import LINUX, alive, until

from edge.appliance.runtime import freezer as module
from edge.appliance.runtime.cgroup import Cgroup
from edge.appliance.runtime.freezer import Freezer
from edge.appliance.runtime.processes import MARK, Process, scan

pytestmark = LINUX

SANDBOX = f"test.{os.getpid()}"


@pytest.fixture
def cgroup(cgroups: bool) -> Iterator[Cgroup | None]:
    """A cgroup, or None for the way without."""
    made = Cgroup.make(f"{SANDBOX}.{time.monotonic_ns()}") if cgroups else None
    yield made
    if made is not None:
        made.remove()


@pytest.fixture
def freezer(cgroup: Cgroup | None) -> Iterator[Freezer]:
    """A freezer of everything that carries the mark of this test run."""
    made = Freezer(SANDBOX, supervisor=None, cgroup=cgroup)
    yield made
    made.kill_all()


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a marked Python process in its own session, in a cgroup or in none; ends it after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def call(script: str, cgroup: Cgroup | None) -> subprocess.Popen[bytes]:
        started.append(
            subprocess.Popen(
                [sys.executable, "-S", "-c", script],
                env={MARK: f"{SANDBOX}.1"},
                cwd=tmp_path,
                start_new_session=True,
                preexec_fn=None if cgroup is None else cgroup.join,  # noqa: PLW1509 - it writes, no more.
            )
        )
        return started[-1]

    yield call
    for child in started:
        child.kill()
        child.wait()


PARENT = """
import os, signal, time
child = os.fork()
if child == 0:
    open("up", "w").close()
    while not os.path.exists("end"):
        time.sleep(0.001)
    os._exit(7)
seen = []
while True:
    _, status = os.waitpid(child, os.WUNTRACED)
    seen.append("stopped" if os.WIFSTOPPED(status) else "ended")
    if seen[-1] == "ended":
        break
with open("seen.new", "w") as file:
    file.write(" ".join(seen))
os.rename("seen.new", "seen")
"""


async def test_a_parent_never_sees_its_child_stopped(
    freezer: Freezer, start: Start, cgroup: Cgroup | None, tmp_path: Path
) -> None:
    """A shell that watches its jobs notices nothing of twenty freezes."""
    child = start(PARENT, cgroup)
    await until((tmp_path / "up").exists)
    for _ in range(20):
        assert freezer.freeze()
        freezer.thaw()
    (tmp_path / "end").touch()
    await until((tmp_path / "seen").exists)
    assert (tmp_path / "seen").read_text() == "ended"
    child.wait(10)


async def test_what_was_stopped_before_stays_stopped(
    freezer: Freezer, start: Start, cgroup: Cgroup | None, tmp_path: Path
) -> None:
    """A job suspended by its user is as it was after a freeze and a thaw; the others go on."""
    suspended = start("import time; time.sleep(90)", cgroup)
    other = start("import time; time.sleep(90)", cgroup)
    os.kill(suspended.pid, signal.SIGSTOP)
    await until(lambda: scan()[suspended.pid].stopped)
    assert freezer.freeze() and freezer.freeze()
    freezer.thaw()
    await until(lambda: not scan()[other.pid].stopped)
    assert scan()[suspended.pid].stopped
    assert freezer.kill_all()
    assert suspended.wait(10) == other.wait(10) == -signal.SIGKILL


async def test_a_freeze_that_fails_freezes_nobody(
    cgroup: Cgroup | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    freezer: Freezer,
    start: Start,
) -> None:
    """If a member cannot be stopped in time, those that were go on."""
    beats = tmp_path / "beats"
    script = "f = open('beats', 'ab', buffering=0)\nwhile True: f.write(b'.')"
    start(script, cgroup)
    await until(beats.exists)
    monkeypatch.setattr(module, "FREEZE_SECONDS", 0.05)
    stubborn = Process(1 << 30, 1, 1, "S", 1, 0)
    real = freezer.members
    monkeypatch.setattr(freezer, "members", lambda: [*real(), stubborn])
    assert not freezer.freeze()
    assert not freezer.frozen
    then = beats.stat().st_size
    await until(lambda: beats.stat().st_size > then)
    monkeypatch.undo()


async def test_a_cgroup_that_is_gone_is_done_without(
    cgroup: Cgroup | None, tmp_path: Path, freezer: Freezer, start: Start
) -> None:
    """A sandbox that left its cgroup and removed it is frozen by signals."""
    if cgroup is not None:
        cgroup.remove()
    child = start("import time; time.sleep(90)", None)
    assert freezer.freeze()
    assert scan()[child.pid].stopped
    freezer.thaw()
    await until(lambda: not scan()[child.pid].stopped)
    assert freezer.kill_all()
    child.wait(10)


async def test_who_left_the_cgroup_is_stopped_by_signals(
    cgroup: Cgroup | None, tmp_path: Path, freezer: Freezer, start: Start
) -> None:
    """A cgroup freezes those in it; a marked process outside is stopped as well, and both go on."""
    inside = start("import time; time.sleep(90)", cgroup)
    outside = start("import time; time.sleep(90)", None)
    assert freezer.freeze()
    assert scan()[outside.pid].stopped
    assert cgroup is None or cgroup.holds(inside.pid)
    freezer.thaw()
    await until(lambda: not scan()[outside.pid].stopped)
    freezer.freeze()
    assert freezer.kill_all()
    assert inside.wait(10) == outside.wait(10) == -signal.SIGKILL


async def test_killing_a_selection_leaves_the_rest(
    cgroup: Cgroup | None, tmp_path: Path, freezer: Freezer, start: Start
) -> None:
    """Only what is selected dies, and what does not exist is no error."""
    one, other = (start("import time; time.sleep(90)", cgroup) for _ in range(2))

    def select() -> list[Process]:
        return [process for process in freezer.members() if process.pid == one.pid]

    assert freezer.kill(select)
    assert one.wait(10) == -signal.SIGKILL
    assert alive(other.pid)
    assert freezer.kill(list)
