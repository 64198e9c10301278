"""Resumes: what is asked of a control plane for one wake, how often, and what its answers come to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import pytest
from scriptedport import DOWN, Notes, ScriptedPort, after, sandbox
from virtual import VirtualLoop, run

from edge.core.errors import Problem
from edge.core.records import SandboxRecord, State
from edge.core.settings import CatalogSettings
from edge.state.port import RefusalReason, ResumeRefused
from edge.wake.catalog import Catalog
from edge.wake.resumes import BLIP, LEAST_TIMEOUT, Resumes
from edge.wake.wake import Wake

PAUSED = sandbox(3, State.PAUSED, 1)
RUNNING = sandbox(5, State.RUNNING, 2)
WINDOW = 20.0


@dataclass
class Bench:
    """Resumes on a scripted port in virtual time; the catalog knows ``PAUSED``, and somebody waits."""

    loop: VirtualLoop
    port: ScriptedPort
    catalog: Catalog
    resumes: Resumes
    wake: Wake

    async def carry_out(self) -> str:
        """The code its waiters would be told, or "ok"."""
        problem: Problem | None = await self.resumes.carry_out(self.wake)
        return problem.code if problem is not None else "ok"

    @property
    def elapsed(self) -> float:
        """Seconds since the wake began."""
        return self.loop.time() - self.wake.started


def on_bench(
    test: Callable[[Bench], Coroutine[Any, Any, None]], resume: list[Any], *later: SandboxRecord
) -> None:
    """Run a test's dialogue. ``later`` is what look-ups after the first say."""

    async def main(loop: VirtualLoop) -> None:
        port = ScriptedPort(sandbox=[PAUSED, *later], resume=resume)
        settings = CatalogSettings(fresh=1000, stale_after=1000, stale_limit=2000)
        catalog = Catalog(port, settings, clock=loop.time, observer=Notes())
        await catalog.look_up_sandbox("sb")
        catalog.hear_heartbeat()
        port.calls.clear()
        wake = Wake(PAUSED, loop.time(), "GET /", lambda _: None)
        wake.waiting = 1
        resumes = Resumes(port, catalog, window=WINDOW, clock=loop.time)
        await test(Bench(loop, port, catalog, resumes, wake))
        await catalog.close()

    run(main)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (RUNNING, "ok"),
        (sandbox(6, State.DESTROYED), "ok"),  # worth reading again: that says what it is
        (sandbox(6, State.PAUSED, 2), "ok"),
        (ResumeRefused(RefusalReason.FAILED), "sandbox_resume_failed"),
        (ResumeRefused(RefusalReason.TIMEOUT), "sandbox_resume_timeout"),
        (ResumeRefused(RefusalReason.NOT_FOUND), "sandbox_not_found"),
        (
            ResumeRefused(RefusalReason.AUTO_RESUME_DISABLED),
            "sandbox_paused_auto_resume_disabled",
        ),
        (PAUSED, "sandbox_resume_failed"),
        (replace(PAUSED, version=9), "sandbox_resume_failed"),
        (replace(RUNNING, id="sb_other"), "sandbox_resume_failed"),
    ],
)
def test_an_answer_is_judged_at_once(answer: object, code: str) -> None:
    """One call, which names the incarnation seen paused and the time there is; nonsense is a failure."""

    async def dialogue(bench: Bench) -> None:
        assert await bench.carry_out() == code
        assert bench.port.calls == [("resume", "sb", 1, WINDOW)] and bench.elapsed == 0

    on_bench(dialogue, [answer])


def test_an_answer_is_known_to_the_catalog() -> None:
    """Whoever waits decides on it without another question."""

    async def dialogue(bench: Bench) -> None:
        await bench.carry_out()
        assert bench.catalog.sandbox("sb") == RUNNING

    on_bench(dialogue, [RUNNING])


def test_an_answer_about_another_sandbox_is_not_believed() -> None:
    """It is a failure of this resume, and the catalog never hears of it."""

    async def dialogue(bench: Bench) -> None:
        assert await bench.carry_out() == "sandbox_resume_failed"
        assert bench.catalog.size()["sandboxes"] == 1

    on_bench(dialogue, [replace(RUNNING, id="sb_other")])


def test_a_blip_is_waited_out() -> None:
    """A control plane away for a moment inside the window costs time and no error, nor a second incarnation."""

    async def dialogue(bench: Bench) -> None:
        assert await bench.carry_out() == "ok"
        assert [call[2] for call in bench.port.calls] == [1] * 4

    on_bench(dialogue, [DOWN, DOWN, DOWN, RUNNING])


def test_a_silent_control_plane_is_given_up_after_a_while() -> None:
    """About three seconds of failures, backing off, then 503."""

    async def dialogue(bench: Bench) -> None:
        assert await bench.carry_out() == "control_plane_unavailable"
        assert BLIP <= bench.elapsed < BLIP + 1
        assert 5 <= bench.port.count("resume") <= 20

    on_bench(dialogue, [DOWN])


def test_nobody_retries_for_nobody() -> None:
    """When all waiters have left, a failed attempt is not repeated."""

    async def dialogue(bench: Bench) -> None:
        bench.wake.waiting = 0
        assert await bench.carry_out() == "control_plane_unavailable"
        assert bench.port.count("resume") == 1

    on_bench(dialogue, [DOWN])


def test_what_ended_the_wake_ends_the_asking() -> None:
    """A change told that the lost answer had been carried out: nothing is asked again."""

    async def dialogue(bench: Bench) -> None:
        asking = asyncio.create_task(bench.carry_out())
        await asyncio.sleep(0)
        bench.wake.over.set()
        assert await asking == "ok"
        assert bench.port.count("resume") == 1

    on_bench(dialogue, [DOWN])


@pytest.mark.parametrize("answer", [after(300, RUNNING), after(WINDOW - LEAST_TIMEOUT / 2, DOWN)])
def test_the_window_bounds_it(answer: object) -> None:
    """A control plane that takes longer is given up; and so little time is left that nobody asks again."""

    async def dialogue(bench: Bench) -> None:
        assert await bench.carry_out() == "sandbox_resume_timeout"
        assert bench.elapsed == pytest.approx(WINDOW, abs=LEAST_TIMEOUT)
        assert bench.port.calls == [("resume", "sb", 1, WINDOW)]

    on_bench(dialogue, [answer])


def test_somebody_elses_resume_is_waited_for() -> None:
    """The answer may be that another edge's resume is under way: this one lasts until that is over."""

    async def dialogue(bench: Bench) -> None:
        asking = asyncio.create_task(bench.carry_out())
        await asyncio.sleep(0.5)
        assert not asking.done()
        bench.catalog.hear_change(RUNNING)
        assert await asking == "ok"
        assert bench.port.count("resume") == 1 and bench.elapsed == pytest.approx(0.5)

    on_bench(dialogue, [sandbox(4, State.RESUMING)])


def test_somebody_elses_resume_may_fail() -> None:
    """It is paused again where it was, and the message of that was lost: that is found out by asking."""

    async def dialogue(bench: Bench) -> None:
        assert await bench.carry_out() == "sandbox_resume_failed"
        assert bench.port.count("sandbox") == 1

    on_bench(dialogue, [sandbox(4, State.RESUMING)], sandbox(5, State.PAUSED, 1))
