"""Waking: one resume for all, one outcome for each, every bound and every answer of a control plane."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import pytest
from scriptedport import DOWN, Notes, ScriptedPort, after, sandbox
from virtual import VirtualLoop, run

from edge.core.errors import EdgeError
from edge.core.records import SandboxRecord, State
from edge.core.reports import Role
from edge.core.settings import CatalogSettings, WakeSettings
from edge.state.port import RefusalReason, ResumeRefused
from edge.wake import wakes as module
from edge.wake.catalog import POLL, Catalog
from edge.wake.scope import Scope
from edge.wake.wakes import Wakes

PAUSED = sandbox(3, State.PAUSED, 1)
RUNNING = sandbox(5, State.RUNNING, 2)


@dataclass
class Bench:
    """Wakes on a scripted port in virtual time; the catalog knows ``PAUSED`` and is fresh."""

    loop: VirtualLoop
    port: ScriptedPort
    catalog: Catalog
    wakes: Wakes
    scope: Scope
    notes: Notes
    spent: list[str]
    crashes: list[tuple[str, BaseException]]
    budget: int = 100

    def settle(self, grant_id: str = "g", within: float = 20.0) -> asyncio.Task[Role]:
        """Start one waiter."""
        return self.loop.create_task(
            self.wakes.settle(
                PAUSED, grant_id=grant_id, woken_by="GET /", deadline=self.loop.time() + within
            )
        )

    def spend(self, grant_id: str) -> bool:
        """The budget."""
        self.spent.append(grant_id)
        return len(self.spent) <= self.budget


def on_bench(
    test: Callable[[Bench], Coroutine[Any, Any, None]],
    known: SandboxRecord = PAUSED,
    *,
    crashes: int = 0,
    **answers: list[Any],
) -> None:
    """Run a test's dialogue with a fresh catalog that knows one record."""

    async def main(loop: VirtualLoop) -> None:
        port, notes = ScriptedPort(**{"sandbox": [known]} | answers), Notes()
        met: list[tuple[str, BaseException]] = []
        scope = Scope(lambda name, error: met.append((name, error)))
        # One heartbeat lasts for the whole test: freshness is test_catalog's business.
        settings = CatalogSettings(fresh=1000, stale_after=1000, stale_limit=2000)
        catalog = Catalog(port, settings, clock=loop.time, observer=notes)
        bench: Bench
        wakes = Wakes(
            port,
            catalog,
            WakeSettings(window=20, failure_memory=1),
            spend_wake=lambda grant_id: bench.spend(grant_id),
            scope=scope,
            clock=loop.time,
            observer=notes,
        )
        bench = Bench(loop, port, catalog, wakes, scope, notes, [], met)
        await catalog.look_up_sandbox("sb")
        catalog.hear_heartbeat()
        port.calls.clear()
        await test(bench)
        assert wakes.waiting() == 0
        await scope.close()
        await catalog.close()
        assert len(bench.crashes) == crashes

    run(main)


async def outcome(task: asyncio.Task[Role]) -> str:
    """How a waiter fared: its role, or the code of its error."""
    try:
        return (await task).value
    except EdgeError as e:
        return e.problem.code


def test_one_resume_for_all() -> None:
    """The first leads, the rest follow, and all go on in the instant the answer comes."""

    async def dialogue(bench: Bench) -> None:
        waiters = [bench.settle(f"g{i}") for i in range(5)]
        await asyncio.sleep(0.1)
        assert bench.wakes.waiting() == 5
        began = bench.loop.time()
        roles = await asyncio.gather(*waiters)
        assert roles == [Role.LEADER] + [Role.FOLLOWER] * 4
        assert bench.loop.time() == pytest.approx(began + 0.4)
        assert bench.catalog.sandbox("sb") == RUNNING
        assert [call[:3] for call in bench.port.calls] == [("resume", "sb", 1)]
        assert bench.spent == ["g0"]

    on_bench(dialogue, resume=[after(0.5, RUNNING)])


@pytest.mark.parametrize("waiting", [1, 1000])
def test_going_on_takes_the_same_turns_of_the_loop_for_all(waiting: int) -> None:
    """From the change to the last waiter: one turn, however many wait, and no timer and nobody's answer in between."""

    async def dialogue(bench: Bench) -> None:
        waiters = [bench.settle() for _ in range(waiting)]
        await asyncio.sleep(0.1)
        began, turns = bench.loop.time(), 0
        bench.catalog.hear_change(RUNNING)
        while not all(waiter.done() for waiter in waiters):
            await asyncio.sleep(0)
            turns += 1
        assert turns == 1 and bench.loop.time() == began

    on_bench(dialogue, resume=[after(0.5, RUNNING)])


@pytest.mark.parametrize("leaving", [0, 1, 4])
def test_a_waiter_may_leave(leaving: int) -> None:
    """Whoever leaves, the first too, the others get their answer from the same resume."""

    async def dialogue(bench: Bench) -> None:
        waiters = [bench.settle() for _ in range(5)]
        await asyncio.sleep(0.1)
        waiters.pop(leaving).cancel()
        await asyncio.gather(*waiters)
        assert bench.port.count("resume") == 1

    on_bench(dialogue, resume=[after(0.5, RUNNING)])


def test_a_wake_without_waiters_goes_on() -> None:
    """All have left; the resume is carried through, and who comes then finds the sandbox running."""

    async def dialogue(bench: Bench) -> None:
        waiter = bench.settle()
        await asyncio.sleep(0.1)
        waiter.cancel()
        await asyncio.sleep(1)
        assert bench.catalog.sandbox("sb") == RUNNING
        assert await bench.settle() is Role.NONE
        assert bench.port.count("resume") == 1

    on_bench(dialogue, resume=[after(0.5, RUNNING)])


def test_a_change_ends_the_wake_before_its_answer() -> None:
    """The watch may be faster than the answer, and the answer may never come."""

    async def dialogue(bench: Bench) -> None:
        waiters = [bench.settle() for _ in range(2)]
        await asyncio.sleep(0.5)
        bench.catalog.hear_change(sandbox(4, State.RESUMING))
        await asyncio.sleep(0.5)
        assert not waiters[0].done()
        began = bench.loop.time()
        bench.catalog.hear_change(RUNNING)
        await asyncio.gather(*waiters)
        assert bench.loop.time() == began
        assert bench.wakes.current("sb").resumed_at == began

    on_bench(dialogue, resume=[after(15, RUNNING)])


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (ResumeRefused(RefusalReason.FAILED), "sandbox_resume_failed"),
        (ResumeRefused(RefusalReason.TIMEOUT), "sandbox_resume_timeout"),
        (ResumeRefused(RefusalReason.NOT_FOUND), "sandbox_not_found"),
        (
            ResumeRefused(RefusalReason.AUTO_RESUME_DISABLED),
            "sandbox_paused_auto_resume_disabled",
        ),
        (DOWN, "control_plane_unavailable"),
        (after(30, RUNNING), "sandbox_resume_timeout"),
        (after(19.99, DOWN), "sandbox_resume_timeout"),
        # Nonsense: still paused, or somebody else.
        (PAUSED, "sandbox_resume_failed"),
        (replace(PAUSED, version=9), "sandbox_resume_failed"),
        (replace(RUNNING, id="sb_other"), "sandbox_resume_failed"),
        (sandbox(6, State.DESTROYED), "sandbox_not_found"),
        (sandbox(6, State.ERROR), "sandbox_error"),
    ],
)
def test_every_waiter_gets_the_failure(answer: object, code: str) -> None:
    """All waiters get the same code, each its own exception, and the wake is reported with it."""

    async def dialogue(bench: Bench) -> None:
        waiters = [bench.settle(within=25) for _ in range(3)]
        assert [await outcome(task) for task in waiters] == [code] * 3
        assert len({id(task.exception()) for task in waiters}) == 3
        assert [(wake.outcome, wake.waiters) for wake in bench.notes.wakes] == [(code, 3)]
        assert bench.wakes.current("sb") is None

    on_bench(dialogue, resume=[answer])


def test_a_failure_is_remembered_for_a_moment() -> None:
    """A storm costs one attempt; a second later the next request tries anew."""

    async def dialogue(bench: Bench) -> None:
        for _ in range(5):
            assert await outcome(bench.settle()) == "sandbox_resume_failed"
            await asyncio.sleep(0.1)
        assert bench.port.count("resume") == 1 and len(bench.spent) == 1
        await asyncio.sleep(1)
        assert await outcome(bench.settle()) == "leader"

    on_bench(dialogue, resume=[ResumeRefused(RefusalReason.FAILED), RUNNING])


def test_a_failure_is_of_one_incarnation() -> None:
    """Paused again from a later execution, it is another matter."""

    async def dialogue(bench: Bench) -> None:
        assert await outcome(bench.settle()) == "sandbox_resume_failed"
        bench.catalog.apply(sandbox(9, State.PAUSED, 2))
        assert await outcome(bench.settle()) == "leader"

    on_bench(dialogue, resume=[ResumeRefused(RefusalReason.FAILED), sandbox(11, State.RUNNING, 3)])


def test_each_waiter_has_its_own_deadline() -> None:
    """One that gives up early is told so and leaves the wake to the others."""

    async def dialogue(bench: Bench) -> None:
        patient, hasty = bench.settle(within=20), bench.settle(within=1)
        began = bench.loop.time()
        assert await outcome(hasty) == "sandbox_resume_timeout"
        assert bench.loop.time() == pytest.approx(began + 1)
        assert await outcome(patient) == "leader"
        assert await outcome(bench.settle(within=0)) == "none"

    on_bench(dialogue, resume=[after(5, RUNNING)])


def test_without_auto_resume_it_stays_paused() -> None:
    """The answer comes at once, and the control plane is not asked."""

    async def dialogue(bench: Bench) -> None:
        began = bench.loop.time()
        assert await outcome(bench.settle()) == "sandbox_paused_auto_resume_disabled"
        assert bench.loop.time() == began and bench.port.calls == [] == bench.spent

    on_bench(dialogue, sandbox(3, State.PAUSED, auto_resume=False))


def test_only_who_begins_a_wake_pays_for_it() -> None:
    """A grant without budget may follow; it may not lead, and its refusal hinders nobody."""

    async def dialogue(bench: Bench) -> None:
        bench.budget = 0
        assert await outcome(bench.settle("poor")) == "preview_overloaded"
        assert bench.port.calls == []
        bench.budget = 2
        leader, follower = bench.settle("rich"), bench.settle("poor")
        assert [await outcome(task) for task in (leader, follower)] == ["leader", "follower"]
        assert bench.spent == ["poor", "rich"]

    on_bench(dialogue, resume=[after(0.5, RUNNING)])


@pytest.mark.parametrize("state", [State.PAUSING, State.RESUMING, State.CREATING])
def test_in_between_it_waits_for_the_change(state: State) -> None:
    """Nothing is resumed; the change lets everybody go in the same instant."""

    async def dialogue(bench: Bench) -> None:
        waiters = [bench.settle() for _ in range(3)]
        await asyncio.sleep(0.5)
        began = bench.loop.time()
        bench.catalog.hear_change(RUNNING)
        roles = await asyncio.gather(*waiters)
        assert bench.loop.time() == began
        assert set(roles) == {Role.FOLLOWER if state is State.RESUMING else Role.NONE}
        assert bench.port.calls == []

    on_bench(dialogue, sandbox(4, state))


def test_a_lost_change_is_asked_for() -> None:
    """Waiting for a change whose message was lost costs a second, not the window."""

    async def dialogue(bench: Bench) -> None:
        began = bench.loop.time()
        waiters = [bench.settle() for _ in range(3)]
        await asyncio.gather(*waiters)
        assert bench.loop.time() - began == pytest.approx(POLL)
        assert bench.port.count("sandbox") == 1

    on_bench(dialogue, sandbox(4, State.RESUMING), sandbox=[sandbox(4, State.RESUMING), RUNNING])


@pytest.mark.parametrize(
    ("state", "code"),
    [(State.PAUSING, "sandbox_resume_timeout"), (State.RESUMING, "sandbox_resume_timeout")],
)
def test_in_between_for_too_long(state: State, code: str) -> None:
    """A change that never comes ends at the waiter's deadline."""

    async def dialogue(bench: Bench) -> None:
        began = bench.loop.time()
        assert await outcome(bench.settle(within=5)) == code
        assert bench.loop.time() == pytest.approx(began + 5)

    on_bench(dialogue, sandbox(4, state))


def test_creating_for_too_long_is_not_ready() -> None:
    """A sandbox that is still being created at the deadline has a code of its own."""
    creating = sandbox(3, State.CREATING)

    async def dialogue(bench: Bench) -> None:
        waiting = bench.wakes.settle(
            creating, grant_id="g", woken_by="GET /", deadline=bench.loop.time() + 2
        )
        with pytest.raises(EdgeError) as caught:
            await waiting
        assert caught.value.problem.code == "sandbox_not_ready"

    on_bench(dialogue, creating)


def test_a_pause_that_goes_through_is_woken() -> None:
    """Met while pausing: waits, is decided anew, then all share one wake begun by the first."""

    async def dialogue(bench: Bench) -> None:
        waiters = [bench.settle() for _ in range(3)]
        await asyncio.sleep(0.5)
        bench.catalog.hear_change(sandbox(5, State.PAUSED, 1))
        assert set(await asyncio.gather(*waiters)) == {"none"}
        assert bench.port.count("resume") == 0, "whether they may wake it is for the caller to say"
        roles = await asyncio.gather(*(bench.settle() for _ in range(3)))
        assert sorted(roles) == ["follower", "follower", "leader"]
        assert bench.port.count("resume") == 1

    on_bench(dialogue, sandbox(4, State.PAUSING), resume=[after(0.5, sandbox(7, State.RUNNING, 2))])


def test_paused_again_is_woken_again() -> None:
    """A pause that raced the wake is met with another wake, of the newer incarnation."""

    async def dialogue(bench: Bench) -> None:
        for _ in range(2):  # in between the caller decides anew
            assert await outcome(bench.settle()) == "leader"
        assert [call[:3] for call in bench.port.calls] == [("resume", "sb", 1), ("resume", "sb", 2)]

    on_bench(dialogue, resume=[sandbox(8, State.PAUSED, 2), sandbox(10, State.RUNNING, 3)])


def test_a_record_in_doubt_is_looked_up() -> None:
    """After a doubt the waiters look up once, together, and go by what is found."""

    async def dialogue(bench: Bench) -> None:
        waiters = [bench.settle() for _ in range(3)]
        await asyncio.sleep(0.5)
        bench.catalog.doubt_everything()
        await asyncio.gather(*waiters)
        assert bench.port.count("sandbox") == 1

    resuming = sandbox(4, State.RESUMING)
    on_bench(dialogue, resuming, sandbox=[resuming, after(0.1, RUNNING)])


@pytest.mark.parametrize(
    ("answer", "code"), [(None, "sandbox_not_found"), (DOWN, "control_plane_unavailable")]
)
def test_what_cannot_be_looked_up(answer: object, code: str) -> None:
    """A sandbox that is not there, and a control plane that does not say."""

    async def dialogue(bench: Bench) -> None:
        stranger = replace(PAUSED, id="sb_stranger")
        waiting = bench.wakes.settle(
            stranger, grant_id="g", woken_by="GET /", deadline=bench.loop.time() + 5
        )
        with pytest.raises(EdgeError) as caught:
            await waiting
        assert caught.value.problem.code == code

    on_bench(dialogue, sandbox=[PAUSED, answer])


@pytest.mark.parametrize("turns", [0, 1, 5])
def test_shutting_down_answers_the_waiters(turns: int) -> None:
    """Closing the scope ends wakes, begun or not, and nobody is left without an answer."""

    async def dialogue(bench: Bench) -> None:
        waiters = [bench.settle() for _ in range(2)]
        await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        await bench.scope.close()
        assert [await outcome(task) for task in waiters] == ["edge_draining"] * 2
        assert await outcome(bench.settle()) == "edge_draining"

    on_bench(dialogue, resume=[after(5, RUNNING)])


def test_a_crash_below_leaves_nobody_waiting() -> None:
    """An exception the port should not raise is told as a crash, and as a failed resume to clients."""

    async def dialogue(bench: Bench) -> None:
        assert await outcome(bench.settle()) == "sandbox_resume_failed"
        assert bench.crashes[0][0] == "wake sb"

    on_bench(dialogue, resume=[KeyError("bug")], crashes=1)


def test_a_wake_is_told_when_the_app_answers() -> None:
    """The report waits for the first byte; then the wake is current no more."""

    async def dialogue(bench: Bench) -> None:
        await bench.settle()
        wake = bench.wakes.current("sb")
        assert wake is not None and bench.notes.wakes == []
        wake.listening(bench.loop.time() + 1)
        wake.dispatched(bench.loop.time() + 2)
        wake.first_byte(bench.loop.time() + 4)
        report = bench.notes.wakes[0]
        assert report.resume == pytest.approx(0.5)
        assert (report.listen, report.dispatch, report.first_byte) == (1, 2, 2)
        assert bench.wakes.current("sb") is None
        await asyncio.sleep(100)
        assert len(bench.notes.wakes) == 1

    on_bench(dialogue, resume=[after(0.5, RUNNING)])


def test_a_wake_nobody_tells_of_is_told_after_a_while() -> None:
    """An app that never answers does not keep the wake for ever."""

    async def dialogue(bench: Bench) -> None:
        await bench.settle()
        await asyncio.sleep(module.TELLING + 1)
        assert [report.outcome for report in bench.notes.wakes] == ["ok"]
        assert bench.wakes.current("sb") is None

    on_bench(dialogue, resume=[RUNNING])


def test_the_next_wake_ends_the_telling_of_the_last() -> None:
    """Woken, paused and woken again before the app answered: two reports, and the newer is current."""

    async def dialogue(bench: Bench) -> None:
        await bench.settle()
        bench.catalog.hear_change(sandbox(8, State.PAUSED, 2))
        await bench.settle()
        assert len(bench.notes.wakes) == 1
        assert bench.wakes.current("sb").paused.incarnation == 2

    on_bench(dialogue, resume=[RUNNING, sandbox(10, State.RUNNING, 3)])
