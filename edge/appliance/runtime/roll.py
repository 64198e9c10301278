"""The commands of one sandbox: those that run, and those that have ended and keep their logs."""

from __future__ import annotations

import itertools

from edge.appliance.runtime.input import Input
from edge.appliance.runtime.interface import ProcessInfo, RuntimeFault, TooManyCommands
from edge.appliance.runtime.link import Link
from edge.appliance.runtime.output import Output
from edge.appliance.runtime.started import Started

KEPT_ENDED = 32
"""How many ended background commands keep their logs."""

MAX_COMMANDS = 128
"""How many commands may run, or have left somebody who holds their output open."""


class Roll:
    """All of them by number, oldest first. Numbers never come again; pids do."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._started: dict[int, Started] = {}
        self._open: list[Started] = []

    def require_room(self) -> None:
        """For one more. Raises `TooManyCommands`."""
        self._open = [one for one in self._open if self._holds(one)]
        if len(self._open) >= MAX_COMMANDS:
            raise TooManyCommands(
                f"{MAX_COMMANDS} commands run or have left processes in the background; end some."
            )

    def add(self, text: str, *, output: Output, stdin: Input | None, link: Link) -> Started:
        """One that is about to be started."""
        started = Started(next(self._numbers), text, output=output, stdin=stdin, link=link)
        self._started[started.number] = started
        self._open.append(started)
        return started

    def remove(self, started: Started) -> None:
        """Nobody will ask for it any more."""
        self._started.pop(started.number, None)

    def thin(self) -> None:
        """Forget the oldest of those that have ended."""
        ended = [number for number, one in self._started.items() if one.code is not None]
        for number in ended[:-KEPT_ENDED]:
            del self._started[number]

    def ended(self, number: int, code: int) -> None:
        """One has ended; it may be forgotten already."""
        if (started := self._started.get(number)) is not None:
            started.end(code)

    def lost(self, code: int, fault: RuntimeFault) -> None:
        """All that ran have ended in this way."""
        for started in self._started.values():
            if started.code is None:
                started.end(code, fault)

    def by_pid(self, pid: int) -> Started | None:
        """The newest one of that pid: that is the one that is meant."""
        # 0 is no pid: it stands for one that is just being started.
        every = reversed(self._started.values())
        return next((one for one in every if one.pid == pid != 0), None)

    def shown(self) -> list[ProcessInfo]:
        """Those that have a pid, one for each."""
        newest = {one.pid: one for one in self._started.values() if one.pid}
        return [
            ProcessInfo(one.pid, one.text, one.code is None, one.code) for one in newest.values()
        ]

    def clocks(self, *, run: bool) -> None:
        """Let their time limits run, or stand still."""
        for started in self._started.values():
            if started.limit is not None and started.code is None:
                (started.limit.go if run else started.limit.stop)()

    def close(self) -> None:
        """Read nothing of theirs any more."""
        for started in self._open:
            started.output.close()

    def _holds(self, started: Started) -> bool:
        return started.output.reading or (started.code is None and started.number in self._started)
