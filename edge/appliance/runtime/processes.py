"""The table of processes, and which of them belong to a sandbox.

A process belongs to a sandbox if it descends from the sandbox's supervisor, or if its environment
carries the sandbox's *mark*. On Linux descent alone finds whatever forked away, since orphans fall to
the supervisor; the mark finds what another program (``at``, a container engine) started on behalf of
the sandbox, tells the commands of one sandbox apart, and outlives the supervisor.

Linux is read from ``/proc``; elsewhere ``ps`` is asked, and environments cannot be read.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from typing import NamedTuple

MARK = "PREVIEW_SANDBOX_MARK"
"""The variable that says whose a process is: ``<mark of the sandbox>.<number of the command>``."""

_STOPPED = frozenset("TtZXx")
_DEAD = frozenset("ZXx")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class Process(NamedTuple):
    """One row. ``state`` is the letter of ps; ``memory`` is resident bytes; ``ticks`` is processor time of it
    and of those children that it has reaped (Linux; 0 where ps is read).

    ``started`` tells two users of one pid apart: clock ticks since boot, or any number where ps is read.
    """

    pid: int
    parent: int
    session: int
    state: str
    started: int
    memory: int
    ticks: int = 0

    @property
    def stopped(self) -> bool:
        """Whether it executes nothing any more, in any thread."""
        return self.state in _STOPPED

    @property
    def dead(self) -> bool:
        """Whether it is only waiting to be reaped."""
        return self.state in _DEAD


Table = dict[int, Process]


def scan() -> Table:
    """All processes that can be seen now. Not a snapshot: who forks meanwhile may be missed."""
    return from_proc() if sys.platform == "linux" else from_ps()


def from_proc() -> Table:
    """The table as ``/proc`` shows it (proc(5))."""
    table: Table = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib is a start-up cost of each supervisor.
        if name.isdecimal() and (process := look(int(name))) is not None:
            table[process.pid] = process
    return table


def children(pid: int) -> frozenset[int]:
    """The direct children of a single-threaded process, zombies included; none where Linux is not."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:  # noqa: PTH123 - as above.
            return frozenset(map(int, file.read().split()))
    except OSError:
        return frozenset()


def look(pid: int) -> Process | None:
    """One process (Linux), or None if there is none of that pid."""
    fields = _fields(f"/proc/{pid}/stat")
    if not fields:
        return None
    state = fields[0]
    if state in _STOPPED and int(fields[17]) > 1:
        # The first thread speaks for itself only: it may be stopped, or have ended, before the others.
        state = _worst(
            state, [_fields(f"/proc/{pid}/task/{thread}/stat") for thread in _threads(pid)]
        )
    session, started, pages = int(fields[3]), int(fields[19]), int(fields[21])
    ticks = sum(map(int, fields[11:15]))
    return Process(pid, int(fields[1]), session, state, started, pages * _PAGE, ticks)


def _worst(first: str, threads: Iterable[list[str]]) -> str:
    states = {fields[0] for fields in threads if fields}
    running = states - _STOPPED
    if running:
        return running.pop()
    return "T" if states - _DEAD else first


def _fields(path: str) -> list[str]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - as above.
            # The name in parentheses may hold anything, parentheses and blanks included.
            return file.read().rpartition(b") ")[2].decode("ascii").split()
    except OSError:
        return []  # It has ended.


def _threads(pid: int) -> list[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - as above.
    except OSError:
        return []


def from_ps() -> Table:
    """The table as ps shows it on every Unix; slower, and without the states of single threads."""
    columns = ["-o", "pid=,ppid=,state=,rss=,lstart="]
    answer = subprocess.run(
        ["ps", "-A", *columns],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    table: Table = {}
    for line in answer.stdout.decode("ascii", "replace").splitlines():
        pid, parent, state, kilobytes, born = line.split(None, 4)
        try:
            session = os.getsid(int(pid))
        except OSError:
            continue
        memory = int(kilobytes) * 1024
        table[int(pid)] = Process(int(pid), int(parent), session, state[0], hash(born), memory)
    return table


def carries(pid: int, mark: str) -> bool:
    """Whether a process was started with this mark, or with one of the commands' marks under it."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:  # noqa: PTH123 - as above.
            environment = b"\0" + file.read() + b"\0"
    except OSError:
        return False  # It is gone, it is somebody else's, or there is no /proc.
    needle = b"\0" + f"{MARK}={mark}".encode()
    return needle + b"." in environment or needle + b"\0" in environment


def descendants(table: Table, roots: Iterable[int]) -> list[Process]:
    """Everything below ``roots`` (which are not part of it), parents before their children."""
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    seen = set(roots)
    row = list(seen)
    found: list[Process] = []
    for pid in row:  # Grows while it is walked: that makes it breadth first.
        for child in children.get(pid, ()):
            if child.pid not in seen:
                seen.add(child.pid)
                row.append(child.pid)
                found.append(child)
    return found


def members(table: Table, supervisor: int | None, mark: str) -> list[Process]:
    """The processes of a sandbox, parents before their children.

    ``supervisor`` is its pid; without one (it died) only the mark decides.
    """
    own = descendants(table, () if supervisor is None else (supervisor,))
    known = {process.pid for process in own} | {supervisor, os.getpid()}
    boss = table.get(supervisor) if supervisor is not None else None
    # Nothing older than its supervisor is a stray, which spares reading most environments.
    youngest = boss.started if boss is not None else 0
    strays = [
        process
        for process in table.values()
        if process.pid not in known and process.started >= youngest and carries(process.pid, mark)
    ]
    below = descendants(table, {process.pid for process in strays})
    return own + strays + [process for process in below if process.pid not in known]


def of_command(
    rows: Iterable[Process], leader: int | None, session: int, mark: str
) -> list[Process]:
    """Of the processes of a sandbox (``rows``) those that one command started, and the command itself.

    ``leader`` is the command's process while it lives. What left the session, lost its parent and
    wiped its environment cannot be traced to a command, only to its sandbox.
    """
    table = {process.pid: process for process in rows}
    below = {process.pid for process in descendants(table, () if leader is None else (leader,))}
    return [
        process
        for process in table.values()
        if process.pid == leader
        or process.pid in below
        or process.session == session
        or carries(process.pid, mark)
    ]
