"""The runtime itself: all sandboxes of this machine, as the control plane sees them."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.interface import (
    Command,
    ExecResult,
    Logs,
    NoSuchSandbox,
    PathEscape,
    ProcessInfo,
    RuntimeFault,
    Usage,
    UsageUnknown,
)
from edge.appliance.runtime.mounts import Mount
from edge.appliance.runtime.paths import WORKSPACE
from edge.appliance.runtime.ports import Ports
from edge.appliance.runtime.sandbox import Sandbox
from edge.appliance.runtime.staged import clear
from edge.appliance.runtime.started import Stream

SEARCHES = 2
"""Searches that run at once."""
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

T = TypeVar("T")


class Runtime:
    """Sandboxes below ``root``: ``root/<id>/workspace`` is the work tree, ``/workspace`` its name outside.

    Used from one running loop. Every method that takes a sandbox's id raises `NoSuchSandbox` for one
    that was not created here or was destroyed. Calls that freeze, thaw and destroy one sandbox are the
    caller's to put in order; each is safe to repeat. ``cgroups=False`` freezes by signals everywhere.
    ``isolated``: each sandbox has a network of its own, which `why_not` says can be had.
    """

    def __init__(self, root: Path, *, cgroups: bool = True, isolated: bool = False) -> None:
        self._root = root.absolute()
        self._cgroups = cgroups
        self.isolated = isolated
        self._ports = Ports(time.monotonic) if isolated else None
        self._sandboxes: dict[str, Sandbox] = {}
        self._searches = asyncio.Semaphore(SEARCHES)

    async def start(self, kept: Iterable[str] = ()) -> None:
        """Make the data directory, and take over the files of these sandboxes of an earlier run.

        Their processes are gone, and so is everything else in there: it belongs to nobody.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for sandbox_id in kept:
            folder = self._root / sandbox_id
            # Somebody may have removed it meanwhile.
            (folder / "workspace").mkdir(mode=0o700, parents=True, exist_ok=True)
            await asyncio.to_thread(clear, folder / "aside")
            self._sandboxes[sandbox_id] = Sandbox(
                sandbox_id, folder, envs={}, cwd=WORKSPACE, cgroups=self._cgroups
            )
        for left in list(self._root.iterdir()):
            if left.name not in self._sandboxes:
                await asyncio.to_thread(clear, left)

    async def close(self) -> None:
        """Kill every process of every sandbox; their directories stay."""
        await asyncio.gather(*(sandbox.end() for sandbox in self._sandboxes.values()))
        self._sandboxes.clear()

    async def create(
        self,
        sandbox_id: str,
        *,
        envs: Mapping[str, str],
        cwd: str | None,
        mounts: Sequence[Mount] = (),
        fill: Callable[[Path], Awaitable[object]] | None = None,
    ) -> None:
        """Make the directory of a sandbox, what ``fill`` puts in it, mounts, and ``cwd``; no process starts yet.

        ``envs`` and ``cwd`` are what its commands start with. Raises `PathEscape` for a ``cwd`` outside,
        `RuntimeFault` for an id that is no file name or is taken, what ``fill`` raises, and what `mount` does.
        """
        if _ID.fullmatch(sandbox_id) is None:
            raise RuntimeFault(f"{sandbox_id!r} cannot be the id of a sandbox.")
        folder = self._root / sandbox_id
        home = cwd or WORKSPACE
        sandbox = Sandbox(
            sandbox_id,
            folder,
            envs=envs,
            cwd=home,
            cgroups=self._cgroups,
            ports=self._ports,
        )
        tree = sandbox.tree
        try:
            tree.root.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise RuntimeFault(f"There is a sandbox {sandbox_id} already.") from None
        except OSError as error:
            raise RuntimeFault(
                f"The sandbox's directory cannot be made: {error.strerror}."
            ) from None
        try:
            if fill is not None:
                await fill(tree.root)
            for mount in mounts:
                await asyncio.to_thread(tree.mount, mount)
            _make_home(tree, home, filled=fill is not None)
        except BaseException:
            await asyncio.to_thread(clear, folder)
            raise
        self._sandboxes[sandbox_id] = sandbox

    async def warm(self, sandbox_id: str, cooled: Callable[[], None]) -> None:
        """Start its supervisor ahead of the first command, and wait until it answers.

        ``cooled`` is called once when that supervisor is gone, however that came about. Raises
        `SupervisorLost`, OSError where no process can be started.
        """
        await self._sandbox(sandbox_id).warm(cooled)

    async def destroy(self, sandbox_id: str) -> None:
        """Kill everything in it, frozen or not, and remove its directory."""
        sandbox = self._sandbox(sandbox_id)
        await sandbox.end()
        await asyncio.to_thread(clear, sandbox.folder)
        self._sandboxes.pop(sandbox_id, None)

    async def freeze(self, sandbox_id: str) -> int:
        """Stop all of its processes, memory and all; gives bytes of memory and files (an estimate).

        Raises `FreezeFailed`, and then nothing is frozen. Open connections stay open, and the kernel
        goes on accepting new ones for a frozen listener.
        """
        return await self._sandbox(sandbox_id).freeze()

    async def thaw(self, sandbox_id: str) -> None:
        """Let its processes go on where they stood; those it had stopped itself stay stopped."""
        await self._sandbox(sandbox_id).thaw()

    async def exec(self, sandbox_id: str, command: Command) -> ExecResult:
        """Run a command to its end. Of each stream the first 8 MiB are kept.

        It has ended when its own process has: what that left in the background lives on, and what it
        writes later is in nobody's result. Raises `ExecTimeout`, `NotExecutable`, `NoSuchDirectory`,
        `PathEscape`, `SandboxFrozen`, `TooManyCommands`. If the caller is cancelled, the command is killed.
        """
        return await self._sandbox(sandbox_id).exec(command)

    async def spawn(self, sandbox_id: str, command: Command) -> int:
        """Start a command in the background; its pid. Raises what `exec` raises, but no `ExecTimeout`."""
        return await self._sandbox(sandbox_id).spawn(command)

    async def stream(self, sandbox_id: str, command: Command) -> Stream:
        """Start a command as `spawn` does, and follow its output. Its time limit kills all it started.

        It runs on when the stream is closed, and its limit with it.
        """
        return await self._sandbox(sandbox_id).stream(command)

    def attach(self, sandbox_id: str, pid: int) -> Stream:
        """Follow a listed command, from what is kept of its output on. Raises `NoSuchProcess`."""
        return self._sandbox(sandbox_id).attach(pid)

    def write_stdin(self, sandbox_id: str, pid: int, data: bytes) -> None:
        """Send to the standard input of a listed command, all of it or nothing; it never waits.

        Raises `NoSuchProcess`, `InputFull`, `InputClosed` (also for commands of `exec`).
        """
        self._sandbox(sandbox_id).write_stdin(pid, data)

    def processes(self, sandbox_id: str) -> list[ProcessInfo]:
        """The commands that run, and the newest 32 background ones that ended, oldest first."""
        return self._sandbox(sandbox_id).processes()

    def logs(self, sandbox_id: str, pid: int) -> Logs:
        """The newest MiB of each stream of a listed command. Raises `NoSuchProcess` for other pids."""
        return self._sandbox(sandbox_id).logs(pid)

    async def kill(self, sandbox_id: str, pid: int) -> bool:
        """Kill a listed command and all it started, frozen or not; False if there was nothing to kill."""
        return await self._sandbox(sandbox_id).kill(pid)

    async def files(self, sandbox_id: str, call: Callable[[WorkTree], T]) -> T:
        """What ``call`` does with the work tree, in a thread. Raises what it raises."""
        sandbox = self._sandbox(sandbox_id)
        async with sandbox.stillness.work():
            return await asyncio.to_thread(call, sandbox.tree)

    async def search(self, sandbox_id: str, call: Callable[[WorkTree], T]) -> T:
        """The same for calls that may take long: few at a time, so that threads are left for others."""
        sandbox = self._sandbox(sandbox_id)
        async with self._searches, sandbox.stillness.work():
            return await asyncio.to_thread(call, sandbox.tree)

    @asynccontextmanager
    async def still(self, sandbox_id: str) -> AsyncIterator[WorkTree]:
        """Within, nothing changes in the work tree: processes are frozen, and calls for files or commands wait.

        They do not notice more than that it took a while. Raises `FreezeFailed`; in what order with
        `freeze`, `thaw` and `destroy` is the caller's matter.
        """
        sandbox = self._sandbox(sandbox_id)
        async with sandbox.still():
            yield sandbox.tree

    def envs(self, sandbox_id: str) -> dict[str, str]:
        """What its commands start with."""
        return dict(self._sandbox(sandbox_id).envs)

    def know(self, sandbox_id: str, mounts: Iterable[Mount]) -> None:
        """These are mounted since an earlier run."""
        self._sandbox(sandbox_id).tree.mounts.know(*mounts)

    async def show(self, sandbox_id: str) -> None:
        """Let the processes that run see what has been mounted read-only; those that start do by themselves.

        Raises `VolumeLost`, `SupervisorLost`.
        """
        await self._sandbox(sandbox_id).show()

    async def memory_bytes(self, sandbox_id: str) -> int:
        """Resident bytes of all of its processes; shared pages count once for each."""
        return await self._sandbox(sandbox_id).memory()

    def publish(self, sandbox_id: str, port: int) -> int:
        """The port on 127.0.0.1 that leads to this port of an isolated sandbox, closed whenever that is.

        The same one as long as there is the sandbox. Raises OSError where there is no free port.
        """
        doors = self._sandbox(sandbox_id).doors
        assert doors is not None
        return doors.publish(port)

    async def usage(self, sandbox_id: str) -> Usage:
        """What its processes use, measured over a tenth of a second; a frozen one stays so.

        Raises `UsageUnknown` where the operating system does not tell.
        """
        if sys.platform != "linux":
            raise UsageUnknown("What processes use can be told on Linux only.")
        return await self._sandbox(sandbox_id).usage()

    def _sandbox(self, sandbox_id: str) -> Sandbox:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None:
            raise NoSuchSandbox(f"There is no sandbox {sandbox_id}.")
        return sandbox


def _make_home(tree: WorkTree, home: str, *, filled: bool) -> None:
    """The directory that commands start in. Raises `PathEscape`, and what else keeps it from being made.

    In a tree that was filled with files from elsewhere it may be missing: it was gone there, too, and commands
    will say so.
    """
    try:
        tree.make_directory(home)
    except PathEscape:
        raise
    except RuntimeFault:
        if not filled:
            raise
