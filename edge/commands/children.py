"""Child processes that speak in lines: JSON on standard output, anything on standard error."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import PIPE
from collections.abc import Callable, Mapping, Sequence
from typing import Self, cast

LONGEST_LINE = 1 << 20
"""Bytes of one line of a child; what is beyond is passed over."""

ENDING = 1.0
"""Seconds a child that closed its output may take to end, and one that ended to be heard out."""

_STDIN, _STDOUT, _STDERR = 0, 1, 2


class ChildEnded(Exception):
    """The child ended before it said what was waited for."""

    def __init__(self, child: Child) -> None:
        super().__init__(child.name)
        self.child = child


class Child(asyncio.SubprocessProtocol):
    """One child process in a session of its own, so that Ctrl-C reaches it only through us.

    ``on_error_line`` hears every line of its standard error. What it says on standard output is kept
    until `heard` asks for it; lines that are no JSON objects with an ``event`` are passed over.

    A protocol and not ``asyncio.subprocess.Process``, whose ``wait`` does not return as long as
    anybody, such as the child's own children, holds one of its pipes.
    """

    def __init__(self, name: str, on_error_line: Callable[[str], None]) -> None:
        self.name = name
        self.ended = asyncio.Event()
        self._transport: asyncio.SubprocessTransport
        self._said: asyncio.Queue[dict[str, object] | None] = asyncio.Queue()
        self._lines = {
            _STDOUT: _Lines(self._hear),
            _STDERR: _Lines(lambda line: on_error_line(line.decode(errors="replace").rstrip())),
        }
        self._exited = False

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        on_error_line: Callable[[str], None],
    ) -> Self:
        """Start a child. Raises OSError."""
        loop = asyncio.get_running_loop()
        _, child = await loop.subprocess_exec(
            lambda: cls(name, on_error_line),
            *command,
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=dict(environment),
            start_new_session=True,
        )
        return child

    @property
    def status(self) -> int | None:
        """The exit status; negative = ended by that signal; None = it lives."""
        return self._transport.get_returncode()

    def tell(self, message: Mapping[str, object]) -> None:
        """Write one JSON line to its standard input. A child that is gone does not hear it."""
        if self.status is None:
            pipe = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(_STDIN))
            pipe.write(json.dumps(message).encode() + b"\n")

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
            self._transport.send_signal(number)

    async def stop(self, patience: float) -> None:
        """Ask it to end, and kill it after ``patience`` seconds."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience):
                await self.ended.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.ended.wait()

    # --- asyncio.SubprocessProtocol -------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is started."""
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """It said something."""
        self._lines[fd].feed(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """It, and whoever else had the pipe, closed it."""
        if fd in self._lines:
            self._lines.pop(fd).end()
        if fd == _STDOUT:
            self._said.put_nowait(None)
        if self._exited and not self._lines:
            self._end()

    def process_exited(self) -> None:
        """It is gone; what it said last may still be in the pipes."""
        self._exited = True
        if self._lines:
            asyncio.get_running_loop().call_later(ENDING, self._end)
        else:
            self._end()

    def _end(self) -> None:
        if not self.ended.is_set():
            self.ended.set()
            self._said.put_nowait(None)
            self._transport.close()

    def _hear(self, line: bytes) -> None:
        try:
            said = json.loads(line)
        except ValueError:
            return
        if isinstance(said, dict) and "event" in said:
            self._said.put_nowait(said)


class _Lines:
    """Cuts a stream into lines."""

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """More of the stream."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:LONGEST_LINE]
        for line in lines:
            self._on_line(line[:LONGEST_LINE])

    def end(self) -> None:
        """The stream is over; its last line may lack its newline."""
        if self._rest:
            self._on_line(self._rest)
