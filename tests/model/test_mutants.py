"""The model can fail: each deliberately broken part is caught by an invariant."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from plane import Faults, Plane
from test_turmoil import STORMS, history
from world import Parts

from edge.core.records import SandboxRecord, State
from edge.wake.admission import Admission
from edge.wake.catalog import Catalog
from edge.wake.wakes import Wakes


class LastComesWins(Catalog):
    """No comparison of versions."""

    def _supersede(self, entry: Any, record: Any) -> bool:
        entry.version = record.version - 1
        return super()._supersede(entry, record)


class DeafWhilePending(Catalog):
    """A change heard while a look-up is under way is overwritten by its older answer."""

    def _overtake(self, shelf: Any, record: Any) -> None:
        pass


class NeverInDoubt(Catalog):
    """A gap in the changes is taken for nothing."""

    def doubt_everything(self) -> None:
        pass


class ConnectedIsCaughtUp(Catalog):
    """Any word from the watch counts as a heartbeat, and a lost connection is not noticed."""

    def heartbeat_age(self) -> float:
        return 0.0

    def grant(self, grant_id: str) -> Any:
        self._belief.prove()
        return super().grant(grant_id)


class NoStaleLimit(Catalog):
    """Records are believed for ever."""

    def __init__(self, *args: Any, **how: Any) -> None:
        super().__init__(*args, **how)
        self._belief._within_limit = lambda entry, now: True  # type: ignore[method-assign]


class ForgetsAFailure(Catalog):
    """An answer that predates a doubt makes its entry sure."""

    def _land(
        self, shelf: Any, key: str, answer: Any, pending: Any, began: float, epoch: int
    ) -> None:
        super()._land(shelf, key, answer, pending, began, self._epoch)


class WakeOfTheCaller(Wakes):
    """The wake is bound to the task of the one who began it."""

    async def settle(self, record: SandboxRecord, **how: Any) -> Any:
        before = set(self._scope._tasks)
        try:
            return await super().settle(record, **how)
        except asyncio.CancelledError:
            for task in self._scope._tasks - before:
                if task.get_name() == f"wake {record.id}":
                    task.cancel()
            raise


class NobodyIsTold(Wakes):
    """The end of a wake releases nobody."""

    def _end(self, wake: Any, problem: Any) -> None:
        self._wakes.pop(wake.paused.id, None)


class ResumesWhateverItIs(Plane):
    """A control plane without compare-and-resume."""

    def _may_launch(self, record: SandboxRecord, paused_incarnation: int) -> bool:
        return record.state is not State.DESTROYED


class CountsNothing(Admission):
    """The pause barrier is told that nothing is in flight."""

    def in_flight(self, sandbox_id: str) -> int:
        return 0


REPLAYED = Faults(duplicate=0.6, delay=0.2)
DROPPED = Faults(drop=0.4)
RESYNCED = Faults(cut=0.2, resync=0.8, slow=0.5)

MUTANTS = {
    "last-comes-wins": (Parts(catalog=LastComesWins), REPLAYED, 0.0),
    "deaf-while-pending": (Parts(catalog=DeafWhilePending), STORMS["slow"], 0.0),
    "never-in-doubt": (Parts(catalog=NeverInDoubt), DROPPED, 0.0),
    "connected-is-caught-up": (Parts(catalog=ConnectedIsCaughtUp), STORMS["calm"], 9.0),
    "no-stale-limit": (Parts(catalog=NoStaleLimit), STORMS["calm"], 9.0),
    "old-answer-after-doubt": (Parts(catalog=ForgetsAFailure), RESYNCED, 0.0),
    "resumes-whatever-it-is": (Parts(plane=ResumesWhateverItIs), STORMS["failing"], 0.0),
    "counts-nothing": (Parts(admission=CountsNothing), STORMS["calm"], 0.0),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_invariants_catch_a_mutant(name: str) -> None:
    """A broken part is caught in a few hundred histories that the real part survives."""
    parts, faults, blackout = MUTANTS[name]
    for seed in range(300):
        if history(seed, faults, parts, blackout).complaints:
            break
    else:
        pytest.fail("no invariant was violated")
    print(f"{name}: caught by history {seed}")
    assert not history(seed, faults, None, blackout).complaints
