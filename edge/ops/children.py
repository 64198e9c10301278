"""Child processes that speak in lines: JSON on standard output, anything on standard error."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence

from edge.wake.scope import Scope

LONGEST_LINE = 1 << 20
"""Bytes of one line of a child."""


ENDING = 1.0
"""Seconds a child that closed its output may take to end, and one that ended to be heard out."""


class ChildEnded(Exception):
    """The child ended before it said what was waited for."""

    def __init__(self, child: Child) -> None:
        super().__init__(child.name)
        self.child = child


class Child:
    """One child process in a session of its own, so that Ctrl-C reaches it only through us.

    ``on_error_line`` hears every line of its standard error. What it says on standard output is kept
    until `heard` asks for it; lines that are no JSON objects with an ``event`` are passed over.
    """

    def __init__(self, name: str, process: Process) -> None:
        self.name = name
        self._process = process
        self._said: asyncio.Queue[dict[str, object] | None] = asyncio.Queue()
        self.ended = asyncio.Event()

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        scope: Scope,
        on_error_line: Callable[[str], None],
    ) -> Child:
        """Start a child whose pipes are read in ``scope``. Raises OSError."""
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=dict(environment),
            start_new_session=True,
            limit=LONGEST_LINE,
        )
        child = cls(name, process)
        scope.spawn(child._listen(), name=f"{name} output")
        errors = scope.spawn(child._complaints(on_error_line), name=f"{name} errors")
        scope.spawn(child._end(errors), name=f"{name} end")
        return child

    @property
    def status(self) -> int | None:
        """The exit status; negative = ended by that signal; None = it lives."""
        return self._process.returncode

    def tell(self, message: Mapping[str, object]) -> None:
        """Write one JSON line to its standard input. A child that is gone does not hear it."""
        assert self._process.stdin is not None
        if self.status is None:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    async def heard(self, event: str) -> dict[str, object]:
        """What it said under that name. Raises `ChildEnded`."""
        while (said := await self._said.get()) is not None:
            if said.get("event") == event:
                return said
        try:
            async with asyncio.timeout(ENDING):
                await self.ended.wait()
        except TimeoutError:
            pass  # It lives, and will say nothing any more, which is as bad.
        raise ChildEnded(self)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still lives."""
        if self.status is None:
            self._process.send_signal(number)

    async def stop(self, patience: float) -> None:
        """Ask it to end, and kill it after ``patience`` seconds."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience):
                await self.ended.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.ended.wait()

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            try:
                said = json.loads(line)
            except ValueError:
                continue
            if isinstance(said, dict) and "event" in said:
                self._said.put_nowait(said)
        self._said.put_nowait(None)

    async def _complaints(self, on_line: Callable[[str], None]) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            on_line(line.decode(errors="replace").rstrip())

    async def _end(self, errors: asyncio.Task[None]) -> None:
        await self._process.wait()
        # A grandchild may hold the pipe open, so not without a bound.
        await asyncio.wait((errors,), timeout=ENDING)
        self.ended.set()
