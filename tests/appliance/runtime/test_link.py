"""The control plane's end of a supervisor: questions, answers, floods, and sudden ends."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
from families import LINUX, alive, open_descriptors, until

from edge.appliance.runtime import NotExecutable, SandboxFrozen, SupervisorLost
from edge.appliance.runtime.link import Link, sweep
from edge.appliance.runtime.processes import carries


class Ears:
    """A link with a note of all that it said unasked."""

    def __init__(self, *, cgroups: bool) -> None:
        self.exits: list[tuple[int, int]] = []
        self.lost = 0
        self.mark = f"sb_link.{os.urandom(8).hex()}"
        self.link = Link(
            self.mark,
            cgroups=cgroups,
            exited=lambda number, code: self.exits.append((number, code)),
            lost=self._lost,
        )

    def _lost(self) -> None:
        self.lost += 1

    def start(
        self, *argv: str, number: int = 1, env: dict[str, str] | None = None
    ) -> asyncio.Future[object]:
        """Ask for a command that writes to nowhere."""
        descriptors = (os.open("/", os.O_RDONLY), *(os.open(os.devnull, os.O_RDWR) for _ in "ioe"))
        given = {"PATH": os.defpath, **(env or {})}
        return self.link.tell("spawn", descriptors, argv=list(argv), env=given, number=number)


@pytest.fixture
async def ears(cgroups: bool) -> AsyncIterator[Ears]:
    """A link that is ended after the test."""
    made = Ears(cgroups=cgroups)
    yield made
    await made.link.end()


async def test_answers_find_who_asked(ears: Ears) -> None:
    """Many questions at once, each with its own answer, faults as exceptions, ends as calls."""
    asked = [ears.start("sh", "-c", f"exit {number}", number=number) for number in range(20)]
    wrong = ears.start("/no/such/program", number=99)
    pids = await asyncio.gather(*asked)
    assert len(set(pids)) == 20
    with pytest.raises(NotExecutable, match="No such file"):
        await wrong
    await until(lambda: len(ears.exits) == 20)
    assert sorted(ears.exits) == [(number, number) for number in range(20)]
    await ears.link.tell("freeze")
    with pytest.raises(SandboxFrozen):
        await ears.start("true")


async def test_more_than_the_socket_holds_waits_its_turn(ears: Ears) -> None:
    """Requests far larger than a socket's buffer arrive whole, in order, with their descriptors."""
    before = open_descriptors()
    big = {f"V{number}": "x" * 100_000 for number in range(10)}
    asked = [ears.start("true", number=number, env=big) for number in range(8)]
    assert ears.link._outgoing, "otherwise this test proves nothing"
    assert len(set(await asyncio.gather(*asked))) == 8
    await until(lambda: len(ears.exits) == 8)
    assert open_descriptors() == before


async def test_an_answer_nobody_waits_for_is_dropped(ears: Ears) -> None:
    """A caller who was cancelled disturbs neither the link nor the others."""
    gone = ears.start("sleep", "970")
    gone.cancel()
    refused = ears.start("/no/such/program")
    refused.cancel()
    assert await ears.link.tell("memory") is not None


@LINUX
async def test_end_waits_until_everything_is_gone(ears: Ears) -> None:
    """Commands and supervisor are dead when end returns; ending again and asking then are harmless."""
    pid = await ears.start("sleep", "969")
    supervisor = ears.link.pid
    assert not ears.link.over
    await asyncio.gather(ears.link.end(), ears.link.end())
    assert ears.link.over and ears.lost == 1
    assert isinstance(pid, int) and not alive(pid) and not alive(supervisor)
    await ears.link.end()
    before = open_descriptors()
    with pytest.raises(SupervisorLost):
        await ears.start("true")
    assert open_descriptors() == before


@LINUX
async def test_a_killed_supervisor_is_noticed(ears: Ears) -> None:
    """Whoever waits gets a fault, the owner hears of it once, and nothing marked survives."""
    descriptors = open_descriptors()
    await ears.start("sh", "-c", "(setsid sleep 968 &)")
    os.kill(ears.link.pid, signal.SIGSTOP)
    big = {f"V{number}": "x" * 100_000 for number in range(10)}
    waiting = [ears.link.tell("memory"), ears.start("true", env=big), ears.start("true")]
    os.kill(ears.link.pid, signal.SIGKILL)
    for answer in waiting:
        with pytest.raises(SupervisorLost):
            await answer
    await ears.link.end()
    assert ears.lost == 1
    assert open_descriptors() == descriptors - 1, "its own socket is closed as well"
    await asyncio.to_thread(sweep, ears.mark)


@LINUX
async def test_sweeping_finds_by_mark_only() -> None:
    """A process with the mark is killed, one with another mark is not."""
    children = [
        await asyncio.create_subprocess_exec("sleep", "967", env={"PREVIEW_SANDBOX_MARK": mark})
        for mark in ("sb_sweep.aa.1", "sb_sweep.ab.1")
    ]
    # In the midst of exec a process has no environment yet.
    await until(lambda: all(carries(child.pid, "sb_sweep") for child in children))
    await asyncio.to_thread(sweep, "sb_sweep.aa")
    assert await children[0].wait() == -signal.SIGKILL
    assert alive(children[1].pid)
    children[1].kill()
    await children[1].wait()
