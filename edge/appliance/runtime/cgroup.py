"""One cgroup v2 per sandbox, where the machine lets us have one: freezing in one step, nobody forgotten.

Tried, not guessed: containers, older kernels, other users' slices and macOS each say no in their own
way, so a cgroup is used if making it, writing to its ``cgroup.freeze`` and joining it all worked.
See the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import os
import select
import time

MOUNTS = "/proc/self/mountinfo"
OWN = "/proc/self/cgroup"


def base(mounts: str = MOUNTS, own: str = OWN) -> str | None:
    """The directory of the cgroup v2 that this process is in, or None where there is none to see."""
    try:
        path = _unified(own)
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 - pathlib is a start-up cost of each supervisor.
            for line in file:
                left, _, right = line.partition(" - ")
                if right.split(" ", 1)[0] != "cgroup2":
                    continue
                root, point = left.split(" ")[3:5]
                # A container may see a part of the hierarchy only, mounted as if it were all.
                inner = os.path.relpath(path, root) if path is not None else ".."
                if inner != ".." and not inner.startswith("../"):
                    return os.path.normpath(os.path.join(point, inner))  # noqa: PTH118 - as above.
    except (OSError, ValueError):
        pass
    return None


def _unified(path: str) -> str | None:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123 - as above.
        for line in file:
            if line.startswith("0::"):
                return line[3:].rstrip("\n").removesuffix(" (deleted)")
    return None


class Cgroup:
    """The cgroup of one sandbox. `make` gives one that works; `find` one that somebody else made."""

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def make(cls, mark: str, under: str | None = None) -> Cgroup | None:
        """A new cgroup that was seen to freeze and to be joined, or None where that is not to be had."""
        parent = under if under is not None else base()
        if parent is None:
            return None
        cgroup = cls(_child(parent, mark))
        try:
            os.mkdir(cgroup.path)  # noqa: PTH102 - as above.
        except OSError:
            return None
        try:
            cgroup._write("cgroup.freeze", "0")
            if cgroup._can_be_joined():
                return cgroup
        except OSError:
            pass
        cgroup.remove()
        return None

    @classmethod
    def find(cls, mark: str, under: str | None = None) -> Cgroup | None:
        """The cgroup of that mark, if there is one."""
        parent = under if under is not None else base()
        if parent is None or not os.path.isdir(path := _child(parent, mark)):  # noqa: PTH112 - as above.
            return None
        return cls(path)

    def _can_be_joined(self) -> bool:
        # Moving a process needs more rights than making the directory, so a child tries it.
        if (pid := os.fork()) == 0:
            try:
                self.join()
                os._exit(0)
            finally:
                os._exit(1)
        return os.waitpid(pid, 0)[1] == 0

    def join(self) -> None:
        """Move the calling process into it; what it forks from then on is born there."""
        self._write("cgroup.procs", "0")

    def holds(self, pid: int) -> bool:
        """Whether a process is in it, or in a cgroup that the sandbox made below it."""
        try:
            path = _unified(f"/proc/{pid}/cgroup")
        except OSError:
            return False
        # A cgroup's own name is unique, so the path from the root of the hierarchy need not be known.
        return path is not None and f"/{os.path.basename(self.path)}/" in f"{path}/"  # noqa: PTH119 - as above.

    def freeze(self, timeout: float) -> bool:
        """Freeze everything in it; False if that was not complete within ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        self._write("cgroup.freeze", "1")
        with open(f"{self.path}/cgroup.events", encoding="ascii") as events:  # noqa: PTH123 - as above.
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            while True:
                events.seek(0)
                if "frozen 1" in events.read():
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                poll.poll(left * 1000)

    def thaw(self) -> None:
        """Let everything in it go on."""
        self._write("cgroup.freeze", "0")

    def kill(self) -> None:
        """Kill everything in it at once, where the kernel can (5.14 and newer)."""
        try:
            self._write("cgroup.kill", "1")
        except OSError:
            pass  # The caller kills one by one what it finds alive.

    def remove(self) -> None:
        """Remove it, and what the sandbox made below it; the processes must have ended."""
        for folder, _, _ in os.walk(self.path, topdown=False):
            try:
                os.rmdir(folder)  # noqa: PTH106 - as above.
            except OSError:
                pass  # It is gone, or a process cannot be ended; an empty cgroup costs nothing.

    def _write(self, name: str, value: str) -> None:
        # Not open(): it would create a plain file where there is no such cgroup.
        descriptor = os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, value.encode())
        finally:
            os.close(descriptor)


def _child(parent: str, mark: str) -> str:
    return os.path.join(parent, f"preview-{mark}")  # noqa: PTH118 - as above.
