"""Families of processes that try to get away, and how a test looks after them."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.appliance.runtime import Command, Runtime

LINUX = pytest.mark.skipif(
    sys.platform != "linux", reason="needs /proc and child subreapers: Linux"
)

FAMILY = """
import os, sys, time

def beat(name):
    # A file whose size counts: appending one byte is atomic, and the test reads it without a lock.
    with open(name + ".pid.new", "w") as file:
        file.write(str(os.getpid()))
    os.rename(name + ".pid.new", name + ".pid")
    beats = open(name + ".beats", "ab", buffering=0)
    while True:
        beats.write(b".")
        time.sleep(0.002)

def child():
    if os.fork() == 0:
        beat("child")

def own_session():
    if os.fork() == 0:
        os.setsid()
        beat("session")

def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 100)
            beat("daemon")
        os._exit(0)
    os.wait()

def nameless():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.execve(sys.executable, [sys.executable, "-S", __file__, "nameless"], {})
        os._exit(0)
    os.wait()

if len(sys.argv) > 1:
    beat(sys.argv[1])
child(), own_session(), daemon(), nameless()
beat("head")
"""
NAMES = ("head", "child", "session", "daemon", "nameless")


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Return as soon as the condition holds; what happens in other processes sends us no event."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        await asyncio.sleep(0.002)


def alive(pid: int) -> bool:
    """Whether a process runs or could run again (a zombie cannot)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    if sys.platform != "linux":
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZXx"
    except FileNotFoundError:
        return False


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return len(list(Path("/dev/fd").iterdir()))


class Family:
    """A running family in one sandbox: five processes, of which four left home in different ways."""

    def __init__(self, tree: Path, leader: int) -> None:
        self.tree = tree
        self.leader = leader

    @classmethod
    async def start(cls, runtime: Runtime, sandbox: str, root: Path) -> Family:
        await runtime.files(sandbox, lambda tree: tree.write("family.py", FAMILY.encode()))
        leader = await runtime.spawn(sandbox, Command(argv=[sys.executable, "-S", "family.py"]))
        family = cls(root / sandbox / "workspace", leader)
        await until(lambda: all((family.tree / f"{name}.beats").exists() for name in NAMES))
        return family

    @property
    def pids(self) -> dict[str, int]:
        return {name: int((self.tree / f"{name}.pid").read_text()) for name in NAMES}

    def beats(self) -> dict[str, int]:
        return {name: (self.tree / f"{name}.beats").stat().st_size for name in NAMES}

    async def moved_on(self, since: dict[str, int], steps: int = 5) -> None:
        """Every member has counted on."""
        await until(lambda: all(self.beats()[name] >= since[name] + steps for name in NAMES))
