"""The catalog: what is served, what is asked for again, and what wins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from scriptedport import DOWN, Notes, ScriptedPort, after, grant, sandbox
from virtual import VirtualLoop, run

from edge.core.records import GrantRecord, Missing, SandboxRecord, State
from edge.core.settings import CatalogSettings
from edge.state.port import Change, Heartbeat, Unavailable
from edge.wake.catalog import POLL, Catalog
from edge.wake.trust import Trust

SETTINGS = CatalogSettings(fresh=1, stale_after=5, stale_limit=60, absent_ttl=1)


@dataclass
class Bench:
    """A catalog on a scripted port in virtual time."""

    loop: VirtualLoop
    port: ScriptedPort
    catalog: Catalog
    heard: list[SandboxRecord | GrantRecord]


def on_bench(
    test: Callable[[Bench], Coroutine[Any, Any, None]],
    settings: CatalogSettings = SETTINGS,
    **answers: list[Any],
) -> None:
    """Run a test's dialogue with a catalog."""

    async def main(loop: VirtualLoop) -> None:
        port = ScriptedPort(**answers)
        catalog = Catalog(port, settings, clock=loop.time, observer=Notes())
        bench = Bench(loop, port, catalog, [])
        catalog.listen(bench.heard.append)
        await test(bench)
        await catalog.close()
        assert len(catalog._signals) == 0

    run(main)


def test_before_the_first_heartbeat_everything_is_asked_once_a_second() -> None:
    """An edge whose watch never connects works by asking, and is not trusted blindly."""

    async def dialogue(bench: Bench) -> None:
        assert bench.catalog.sandbox("sb") is Missing.UNKNOWN
        assert bench.catalog.trust() is Trust.SUSPECT
        for _ in range(3):
            await bench.catalog.look_up_sandbox("sb")
            assert bench.catalog.sandbox("sb") == sandbox()
            await asyncio.sleep(0.9)
            assert bench.catalog.sandbox("sb") == sandbox()
            await asyncio.sleep(0.2)
            assert bench.catalog.sandbox("sb") is Missing.UNKNOWN

    on_bench(dialogue, sandbox=[sandbox()])


def test_a_slow_answer_is_served_all_the_same() -> None:
    """An answer that took longer than it is believed for is still an answer to those who asked."""

    async def dialogue(bench: Bench) -> None:
        await bench.catalog.look_up_sandbox("sb")
        assert bench.catalog.sandbox("sb") == sandbox()

    on_bench(dialogue, CatalogSettings(stale_limit=0), sandbox=[after(3, sandbox())])


def test_a_failed_reread_serves_what_is_known_for_another_second() -> None:
    """In SUSPECT a known grant is asked for at most once a second, and served when asking fails."""

    async def dialogue(bench: Bench) -> None:
        await bench.catalog.look_up_grant("g")
        bench.catalog.hear_heartbeat()
        await asyncio.sleep(1.5)
        for _ in range(3):
            assert bench.catalog.grant("g") is Missing.UNKNOWN
            await bench.catalog.look_up_grant("g")
            assert bench.catalog.grant("g") == grant()
            await asyncio.sleep(1.0)
        assert bench.port.count("grant") == 4

    on_bench(dialogue, grant=[grant(), DOWN])


def test_beyond_the_stale_limit_asking_decides() -> None:
    """LOST while asking has just failed, asked again a second later, served once answered."""

    async def dialogue(bench: Bench) -> None:
        await bench.catalog.look_up_grant("g")
        await asyncio.sleep(61)
        assert bench.catalog.grant("g") is Missing.UNKNOWN
        with pytest.raises(Unavailable):
            await bench.catalog.look_up_grant("g")
        assert bench.catalog.grant("g") is Missing.LOST
        await asyncio.sleep(1.1)
        assert bench.catalog.grant("g") is Missing.UNKNOWN
        await bench.catalog.look_up_grant("g")
        assert bench.catalog.grant("g") == grant(2)

    on_bench(dialogue, grant=[grant(), DOWN, grant(2)])


def test_absence_is_remembered_for_a_while() -> None:
    """An answer of "no such sandbox" stands for its time, then is asked for again; a change ends it at once."""

    async def dialogue(bench: Bench) -> None:
        await bench.catalog.look_up_sandbox("sb")
        bench.catalog.hear_heartbeat()
        assert bench.catalog.sandbox("sb") is Missing.ABSENT
        await asyncio.sleep(1.1)
        assert bench.catalog.sandbox("sb") is Missing.UNKNOWN
        await bench.catalog.look_up_sandbox("sb")
        bench.catalog.hear_change(sandbox(1))
        bench.catalog.hear_heartbeat()
        assert bench.catalog.sandbox("sb") == sandbox(1)

    on_bench(dialogue, sandbox=[None])


def test_a_tombstone_keeps_its_version() -> None:
    """A late change cannot bring back what the control plane no longer has."""

    async def dialogue(bench: Bench) -> None:
        await bench.catalog.look_up_sandbox("sb")
        await bench.catalog.look_up_sandbox("sb")
        bench.catalog.hear_heartbeat()
        bench.catalog.hear_change(sandbox(4))
        assert bench.catalog.sandbox("sb") is Missing.ABSENT
        bench.catalog.hear_change(sandbox(6))
        assert bench.catalog.sandbox("sb") == sandbox(6)

    on_bench(dialogue, sandbox=[sandbox(5), None])


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1), (3, 3, 3)])
def test_the_higher_version_wins(order: tuple[int, ...]) -> None:
    """Whichever comes last; and each newer record is told once."""

    async def dialogue(bench: Bench) -> None:
        for version in order:
            bench.catalog.apply(sandbox(version))
        bench.catalog.hear_heartbeat()
        await bench.catalog.look_up_sandbox("sb")
        assert bench.catalog.sandbox("sb") == sandbox(3)
        told = [record.version for record in bench.heard]
        assert told == sorted(set(told)) and told[-1] == 3

    on_bench(dialogue, sandbox=[sandbox(2)])


@pytest.mark.parametrize("answer", [sandbox(4), None])
def test_a_change_is_not_overwritten_by_an_older_answer(answer: object) -> None:
    """A change heard while the first look-up is under way wins over the answer read before it."""

    async def dialogue(bench: Bench) -> None:
        bench.catalog.hear_heartbeat()
        asking = asyncio.create_task(bench.catalog.look_up_sandbox("sb"))
        await asyncio.sleep(0.1)
        bench.catalog.hear_change(sandbox(6, State.PAUSED))
        bench.catalog.hear_change(sandbox(5))
        await asking
        assert bench.catalog.sandbox("sb") == sandbox(6, State.PAUSED)

    on_bench(dialogue, sandbox=[after(0.5, answer)])


def test_one_call_for_all_who_ask() -> None:
    """Look-ups are shared, and one caller's leaving, the first's too, disturbs nobody."""

    async def dialogue(bench: Bench) -> None:
        asking = [asyncio.create_task(bench.catalog.look_up_sandbox("sb")) for _ in range(5)]
        await asyncio.sleep(0.1)
        asking[0].cancel()
        done, _ = await asyncio.wait(asking)
        assert bench.port.count("sandbox") == 1
        assert sum(task.cancelled() for task in done) == 1
        assert all(task.cancelled() or task.exception() is None for task in done)
        assert bench.catalog.size() == {"sandboxes": 1, "grants": 0, "pending": 0}

    on_bench(dialogue, sandbox=[after(0.5, sandbox())])


def test_all_who_asked_hear_of_a_failure() -> None:
    """Each caller gets its own `Unavailable`; the next one asks anew."""

    async def dialogue(bench: Bench) -> None:
        asking = [bench.catalog.look_up_grant("g") for _ in range(3)]
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(result) for result in results] == [Unavailable] * 3
        assert len(set(map(id, results))) == 3
        await bench.catalog.look_up_grant("g")
        assert bench.catalog.grant("g") == grant()

    on_bench(dialogue, grant=[DOWN, grant()])


def test_a_crash_below_leaves_nobody_waiting() -> None:
    """An exception the port should not raise is a crash for the log and `Unavailable` for callers."""

    async def dialogue(bench: Bench) -> None:
        with pytest.raises(Unavailable):
            await bench.catalog.look_up_sandbox("sb")
        assert bench.catalog.size()["pending"] == 0

    on_bench(dialogue, sandbox=[KeyError("bug")])


def test_closing_answers_those_who_ask() -> None:
    """Who waits for a look-up when the catalog is closed, and who asks later, gets `Unavailable`."""

    async def dialogue(bench: Bench) -> None:
        asking = asyncio.create_task(bench.catalog.look_up_sandbox("sb"))
        # Not even begun, and under way: both must be answered.
        for turns in (1, 3):
            for _ in range(turns):
                await asyncio.sleep(0)
        await bench.catalog.close()
        with pytest.raises(Unavailable):
            await asking
        with pytest.raises(Unavailable):
            await bench.catalog.look_up_sandbox("sb")

    on_bench(dialogue, sandbox=[after(5, sandbox())])


def test_doubt_makes_everything_unsure() -> None:
    """After a doubt each entry is looked up again on its next use; failing that, the old one stands."""

    async def dialogue(bench: Bench) -> None:
        await bench.catalog.look_up_sandbox("sb")
        bench.catalog.doubt_everything()
        bench.catalog.hear_heartbeat()
        assert bench.catalog.sandbox("sb") is Missing.UNKNOWN
        await bench.catalog.look_up_sandbox("sb")
        assert bench.catalog.sandbox("sb") == sandbox(1)
        bench.catalog.hear_heartbeat()
        await asyncio.sleep(1.1)
        assert bench.catalog.sandbox("sb") is Missing.UNKNOWN
        await bench.catalog.look_up_sandbox("sb")
        assert bench.catalog.sandbox("sb") == sandbox(2)

    on_bench(dialogue, sandbox=[sandbox(1), DOWN, sandbox(2)])


def test_an_answer_from_before_a_doubt_is_unsure() -> None:
    """A look-up begun before the doubt may have read what changed unheard."""

    async def dialogue(bench: Bench) -> None:
        bench.catalog.hear_heartbeat()
        asking = asyncio.create_task(bench.catalog.look_up_sandbox("sb"))
        await asyncio.sleep(0.1)
        bench.catalog.doubt_everything()
        await asking
        assert bench.catalog.sandbox("sb") is Missing.UNKNOWN
        bench.catalog.apply(sandbox(2))
        assert bench.catalog.sandbox("sb") is Missing.UNKNOWN
        await bench.catalog.look_up_sandbox("sb")
        assert bench.catalog.sandbox("sb") == sandbox(3)

    on_bench(dialogue, sandbox=[after(0.5, sandbox(1)), sandbox(3)])


def test_a_change_of_something_unknown_is_told_and_not_kept() -> None:
    """It may be an old one: listeners hear it (a pause barrier answers), the next use looks it up."""

    async def dialogue(bench: Bench) -> None:
        bench.catalog.hear_heartbeat()
        bench.catalog.hear_change(sandbox(7, State.PAUSING))
        assert bench.heard == [sandbox(7, State.PAUSING)]
        assert bench.catalog.sandbox("sb") is Missing.UNKNOWN
        assert bench.catalog.size()["sandboxes"] == 0

    on_bench(dialogue)


def test_changed_returns_at_once_when_it_has_changed() -> None:
    """Nothing is waited for that has happened already."""

    async def dialogue(bench: Bench) -> None:
        assert await bench.catalog.changed("sb", 1) is Missing.UNKNOWN
        bench.catalog.hear_heartbeat()
        await bench.catalog.look_up_sandbox("sb")
        assert await bench.catalog.changed("sb", 1) == sandbox(2)

    on_bench(dialogue, sandbox=[sandbox(2)])


@pytest.mark.parametrize(
    ("happens", "gives"),
    [
        (lambda catalog: catalog.hear_change(sandbox(3)), sandbox(3)),
        (lambda catalog: catalog.apply(sandbox(4)), sandbox(4)),
        (lambda catalog: catalog.doubt_everything(), Missing.UNKNOWN),
    ],
)
def test_changed_waits_for_what_happens(
    happens: Callable[[Catalog], object], gives: object
) -> None:
    """A change, an answer and a doubt each end the waiting of everybody; an old change does not."""

    async def dialogue(bench: Bench) -> None:
        await bench.catalog.look_up_sandbox("sb")
        bench.catalog.hear_heartbeat()
        waiting = [asyncio.create_task(bench.catalog.changed("sb", 2)) for _ in range(3)]
        await asyncio.sleep(0.1)
        bench.catalog.hear_change(sandbox(1))
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in waiting)
        waiting.pop().cancel()
        happens(bench.catalog)
        assert await asyncio.gather(*waiting) == [gives] * 2

    on_bench(dialogue, sandbox=[sandbox(2)])


@pytest.mark.parametrize(("answer", "limit"), [(sandbox(3), 60.0), (DOWN, 0.1)])
def test_a_change_that_does_not_come_is_asked_for(answer: object, limit: float) -> None:
    """Its message may be lost: who waits looks again after a while, whether asking told anything or not."""
    settings = CatalogSettings(fresh=1, stale_after=1, stale_limit=limit)

    async def dialogue(bench: Bench) -> None:
        await bench.catalog.look_up_sandbox("sb")
        began = bench.loop.time()
        bench.catalog.hear_heartbeat()
        settled = asyncio.create_task(bench.catalog.changes_from(sandbox(2)))
        await asyncio.sleep(POLL / 2)
        bench.catalog.hear_heartbeat()
        await settled
        assert bench.loop.time() - began == pytest.approx(POLL)
        assert bench.port.count("sandbox") == 2

    on_bench(dialogue, settings, sandbox=[sandbox(2), answer])


def test_a_change_that_comes_is_not_asked_for() -> None:
    """Who waits for it goes on in the same instant."""

    async def dialogue(bench: Bench) -> None:
        await bench.catalog.look_up_sandbox("sb")
        bench.catalog.hear_heartbeat()
        settled = asyncio.create_task(bench.catalog.changes_from(sandbox(2)))
        await asyncio.sleep(POLL / 2)
        bench.catalog.hear_change(sandbox(3))
        await settled
        assert bench.port.count("sandbox") == 1

    on_bench(dialogue, sandbox=[sandbox(2)])


def test_entries_are_bounded() -> None:
    """Any number of look-ups leaves no more entries than the limit."""

    async def dialogue(bench: Bench) -> None:
        for i in range(100):
            await bench.catalog.look_up_sandbox(f"sb{i}")
        assert bench.catalog.size()["sandboxes"] <= 10

    on_bench(dialogue, CatalogSettings(max_entries=10), sandbox=[None])


def test_run_follows_the_watch() -> None:
    """Changes and heartbeats of the stream arrive in the catalog."""

    async def dialogue(bench: Bench) -> None:
        running = asyncio.create_task(bench.catalog.run())
        bench.port.events.put_nowait(Heartbeat(1))
        await asyncio.sleep(0)
        await bench.catalog.look_up_sandbox("sb")
        assert bench.catalog.trust() is Trust.FRESH
        bench.port.events.put_nowait(Change(2, sandbox(2, State.PAUSED)))
        changed = await bench.catalog.changed("sb", 1)
        assert changed == sandbox(2, State.PAUSED)
        running.cancel()
        await asyncio.wait((running,))

    on_bench(dialogue, sandbox=[sandbox(1)])


def test_a_repeated_change_is_no_match_for_an_absence() -> None:
    """The control plane says there is none any more, and meanwhile a change comes once more that was known before."""

    async def dialogue(bench: Bench) -> None:
        bench.catalog.hear_heartbeat()
        await bench.catalog.look_up_sandbox("sb")
        bench.catalog.doubt_everything()
        looking = bench.loop.create_task(bench.catalog.look_up_sandbox("sb"))
        await asyncio.sleep(0.5)
        bench.catalog.hear_change(sandbox(3))
        await looking
        bench.catalog.hear_change(sandbox(3))
        assert bench.catalog.sandbox("sb") is Missing.ABSENT

    on_bench(dialogue, sandbox=[sandbox(3), after(1, None)])
