"""The pause barrier: every pausing version is answered once, truthfully, and no longer than it matters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from scriptedport import DOWN, Notes, ScriptedPort, after, grant, sandbox
from virtual import VirtualLoop, run

from edge.core.records import State
from edge.core.settings import AdmissionSettings, CatalogSettings, WakeSettings
from edge.wake.admission import Admission
from edge.wake.barrier import ATTEMPTS, Barrier
from edge.wake.catalog import Catalog
from edge.wake.scope import Scope


@dataclass
class Bench:
    """A barrier between a catalog and an admission."""

    port: ScriptedPort
    catalog: Catalog
    admission: Admission
    barrier: Barrier
    scope: Scope
    notes: Notes


def on_bench(test: Callable[[Bench], Coroutine[Any, Any, None]], **answers: list[Any]) -> None:
    """Run a test's dialogue with a barrier."""

    async def main(loop: VirtualLoop) -> None:
        port, notes = ScriptedPort(**answers), Notes()
        crashes: list[object] = []
        scope = Scope(lambda *crash: crashes.append(crash))
        catalog = Catalog(port, CatalogSettings(), clock=loop.time, observer=notes)
        admission = Admission(AdmissionSettings(), WakeSettings(), clock=loop.time)
        barrier = Barrier(port, catalog, admission, scope=scope, observer=notes)
        await test(Bench(port, catalog, admission, barrier, scope, notes))
        await scope.close()
        await catalog.close()
        assert not crashes and not barrier._answering

    run(main)


PAUSING = sandbox(5, State.PAUSING)


def test_the_answer_is_what_is_in_flight() -> None:
    """Exchanges count, tunnels and waiting ones do not; each version is answered once."""

    async def dialogue(bench: Bench) -> None:
        bench.admission.enter("sb")
        bench.admission.enter("sb")
        bench.admission.become_tunnel("sb")
        bench.admission.park("sb", "g")
        bench.catalog.apply(PAUSING)
        bench.catalog.hear_change(PAUSING)
        await asyncio.sleep(1)
        bench.catalog.apply(sandbox(6))
        bench.catalog.apply(grant())
        bench.catalog.apply(sandbox(7, State.PAUSING))
        await asyncio.sleep(1)
        assert bench.port.calls == [("ack", "sb", 5, 1), ("ack", "sb", 7, 1)]

    on_bench(dialogue, ack=[None])


def test_sandboxes_never_served_are_answered_too() -> None:
    """The control plane waits for every live edge."""

    async def dialogue(bench: Bench) -> None:
        bench.catalog.hear_change(PAUSING)
        await asyncio.sleep(1)
        assert bench.port.calls == [("ack", "sb", 5, 0)]

    on_bench(dialogue, ack=[None])


def test_a_lost_answer_is_repeated_and_counted_anew() -> None:
    """What was in flight at the first attempt may be over at the second."""

    async def dialogue(bench: Bench) -> None:
        bench.admission.enter("sb")
        bench.catalog.apply(PAUSING)
        await asyncio.sleep(0.01)
        bench.admission.leave("sb")
        await asyncio.sleep(5)
        assert bench.port.calls == [("ack", "sb", 5, 1), ("ack", "sb", 5, 0), ("ack", "sb", 5, 0)]

    on_bench(dialogue, ack=[DOWN, DOWN, None])


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED, State.DESTROYED])
def test_an_answer_nobody_waits_for_is_given_up(state: State) -> None:
    """Once the record has moved on, its barrier is history."""

    async def dialogue(bench: Bench) -> None:
        bench.catalog.apply(PAUSING)
        await asyncio.sleep(0.01)
        bench.catalog.apply(sandbox(6, state))
        await asyncio.sleep(30)
        assert bench.port.count("ack") == 1

    on_bench(dialogue, ack=[DOWN])


def test_a_newer_barrier_takes_over_from_an_older_one() -> None:
    """The answer under way to the older version neither repeats nor hides the newer one's."""

    async def dialogue(bench: Bench) -> None:
        bench.catalog.apply(PAUSING)
        await asyncio.sleep(0.1)
        bench.catalog.apply(sandbox(7, State.PAUSING))
        await asyncio.sleep(5)
        assert bench.port.calls == [("ack", "sb", 5, 0), ("ack", "sb", 7, 0), ("ack", "sb", 7, 0)]

    on_bench(dialogue, ack=[after(1, DOWN), DOWN, None])


def test_a_deaf_control_plane_is_not_answered_for_ever() -> None:
    """After so many attempts the control plane is left to its own bound, and that is told."""

    async def dialogue(bench: Bench) -> None:
        bench.catalog.apply(PAUSING)
        await asyncio.sleep(60)
        assert bench.port.count("ack") == ATTEMPTS
        assert "ack_given_up" in bench.notes.names()

    on_bench(dialogue, ack=[DOWN])


def test_nothing_is_answered_while_shutting_down() -> None:
    """A record that arrives after the scope was closed starts nothing."""

    async def dialogue(bench: Bench) -> None:
        await bench.scope.close()
        bench.catalog.apply(PAUSING)
        await asyncio.sleep(1)
        assert bench.port.calls == []

    on_bench(dialogue)


def test_closing_in_mid_answer_leaves_nothing() -> None:
    """Answers under way end with the scope, begun or not."""

    async def dialogue(bench: Bench) -> None:
        bench.catalog.apply(PAUSING)
        await asyncio.sleep(0.1)

    on_bench(dialogue, ack=[after(5, None)])
