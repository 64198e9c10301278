"""One sandbox: what its commands start with, those that run, and its supervisor while it needs one."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

from edge.appliance.runtime.doors import Doors
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.interface import (
    Command,
    ExecResult,
    ExecTimeout,
    FileNotFound,
    InputClosed,
    Logs,
    NoSuchDirectory,
    NoSuchProcess,
    NoSuchSandbox,
    NotExecutable,
    ProcessInfo,
    SandboxFrozen,
    SupervisorLost,
    Usage,
)
from edge.appliance.runtime.launch import argv_of, environment, open_input, open_output
from edge.appliance.runtime.link import Link
from edge.appliance.runtime.namespace import traffic
from edge.appliance.runtime.ports import Ports
from edge.appliance.runtime.roll import Roll
from edge.appliance.runtime.started import Started, Stream, TimeLimit
from edge.appliance.runtime.stillness import Stillness
from edge.appliance.runtime.usage import measured

MEASURED = 0.1
"""Seconds over which the use of processors is measured."""

_KILLED = 137
_REAPED = 1.0
_FROZEN = "The sandbox is frozen; nothing can be started in it."
_DESTROYED = "The sandbox was destroyed."
_LOST = "The sandbox's supervisor died, and the command with it."
_LATE = "The command did not end within {:g} seconds and was killed."


class Sandbox:
    """A directory and its processes. The supervisor is started by the first command.

    With ``ports`` to be reached by, it has a network of its own.
    """

    def __init__(
        self,
        sandbox_id: str,
        folder: Path,
        *,
        envs: Mapping[str, str],
        cwd: str,
        cgroups: bool,
        ports: Ports | None = None,
    ) -> None:
        self.folder = folder
        self.tree = WorkTree(folder / "workspace")
        self.envs = dict(envs)
        self.stillness = Stillness()
        self._id = sandbox_id
        self._cgroups = cgroups
        self._cwd = cwd
        self._frozen = False
        self._closed = False
        self._roll = Roll()
        self._link: Link | None = None
        self._links: list[Link] = []
        self._cooled: Callable[[], None] | None = None
        self.doors = Doors(self._dial, ports) if ports is not None else None

    async def exec(self, command: Command) -> ExecResult:
        """See `Runtime.exec`."""
        await self.stillness.passed()
        started, answer = self._start(command, waited_for=True)
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
            text = _LATE.format(command.timeout_secs)
            raise ExecTimeout(text, stdout=stdout, stderr=stderr) from None
        except asyncio.CancelledError:
            # Nobody waits for its result any more, and nobody else could end it.
            self._end(started)
            raise
        finally:
            self._roll.remove(started)
            started.output.heads = None
        assert started.code is not None
        stdout, stderr = (head.value() for head in heads)
        truncated = any(head.truncated for head in heads)
        return ExecResult(started.code, stdout, stderr, started.pid, truncated)

    async def spawn(self, command: Command) -> int:
        """See `Runtime.spawn`."""
        await self.stillness.passed()
        started, answer = self._start(command, waited_for=False)
        await self._begun(started, answer)
        return started.pid

    async def stream(self, command: Command) -> Stream:
        """See `Runtime.stream`."""
        await self.stillness.passed()
        started, answer = self._start(command, waited_for=False)
        # Before we know that it runs: a fast command is done by then, and all but the newest of it forgotten.
        stream = Stream(started)
        try:
            await self._begun(started, answer)
        except BaseException:
            stream.close()
            raise
        if started.code is None:
            started.limit = TimeLimit(
                command.timeout_secs, lambda: self._late(started, command.timeout_secs or 0)
            )
            if not self._frozen:
                started.limit.go()
        return stream

    def _late(self, started: Started, seconds: float) -> None:
        started.fault = ExecTimeout(_LATE.format(seconds))
        self._end(started)

    def attach(self, pid: int) -> Stream:
        """See `Runtime.attach`."""
        return Stream(self._known(pid))

    def write_stdin(self, pid: int, data: bytes) -> None:
        """See `Runtime.write_stdin`."""
        stdin = self._known(pid).stdin
        if stdin is None:
            raise InputClosed("The process was started without input.")
        stdin.write(data)

    async def _begun(self, started: Started, answer: asyncio.Future[object]) -> None:
        """Wait until a command runs that nobody has to wait for."""
        try:
            started.pid = cast(int, await answer)
        except BaseException as error:
            self._roll.remove(started)
            started.drop()
            if isinstance(error, asyncio.CancelledError):
                self._end(started)  # Nobody will ever know its pid.
            raise
        self._roll.thin()

    def _start(
        self, command: Command, *, waited_for: bool
    ) -> tuple[Started, asyncio.Future[object]]:
        """Ask for a command. Only one that nobody waits for has input, because who waits cannot send it."""
        if self._closed:
            raise NoSuchSandbox(f"There is no sandbox {self._id}.")
        if self._frozen:
            raise SandboxFrozen(_FROZEN)
        self._roll.require_room()
        argv, text = argv_of(command)
        env = environment(self._id, self.tree.root, self.envs | dict(command.envs))
        with ExitStack() as undo:
            cwd, seen = self._open_cwd(command)
            undo.callback(os.close, cwd)
            try:
                stdin, reading = open_input(undo, waited_for=waited_for)
                output = open_output(undo, head=waited_for)
                link = self._linked()
            except OSError as error:
                text = f"The command cannot be started: {error.strerror}."
                raise NotExecutable(text) from None
            undo.pop_all()
        started = self._roll.add(text, output=output, stdin=stdin, link=link)
        descriptors = (cwd, reading, *output.writing)
        said = {"argv": argv, "env": env, "number": started.number, "cwd": seen}
        said["shown"] = self.tree.mounts.shown
        return started, link.tell("spawn", descriptors, **said)

    def _open_cwd(self, command: Command) -> tuple[int, str | None]:
        cwd = self._cwd if command.cwd is None else command.cwd
        try:
            return self.tree.entered(cwd)
        except FileNotFound as error:
            raise NoSuchDirectory(str(error)) from None

    def _linked(self) -> Link:
        if self._link is None:
            # A mark of its own for each supervisor: the sweep after one must not hit the next.
            mark = f"{self._id}.{secrets.token_hex(8)}"
            isolated = self.doors is not None
            self._link = Link(
                mark,
                cgroups=self._cgroups,
                isolated=isolated,
                exited=self._roll.ended,
                lost=self._lost,
            )
            self._links = [one for one in self._links if not one.over] + [self._link]
            if isolated:
                self._follow(self._link)
        return self._link

    async def show(self) -> None:
        """See `Runtime.show`."""
        if self._link is not None:
            await self._link.tell("show", shown=self.tree.mounts.shown)

    def _follow(self, link: Link) -> None:
        def answered(answer: asyncio.Future[object]) -> None:
            if answer.cancelled() or answer.exception() is not None:
                return  # It is gone already.
            table = socket.socket(fileno=cast(int, answer.result()))
            if self.doors is not None and link is self._link:
                self.doors.follow(table)
            else:
                table.close()

        link.tell("table").add_done_callback(answered)

    async def _dial(self, family: int) -> socket.socket:
        if self._link is None:
            raise SupervisorLost(_LOST)
        return socket.socket(fileno=cast(int, await self._link.tell("socket", family=family)))

    def _lost(self) -> None:
        self._link = None
        if self.doors is not None:
            self.doors.lose()
        fault = NoSuchSandbox(_DESTROYED) if self._closed else SupervisorLost(_LOST)
        self._roll.lost(_KILLED, fault)
        cooled, self._cooled = self._cooled, None
        if cooled is not None:
            cooled()

    def _end(self, started: Started) -> asyncio.Future[object]:
        return started.link.tell("kill", pid=started.pid, number=started.number)

    def processes(self) -> list[ProcessInfo]:
        """See `Runtime.processes`."""
        return self._roll.shown()

    def _known(self, pid: int) -> Started:
        started = self._roll.by_pid(pid)
        if started is None:
            raise NoSuchProcess(f"There is no process {pid} in sandbox {self._id}.")
        return started

    def logs(self, pid: int) -> Logs:
        """See `Runtime.logs`."""
        started = self._known(pid)
        return Logs(*started.output.logs(), started.code)

    async def kill(self, pid: int) -> bool:
        """See `Runtime.kill`."""
        started = self._roll.by_pid(pid)
        if started is None or started.link is not self._link:
            return False
        killed = bool(await self._end(started))
        if killed and started.code is None:
            try:
                # It is dead; that it was reaped is told on its own, and lists should show it by now.
                async with asyncio.timeout(_REAPED):
                    await started.ended.wait()
            except TimeoutError:
                pass
        return killed

    async def freeze(self) -> int:
        """See `Runtime.freeze`."""
        self._frozen = True
        self._roll.clocks(run=False)
        try:
            if self._link is not None:
                await self._link.tell("freeze")
            memory = await self.memory()
        except Exception:
            self._frozen = False
            self._roll.clocks(run=True)
            raise
        if self.doors is not None:
            self.doors.freeze()
        return memory + await asyncio.to_thread(self.tree.size)

    async def thaw(self) -> None:
        """See `Runtime.thaw`."""
        if self._link is not None:
            await self._link.tell("thaw")
        self._frozen = False
        self._roll.clocks(run=True)
        if self.doors is not None:
            self.doors.thaw()

    @asynccontextmanager
    async def still(self) -> AsyncIterator[None]:
        """See `Runtime.still`."""
        async with self.stillness.still():
            link = None if self._frozen else self._link
            if link is None:
                yield
                return
            self._roll.clocks(run=False)
            try:
                await link.tell("freeze")
                try:
                    yield
                finally:
                    await self._go_on(link)
            finally:
                self._roll.clocks(run=True)

    async def _go_on(self, link: Link) -> None:
        try:
            await link.tell("thaw")
        except SupervisorLost:
            pass  # With it everything has ended; whoever asks next is told.

    async def warm(self, cooled: Callable[[], None]) -> None:
        """See `Runtime.warm`."""
        if self._closed:
            raise NoSuchSandbox(f"There is no sandbox {self._id}.")
        self._cooled = cooled
        # Any question does: it is answered once the supervisor is up.
        await self._linked().tell("memory")

    async def memory(self) -> int:
        """See `Runtime.memory_bytes`."""
        return 0 if self._link is None else cast(int, await self._link.tell("memory"))

    async def usage(self) -> Usage:
        """See `Runtime.usage`."""
        percent, network = 0.0, None
        if (link := self._link) is not None:
            clock = asyncio.get_running_loop().time
            before, began = cast(float, await link.tell("cpu")), clock()
            await asyncio.sleep(MEASURED)
            after, ended = cast(float, await link.tell("cpu")), clock()
            percent = 100 * max(0.0, after - before) / (ended - began)
            network = traffic(link.pid) if self.doors is not None else None
        memory, disk = await self.memory(), await asyncio.to_thread(self.tree.size)
        return measured(self.folder, memory=memory, disk=disk, percent=percent, network=network)

    async def end(self) -> None:
        """Kill everything, for good; nothing starts in it from now on. Calling it again is harmless."""
        self._closed = True
        for link in tuple(self._links):
            await link.end()
        if self.doors is not None:
            await self.doors.close()
        self._roll.close()
