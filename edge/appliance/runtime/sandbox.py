"""One sandbox: what its commands start with, those that run, and its supervisor while it needs one."""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.interface import (
    Command,
    ExecResult,
    ExecTimeout,
    FileNotFound,
    Logs,
    NoSuchDirectory,
    NoSuchSandbox,
    NotExecutable,
    ProcessInfo,
    SandboxFrozen,
)
from edge.appliance.runtime.link import Link
from edge.appliance.runtime.output import Output

KEPT_ENDED = 32
"""How many ended background commands keep their logs."""

_SHELLS = ("/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash", "/bin/sh")
_KILLED = 137
_FROZEN = "The sandbox is frozen; nothing can be started in it."


class Started:
    """A command that was started; ``code`` is set, and the event with it, once it has ended."""

    def __init__(self, number: int, text: str, output: Output, link: Link) -> None:
        self.number = number
        self.text = text
        self.output = output
        self.link = link
        self.pid = 0
        self.code: int | None = None
        self.ended = asyncio.Event()

    def end(self, code: int) -> None:
        """Note the end, after the last of what it wrote."""
        self.output.drain()
        self.code = code
        self.ended.set()


class Sandbox:
    """A directory and its processes. The supervisor is started by the first command."""

    def __init__(
        self, sandbox_id: str, folder: Path, *, envs: Mapping[str, str], cwd: str, cgroups: bool
    ) -> None:
        self.folder = folder
        self.tree = WorkTree(folder / "workspace")
        self._id = sandbox_id
        self._cgroups = cgroups
        self._envs = dict(envs)
        self._cwd = cwd
        self._frozen = False
        self._closed = False
        self._numbers = itertools.count(1)
        self._started: dict[int, Started] = {}
        self._outputs: list[Output] = []
        self._link: Link | None = None
        self._links: list[Link] = []

    async def exec(self, command: Command) -> ExecResult:
        """See `Runtime.exec`."""
        started, answer = self._start(command, head=True)
        heads = started.output.heads
        assert heads is not None
        try:
            async with asyncio.timeout(command.timeout_secs):
                started.pid = cast(int, await answer)
                await started.ended.wait()
        except TimeoutError:
            await self._end(started)
            started.output.drain()
            stdout, stderr = (head.value() for head in heads)
            text = (
                f"The command did not end within {command.timeout_secs:g} seconds and was killed."
            )
            raise ExecTimeout(text, stdout=stdout, stderr=stderr) from None
        except asyncio.CancelledError:
            self._end(
                started
            )  # Nobody waits for its result any more, and nobody else could end it.
            raise
        finally:
            self._started.pop(started.number, None)
            started.output.heads = None
        assert started.code is not None
        stdout, stderr = (head.value() for head in heads)
        truncated = any(head.truncated for head in heads)
        return ExecResult(started.code, stdout, stderr, started.pid, truncated)

    async def spawn(self, command: Command) -> int:
        """See `Runtime.spawn`."""
        started, answer = self._start(command, head=False)
        try:
            started.pid = cast(int, await answer)
        except BaseException as error:
            self._started.pop(started.number, None)
            if isinstance(error, asyncio.CancelledError):
                self._end(started)  # Nobody will ever know its pid.
            raise
        ended = [number for number, one in self._started.items() if one.code is not None]
        for number in ended[:-KEPT_ENDED]:
            del self._started[number]
        return started.pid

    def _start(self, command: Command, *, head: bool) -> tuple[Started, asyncio.Future[object]]:
        if self._closed:
            raise NoSuchSandbox(f"There is no sandbox {self._id}.")
        if self._frozen:
            raise SandboxFrozen(_FROZEN)
        argv, text = _argv(command)
        env = self._environment(command)
        cwd = self._open_cwd(command)
        try:
            output = Output(head=head)
            link = self._linked()
        except OSError as error:
            os.close(cwd)
            raise NotExecutable(f"The command cannot be started: {error.strerror}.") from None
        number = next(self._numbers)
        started = self._started[number] = Started(number, text, output, link)
        self._outputs = [one for one in self._outputs if one.reading] + [output]
        descriptors = (cwd, *output.writing)
        return started, link.tell("spawn", descriptors, argv=argv, env=env, number=number)

    def _environment(self, command: Command) -> dict[str, str]:
        env = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": str(self.tree.root),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            **self._envs,
            **command.envs,
            "PREVIEW_SANDBOX_ID": self._id,
        }
        for name, value in env.items():
            if not name or "=" in name or "\0" in name + value:
                raise NotExecutable(f"{name!r} cannot be an environment variable of that value.")
        return env

    def _open_cwd(self, command: Command) -> int:
        cwd = self._cwd if command.cwd is None else command.cwd
        try:
            return self.tree.open_directory(cwd)
        except FileNotFound as error:
            raise NoSuchDirectory(str(error)) from None

    def _linked(self) -> Link:
        if self._link is None:
            # A mark of its own for each supervisor: the sweep after one must not hit the next.
            mark = f"{self._id}.{secrets.token_hex(8)}"
            self._link = Link(mark, cgroups=self._cgroups, exited=self._exited, lost=self._lost)
            self._links = [one for one in self._links if not one.over] + [self._link]
        return self._link

    def _exited(self, number: int, code: int) -> None:
        if (started := self._started.get(number)) is not None:
            started.end(code)

    def _lost(self) -> None:
        self._link = None
        for started in self._started.values():
            if started.code is None:
                started.end(_KILLED)

    def _end(self, started: Started) -> asyncio.Future[object]:
        return started.link.tell("kill", pid=started.pid, number=started.number)

    def processes(self) -> list[ProcessInfo]:
        """See `Runtime.processes`."""
        return [
            ProcessInfo(one.pid, one.text, one.code is None, one.code)
            for one in self._by_pid().values()
        ]

    def _by_pid(self) -> dict[int, Started]:
        # Pids come round again: the newest command of a pid is the one that is meant.
        return {one.pid: one for one in self._started.values() if one.pid}

    def logs(self, pid: int) -> Logs | None:
        """See `Runtime.logs`; None for a pid that is not listed."""
        started = self._by_pid().get(pid)
        return None if started is None else Logs(*started.output.logs(), started.code)

    async def kill(self, pid: int) -> bool:
        """See `Runtime.kill`."""
        started = self._by_pid().get(pid)
        if started is None or started.link is not self._link:
            return False
        return bool(await self._end(started))

    async def freeze(self) -> int:
        """See `Runtime.freeze`."""
        self._frozen = True
        try:
            if self._link is not None:
                await self._link.tell("freeze")
            memory = await self.memory()
        except Exception:
            self._frozen = False
            raise
        return memory + await asyncio.to_thread(self.tree.size)

    async def thaw(self) -> None:
        """See `Runtime.thaw`."""
        if self._link is not None:
            await self._link.tell("thaw")
        self._frozen = False

    async def memory(self) -> int:
        """See `Runtime.memory_bytes`."""
        return 0 if self._link is None else cast(int, await self._link.tell("memory"))

    async def end(self) -> None:
        """Kill everything, for good; nothing starts in it from now on. Calling it again is harmless."""
        self._closed = True
        for link in tuple(self._links):
            await link.end()
        for output in self._outputs:
            output.close()


def _argv(command: Command) -> tuple[list[str], str]:
    """What to execute, and how a list of processes shows it."""
    if (command.argv is None) == (command.shell is None):
        raise NotExecutable("A command is either a list of arguments or a line for the shell.")
    if command.shell is not None:
        shell = next((path for path in _SHELLS if os.access(path, os.X_OK)), _SHELLS[-1])
        argv, text = [shell, "-c", command.shell], command.shell
    else:
        argv = list(command.argv or ())
        text = shlex.join(argv)
    if not argv or not argv[0]:
        raise NotExecutable("The command is empty.")
    if any("\0" in argument for argument in argv):
        raise NotExecutable("A command cannot hold a NUL character.")
    return argv, text
