"""The table of processes: read right from both sources, and nobody in the wrong family."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from families import LINUX

from edge.appliance.runtime import processes
from edge.appliance.runtime.processes import (
    MARK,
    Process,
    carries,
    descendants,
    from_ps,
    members,
    of_command,
    scan,
)

ME = os.getpid()


def row(
    pid: int, parent: int, *, session: int = 0, state: str = "S", started: int = 100
) -> Process:
    """A process as a table has it."""
    return Process(pid, parent, session, state, started, 0)


@pytest.mark.parametrize("read", [scan, from_ps], ids=["own", "ps"])
def test_both_sources_know_a_child(read: object) -> None:
    """Parent, session, memory and state of a real process, running, stopped, continued and dead."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
        assert callable(read)
        first = read()[child.pid]
        assert (first.parent, first.session) == (ME, child.pid)
        assert first.memory > 0 and not first.stopped and not first.dead
        os.kill(child.pid, signal.SIGSTOP)
        os.waitpid(child.pid, os.WUNTRACED)
        stopped = read()[child.pid]
        assert stopped.stopped and not stopped.dead and stopped.started == first.started
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert read()[child.pid].dead
    assert child.pid not in read()


@LINUX
def test_a_name_cannot_forge_a_row() -> None:
    """A process may call itself anything, also the rest of a line of the table."""
    name = "x) Z 1 1"
    script = (
        f"import ctypes; ctypes.CDLL(None).prctl(15, {name.encode()!r}); print(flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert name in Path(f"/proc/{child.pid}/stat").read_text()
        assert scan()[child.pid].parent == ME
        assert not scan()[child.pid].dead
        child.communicate(b"\n")


@LINUX
def test_a_dead_first_thread_does_not_hide_the_others() -> None:
    """A process whose first thread ended shows as a zombie and still runs; here it counts as running."""
    script = (
        "import ctypes, threading\n"
        "def rest():\n    print('up', flush=True)\n    input()\n"
        "threading.Thread(target=rest).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        waiting = threading.Event()
        while Path(f"/proc/{child.pid}/stat").read_text().rpartition(") ")[2][0] != "Z":
            waiting.wait(0.001)
        assert not scan()[child.pid].dead and not scan()[child.pid].stopped
        child.kill()


@pytest.mark.parametrize(
    ("first", "threads", "worst"),
    [
        ("T", [["T"], ["T"]], "T"),
        ("T", [["T"], ["S"]], "S"),
        ("Z", [["Z"], ["T"]], "T"),
        ("Z", [["Z"], []], "Z"),
        ("Z", [["Z"], ["X"]], "Z"),
        ("T", [], "T"),
    ],
)
def test_the_liveliest_thread_speaks_for_all(
    first: str, threads: list[list[str]], worst: str
) -> None:
    """Stopped means stopped in every thread; dead means dead in every thread."""
    assert processes._worst(first, threads) == worst


def test_descent_is_told_parents_first() -> None:
    """Everything below, each once, no matter in which order the table came or whether it has loops."""
    table = {
        one.pid: one for one in (row(9, 5), row(5, 3), row(3, 2), row(4, 2), row(8, 8), row(2, 8))
    }
    assert [one.pid for one in descendants(table, [2])] == [3, 4, 5, 9]
    assert [one.pid for one in descendants(table, [8])] == [2, 3, 4, 5, 9]
    assert descendants(table, [1]) == []


@contextlib.contextmanager
def marked(mark: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a mark that has certainly begun; in the midst of exec it has no environment."""
    with subprocess.Popen(
        ["cat"],
        env={"A": "1", MARK: mark, "PATH": os.defpath},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(b"up\n")
        child.stdin.flush()
        child.stdout.readline()
        yield child
        child.kill()


@LINUX
def test_marks_are_whole_words() -> None:
    """The mark of a sandbox, or of a command of it, and not one that merely begins or ends alike."""
    with marked("sb_a.11.7") as child:
        assert carries(child.pid, "sb_a.11") and carries(child.pid, "sb_a.11.7")
        for other in ("sb_a.1", "sb_a.11.", "sb_a.11.70", "b_a.11", "sb_a", "sb_a.11.7.1"):
            assert carries(child.pid, other) == (other == "sb_a"), other
    assert not carries(child.pid, "sb_a.11"), "it is gone"
    assert not carries(1 << 30, "sb_a.11")


@LINUX
def test_members_descend_or_carry_the_mark() -> None:
    """Own children and marked strangers with theirs; not the supervisor, not us, nobody older."""
    with marked("sb_m.22.1") as stray:
        real = scan()[stray.pid].started
        table = {
            one.pid: one
            for one in (
                row(1 << 29, 1, started=real),
                row((1 << 29) + 1, 1 << 29, started=real),
                row((1 << 29) + 2, 1, started=real),
                row(stray.pid, ME, started=real),
                row((1 << 29) + 3, stray.pid, started=real),
                row(ME, 1, started=real),
            )
        }
        found = [one.pid for one in members(table, 1 << 29, "sb_m.22")]
        assert found == [(1 << 29) + 1, stray.pid, (1 << 29) + 3]
        assert [one.pid for one in members(table, None, "sb_m.22")] == [stray.pid, (1 << 29) + 3]
        assert members(table, None, "sb_m.33") == []
        table[1 << 29] = row(1 << 29, 1, started=real + 1)
        assert [one.pid for one in members(table, 1 << 29, "sb_m.22")] == [(1 << 29) + 1]


def test_a_command_is_its_leader_its_session_and_its_descent() -> None:
    """While the leader lives its descent counts; afterwards what is left of its session does."""
    rows = [row(10, 1, session=10), row(11, 10, session=11), row(12, 1, session=10), row(13, 1)]
    assert [one.pid for one in of_command(rows, 10, 10, "sb_x.1.1")] == [10, 11, 12]
    assert [one.pid for one in of_command(rows[1:], None, 10, "sb_x.1.1")] == [12]
