"""The commands of a sandbox: which are there, which is meant by a pid, and how many may be."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from families import until

from edge.appliance.runtime import SupervisorLost, TooManyCommands
from edge.appliance.runtime import roll as module
from edge.appliance.runtime.output import Output
from edge.appliance.runtime.roll import KEPT_ENDED, Roll
from edge.appliance.runtime.started import Started

LINK: Any = SimpleNamespace()
"""Nothing here speaks to a supervisor."""


@pytest.fixture
async def roll() -> AsyncIterator[Roll]:
    """An empty one."""
    made = Roll()
    yield made
    made.close()


def _add(roll: Roll, pid: int = 0) -> Started:
    """A command with real pipes, of which nobody holds the other ends any more."""
    output = Output(head=False)
    for descriptor in output.writing:
        os.close(descriptor)
    started = roll.add("true", output=output, stdin=None, link=LINK)
    started.pid = pid
    return started


async def test_the_newest_of_a_pid_is_meant(roll: Roll) -> None:
    """Pids come again, numbers do not; one without a pid is not shown, and nobody means it."""
    first, second, unborn = _add(roll, 7), _add(roll, 7), _add(roll)
    assert first.number < second.number < unborn.number
    assert roll.by_pid(7) is second and roll.by_pid(8) is None and roll.by_pid(0) is None
    roll.ended(second.number, 3)
    assert [(one.pid, one.running, one.exit_code) for one in roll.shown()] == [(7, False, 3)]
    roll.remove(second)
    assert roll.by_pid(7) is first
    roll.ended(second.number, 4)
    assert second.code == 3, "it was forgotten"


async def test_the_oldest_ended_ones_are_forgotten(roll: Roll) -> None:
    """Those that run are not, however old they are."""
    running = _add(roll, 1)
    for pid in range(2, KEPT_ENDED + 5):
        roll.ended(_add(roll, pid).number, 0)
        roll.thin()
    assert [one.pid for one in roll.shown()] == [1, *range(5, KEPT_ENDED + 5)]
    assert roll.by_pid(1) is running and roll.by_pid(4) is None


async def test_with_their_supervisor_all_that_run_end(roll: Roll) -> None:
    """All that run end with the same code and fault; what had ended before keeps its end."""
    ended, running = _add(roll, 1), _add(roll, 2)
    roll.ended(ended.number, 0)
    fault = SupervisorLost("gone")
    roll.lost(137, fault)
    assert (ended.code, ended.fault, running.code, running.fault) == (0, None, 137, fault)


async def test_there_is_room_for_so_many(roll: Roll, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that runs counts, and an ended one as long as its output is held open."""
    monkeypatch.setattr(module, "MAX_COMMANDS", 2)
    held = Output(head=False)
    left = roll.add("left", output=held, stdin=None, link=LINK)
    roll.ended(left.number, 0)
    running = _add(roll, 2)
    with pytest.raises(TooManyCommands, match="2 commands"):
        roll.require_room()
    for descriptor in held.writing:
        os.close(descriptor)
    await until(lambda: not held.reading)
    roll.require_room()
    _add(roll, 3)
    with pytest.raises(TooManyCommands):
        roll.require_room()
    roll.remove(running)
