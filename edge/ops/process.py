"""What every process of ours shares: its loop, its signals, and how it talks to the one that started it."""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

try:
    import uvloop
except ImportError:  # Other interpreters than CPython: slower, and all there is.
    new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
else:
    new_loop = uvloop.new_event_loop


class StartError(Exception):
    """It cannot start, and the user can mend it. The message is one line: what, why, what to do."""


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a process's main coroutine on the production loop; its result is the exit status."""
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(main)


def say(event: str, **fields: object) -> None:
    """Tell the parent process (or a person) something, as one JSON line on standard output."""
    print(json.dumps({"event": event, **fields}), flush=True)  # noqa: T201  (this is the one place)


def cannot_listen(setting: str, host: str, port: int, error: OSError) -> StartError:
    """The sentence for an address that cannot be listened on. ``setting`` names who chose it."""
    match error.errno:
        case errno.EADDRINUSE:
            why = "is in use; stop what listens there, or choose another port (0 takes a free one)"
        case errno.EACCES:
            why = "needs more rights than this user has; choose a port above 1023"
        case errno.EADDRNOTAVAIL:
            why = "is not an address of this machine; choose one that is, such as 127.0.0.1"
        case _:
            why = f"cannot be listened on: {error.strerror or error}; choose another address"
    return StartError(f"{setting}: {host}:{port} {why}")


class Stop:
    """The wish to stop: SIGTERM, SIGINT, or the end of standard input for a child tied to its parent.

    The first signal sets `asked`. A second one calls ``insisted``; without it, the signals have their
    default effect from the first one on, so that a second one ends the process at once. ``orphaned``
    tells that standard input has ended.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, insisted: Callable[[], None] | None = None) -> None:
        self.asked = asyncio.Event()
        self.orphaned = False
        self._insisted = insisted
        self._starting: asyncio.Timeout | None = None
        self._loop = asyncio.get_running_loop()
        for number in self.SIGNALS:
            self._loop.add_signal_handler(number, self._signalled)

    def on_hangup(self, act: Callable[[], None]) -> None:
        """Call ``act`` at each SIGHUP, instead of ending."""
        self._loop.add_signal_handler(signal.SIGHUP, act)

    async def tie_to_stdin(self) -> None:
        """From now on the end of standard input counts as a signal: the parent process is gone."""
        await self._loop.connect_read_pipe(lambda: _UntilEnd(self._left_alone), sys.stdin)

    async def permits(self, start: Awaitable[None]) -> bool:
        """Wait for a start to be done; False when told to stop before, and then it was cancelled."""
        try:
            async with asyncio.timeout(None) as self._starting:
                if self.asked.is_set():
                    self._starting.reschedule(self._loop.time())
                await start
        except TimeoutError:
            if not self.asked.is_set():
                raise
            return False
        finally:
            self._starting = None
        return True

    def _ask(self) -> None:
        self.asked.set()
        if self._starting is not None:
            self._starting.reschedule(self._loop.time())

    def _left_alone(self) -> None:
        self.orphaned = True
        self._ask()

    def _signalled(self) -> None:
        if self.asked.is_set() and self._insisted is not None:
            self._insisted()
        self._ask()
        if self._insisted is None:
            for number in self.SIGNALS:
                self._loop.remove_signal_handler(number)
                signal.signal(number, signal.SIG_DFL)


class _UntilEnd(asyncio.Protocol):
    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def connection_lost(self, exc: Exception | None) -> None:
        self._act()
