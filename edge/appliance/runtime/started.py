"""A command that was started, its time limit, and those who follow its output."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edge.appliance.runtime.input import Input
from edge.appliance.runtime.interface import RuntimeFault
from edge.appliance.runtime.link import Link
from edge.appliance.runtime.listener import Piece
from edge.appliance.runtime.output import Output


class TimeLimit:
    """Calls ``over`` after so many seconds in which it ran. None is no limit."""

    def __init__(self, seconds: float | None, over: Callable[[], None]) -> None:
        self._left = seconds
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def go(self) -> None:
        """Run, or go on running."""
        if self._left is not None and self._timer is None:
            self._timer = self._loop.call_later(self._left, self._over)

    def stop(self) -> None:
        """Stand still until `go`."""
        if self._timer is not None and self._left is not None:
            self._left = max(0.0, self._timer.when() - self._loop.time())
            self._timer.cancel()
            self._timer = None


class Started:
    """A command that was started; ``code`` is set, and the event with it, once it has ended.

    ``fault`` says why, where it did not end by itself or by a call of `Runtime.kill`.
    """

    def __init__(
        self, number: int, text: str, *, output: Output, stdin: Input | None, link: Link
    ) -> None:
        self.number = number
        self.text = text
        self.output = output
        self.stdin = stdin
        self.link = link
        self.pid = 0
        self.code: int | None = None
        self.fault: RuntimeFault | None = None
        self.limit: TimeLimit | None = None
        self.ended = asyncio.Event()

    def end(self, code: int, fault: RuntimeFault | None = None) -> None:
        """Note the end, after the last of what it wrote."""
        self.output.drain()
        self.code = code
        self.fault = self.fault or fault
        self.drop()
        self.output.finish()
        self.ended.set()

    def drop(self) -> None:
        """Let go of what only a running command needs."""
        if self.limit is not None:
            self.limit.stop()
        if self.stdin is not None:
            self.stdin.close()


class Stream:
    """One reader of a command's output, from the newest MiB of what it has written on. Close it."""

    def __init__(self, started: Started) -> None:
        self._started = started
        self._listener = started.output.listen()

    @property
    def pid(self) -> int:
        """The command's pid."""
        return self._started.pid

    async def take(self) -> Piece | None:
        """The next bytes of one stream (0 stdout, 1 stderr), at most 64 KiB; None once it has ended.

        For one task at a time. While too much is not taken, the command is not read and has to wait.
        """
        return await self._listener.take()

    def result(self) -> int:
        """The exit code, once `take` has given None.

        Raises the `RuntimeFault` that ended the command: `ExecTimeout`, `NoSuchSandbox` (destroyed),
        `SupervisorLost`.
        """
        if self._started.fault is not None:
            raise self._started.fault
        assert self._started.code is not None
        return self._started.code

    def close(self) -> None:
        """Listen no more; the command runs on. Calling it again is harmless."""
        self._started.output.leave(self._listener)
