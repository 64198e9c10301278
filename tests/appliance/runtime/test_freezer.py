"""Stopping whole families: in order, completely, and undone exactly."""

from __future__ import annotations

import asyncio
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


async def shown(freezer: Freezer, *started: subprocess.Popen[bytes]) -> None:
    """Until their marks show, which they do once they are what they were started as."""
    pids = {child.pid for child in started}
    await until(lambda: pids <= {process.pid for process in freezer.members()})


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
    """A shell that watches its jobs notices nothing of ten freezes."""
    child = start(PARENT, cgroup)
    await until((tmp_path / "up").exists)
    for _ in range(10):
        assert await asyncio.to_thread(freezer.freeze)
        await asyncio.to_thread(freezer.thaw)
    (tmp_path / "end").touch()
    await until((tmp_path / "seen").exists)
    assert (tmp_path / "seen").read_text() == "ended"
    child.wait(10)


LINE = """
import os, time
for _ in range(3):
    if os.fork():
        break
    open(f"up-{os.getpid()}", "w").close()
time.sleep(90)
"""


async def test_parents_stop_first_and_go_on_last(
    freezer: Freezer, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a child is told to stop its parent is still; when a parent goes on its child has been told to."""
    start(LINE, None)
    await until(lambda: len(list(tmp_path.glob("up-*"))) == 3)
    family = {process.pid: process.parent for process in freezer.members()}
    real = module._signal
    told: list[tuple[int, signal.Signals]] = []

    def watch(pid: int, number: signal.Signals) -> None:
        if number == signal.SIGSTOP and family[pid] in family:
            assert scan()[family[pid]].stopped
        if number == signal.SIGCONT:
            below = [child for child, parent in family.items() if parent == pid]
            assert all((child, number) in told for child in below)
        told.append((pid, number))
        real(pid, number)

    monkeypatch.setattr(module, "_signal", watch)
    assert freezer.freeze()
    freezer.thaw()
    monkeypatch.undo()
    assert {pid for pid, number in told if number == signal.SIGSTOP} == set(family)
    assert [number for _, number in told].count(signal.SIGCONT) == len(family) == 4


def test_a_child_waits_for_its_parent_to_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a parent takes, its child is left alone: it may be in vfork and need the child's exec."""
    freezer = Freezer(SANDBOX, supervisor=None)
    parent, child = 1 << 29, (1 << 29) + 1
    told: list[int] = []
    monkeypatch.setattr(module, "_signal", lambda pid, _: told.append(pid))
    states = iter(["DS", "DS", "TS", "TT", "TT"])

    def members() -> list[Process]:
        first, second = next(states)
        return [Process(parent, 1, 1, first, 1, 0), Process(child, parent, 1, second, 1, 0)]

    monkeypatch.setattr(freezer, "members", members)
    assert freezer.freeze()
    assert told == [parent, parent, child]


async def test_what_was_stopped_before_stays_stopped(
    freezer: Freezer, start: Start, cgroup: Cgroup | None, tmp_path: Path
) -> None:
    """A job suspended by its user is as it was after a freeze and a thaw; the others go on."""
    suspended = start("import time; time.sleep(90)", cgroup)
    other = start("import time; time.sleep(90)", cgroup)
    await shown(freezer, suspended, other)
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
    await shown(freezer, child)
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
    await shown(freezer, inside, outside)
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
    await shown(freezer, one, other)

    def select() -> list[Process]:
        return [process for process in freezer.members() if process.pid == one.pid]

    assert freezer.kill(select)
    assert one.wait(10) == -signal.SIGKILL
    assert alive(other.pid)
    assert freezer.kill(list)
