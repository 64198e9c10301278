"""The model bites: each way here to break the code, or what it rests on, is caught by the invariant named beside it.

The same histories pass with nothing broken (`test_nothing_is_caught_where_nothing_is_broken`, and the other test
files of this folder).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest

from edge.core.records import State
from edge.state.port import Heartbeat, Unavailable
from edge.state.redis import Publisher, RedisStatePort, port
from edge.state.redis.changes import Changes, Shard
from edge.state.redis.connect import RedisGone
from edge.state.redis.following import Following
from edge.state.redis.lease import Lease
from edge.wake.admission import Admission
from edge.wake.barrier import Barrier
from edge.wake.catalog import Catalog
from edge.wake.wakes import Wakes
from tests.model.fleet import control
from tests.model.fleet.control import Plane
from tests.model.fleet.scenarios import WEATHERS, endings, run, storm, wake
from tests.model.fleet.store import Store
from tests.model.fleet.test_every_step import STRIKES, late
from tests.model.fleet.world import Parts, World

# --- Histories in which a mutant shows ----------------------------------------------------------------

History = Callable[[int, Parts], list[str]]


def _complaints(weather: str, history: Any, edges: int = 2) -> History:
    return lambda seed, parts: (
        run(seed, history, edge_count=edges, weather=WEATHERS[weather], parts=parts).complaints
    )


def _struck(what: str) -> History:
    """A wake in which one actor is struck at the step of the seed's number."""
    actor, strike, bound = STRIKES[what]

    def play(seed: int, parts: Parts) -> list[str]:
        world = run(0, lambda one: wake(one, actor, seed, strike), edge_count=3, parts=parts)
        return world.complaints + [f"late: {text}" for text in late(world, bound)]

    return play


def _handed_over(seed: int, parts: Parts) -> list[str]:
    """The leader stops, another takes over, the leader goes on; the control plane is slow meanwhile."""

    def strike(world: World) -> None:
        world.resuming = (3.0, 3.5)
        world.stop(world.edges[0].actor, 2.5)

    return run(
        0, lambda one: wake(one, "edge-0", seed, strike), edge_count=3, parts=parts
    ).complaints


STORM, LOSSY = _complaints("all", storm, 3), _complaints("lossy", storm, 3)
WAKE = _complaints("calm", wake, 3)
QUIET = _complaints("calm", lambda world: storm(world, strikes=0), 3)
GARBLED = _complaints("garbled", lambda world: endings(world, redis=False))


async def _deaf_storm(world: World) -> None:
    world.stop(world.redis, 300.0)
    await storm(world, strikes=0)


DIRECT = _complaints("garbled", _deaf_storm)


def _endings(trouble: str, weather: str = "calm", known: float = 0.7) -> History:
    return _complaints(weather, lambda world: endings(world, trouble=trouble, known=known))


# --- Scripts ------------------------------------------------------------------------------------------


def _keeps_whosever_it_is(self: Store, keys: Any, said: list[bytes]) -> int:
    if self.get(keys[0]) is None:
        return 0
    self.until[keys[0]] = self.clock() + int(said[1])
    return 1


def _leaves_whosever_it_is(self: Store, keys: Any, said: list[bytes]) -> int:
    self.delete(keys[0])
    if said[1]:
        self.set(keys[0], said[1], int(said[2]))
    return 1


# --- The adapter --------------------------------------------------------------------------------------


def _one_token_for_all(self: Lease, *how: Any) -> None:
    LEASE(self, *how)
    self._token = "0" * 16


class _Patient:
    """Of no record it is said that it is still paused."""

    PAUSED = None


LEASE = Lease.__init__


def _any_entry_is_the_next(self: Shard, entry_id: bytes) -> bool:
    self.position = entry_id
    return True


class BelievesForEver(RedisStatePort):
    """What Redis holds is believed, whether or not its changes are followed."""

    @property
    def _believed(self) -> bool:
        return True


class BelievesWhatItDoesNotFollow(RedisStatePort):
    """Redis is read while the control plane's own changes are followed, which may be ahead of it."""

    @property
    def _believed(self) -> bool:
        beaten = self._changes.beaten_at
        return beaten is not None and self._clock() - beaten <= port.BELIEVED


async def _goes_back_uncounted(self: Following) -> bool:
    """One heartbeat and a word of its own are enough for an edge to leave the control plane."""
    try:
        async with aclosing(self._changes.follow(again=True)) as events:
            async for event in events:
                if isinstance(event, Heartbeat):
                    await self._join()
                    return True
    except Unavailable:
        pass
    return False


class GivesUp(Publisher):
    """What could not be published is forgotten, and heartbeats go on."""

    async def _flush(self) -> None:
        try:
            await super()._flush()
        except RedisGone:
            self._pending.clear()


class BeatsBeforeItFlushes(Publisher):
    """A heartbeat says that everything is told, while the newest is still waiting."""

    async def _flush(self) -> None:
        if self._clock() > getattr(self, "next", 0.0):
            self.next = self._clock() + 4.0
            await super()._flush()

    async def _wait(self) -> None:
        await asyncio.sleep(0.05)


# --- The edge -----------------------------------------------------------------------------------------


class OlderIsApplied(Catalog):
    """Of two records the one that comes last wins."""

    def _supersede(self, entry: Any, record: Any) -> bool:
        entry.version = record.version - 1
        return super()._supersede(entry, record)


class ForgetsTheTombstone(Catalog):
    """Of a record that is gone nothing stays, so a late change brings it back."""

    def _land(self, shelf: Any, key: str, answer: Any, *how: Any) -> None:
        super()._land(shelf, key, answer, *how)
        if answer is None and shelf.entries.get(key).record is None:
            shelf.entries.get(key).version = 0


class NoLookAfterSubscribing(Catalog):
    """A change between the look and the wait is slept through."""

    async def changed(self, sandbox_id: str, version: int) -> Any:
        await asyncio.sleep(0.03)
        with self._signals.subscribe(sandbox_id) as event:
            await event.wait()
        return self.sandbox(sandbox_id)


class AnswersBeforeItHolds(Catalog):
    """The barrier hears of a change before new requests are held because of it."""

    def _hear(self, shelf: Any, record: Any) -> None:
        self._tell(record)
        asyncio.get_running_loop().call_later(0.1, super()._hear, shelf, record)


class AnswersBeforeItDrains(Barrier):
    """What is in flight is not counted."""

    async def _answer(self, sandbox_id: str, version: int) -> None:
        self._admission = Admission.__new__(Admission)
        self._admission._rooms = {}
        await super()._answer(sandbox_id, version)


class NobodyIsTold(Wakes):
    """The end of a wake releases nobody."""

    def _end(self, wake: Any, problem: Any) -> None:
        self._wakes.pop(wake.paused.id, None)


# --- The control plane --------------------------------------------------------------------------------


class ResumesWhateverItIs(Plane):
    """No comparison of incarnations."""

    def may_launch(self, record: Any, paused_incarnation: int) -> bool:
        return record.state is not State.DESTROYED


# --- The table ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """What is broken, in which histories it shows, and what complains."""

    history: History
    caught_by: str
    parts: Parts = field(default_factory=Parts)
    patch: tuple[Any, str, Any] | None = None
    first: int = 0


MUTANTS: dict[str, Mutant] = {
    "KEEP does not compare the token": Mutant(
        _handed_over,
        "a_lease_is_its_holders",
        first=15,
        patch=(Store, "keep", _keeps_whosever_it_is),
    ),
    "LEAVE does not compare the token": Mutant(
        _handed_over,
        "a_lease_is_its_holders",
        first=15,
        patch=(Store, "leave", _leaves_whosever_it_is),
    ),
    "every edge has the same token": Mutant(
        WAKE, "one_call_per_wake", patch=(Lease, "__init__", _one_token_for_all)
    ),
    "a leader that does not get through is waited for": Mutant(
        _struck("edge cut off from the control plane"),
        "late",
        patch=(port, "State", _Patient),
        first=15,
    ),
    "gaps are nothing": Mutant(
        _endings("trimmed", "slow"),
        "no_revoked_grant_past_the_bound",
        patch=(Shard, "step", _any_entry_is_the_next),
    ),
    "Redis is believed without being followed": Mutant(
        _endings("publisher cut off"),
        "no_revoked_grant_past_the_bound",
        Parts(port=BelievesForEver),
    ),
    "Redis is read while something else is followed": Mutant(
        LOSSY, "what_was_heard_is_believed", Parts(port=BelievesWhatItDoesNotFollow), first=15
    ),
    "back to Redis before the publisher counts us": Mutant(
        LOSSY,
        "a_barrier_cuts_nothing",
        patch=(Following, "_redis_is_back", _goes_back_uncounted),
        first=830,
    ),
    "another server need not have it all": Mutant(
        _endings("failed over", known=0.0),
        "what_was_heard_is_believed",
        patch=(Changes, "reached", lambda *_: True),
    ),
    "the publisher gives up": Mutant(
        _endings("publisher cut off"), "no_revoked_grant_past_the_bound", Parts(publisher=GivesUp)
    ),
    "heartbeats overtake changes": Mutant(
        _endings("edge stopped"),
        "no_revoked_grant_past_the_bound",
        Parts(publisher=BeatsBeforeItFlushes),
    ),
    "older records are applied": Mutant(
        DIRECT, "what_was_heard_is_believed", Parts(catalog=OlderIsApplied)
    ),
    "the tombstone is forgotten": Mutant(
        GARBLED, "what_is_gone_stays_gone", Parts(catalog=ForgetsTheTombstone)
    ),
    "no look after subscribing": Mutant(
        QUIET, "followers_go_on_at_once", Parts(catalog=NoLookAfterSubscribing)
    ),
    "acks before new requests are held": Mutant(
        STORM, "a_barrier_cuts_nothing", Parts(catalog=AnswersBeforeItHolds), first=38
    ),
    "acks before it has drained": Mutant(
        STORM, "a_barrier_cuts_nothing", Parts(barrier=AnswersBeforeItDrains)
    ),
    "nobody is told of the end of a wake": Mutant(
        _struck("edge blinks"), "late", Parts(wakes=NobodyIsTold)
    ),
    "no compare-and-resume": Mutant(
        STORM, "one_incarnation_per_wake", Parts(plane=ResumesWhateverItIs)
    ),
    "a control plane that starts thinks that there are no edges": Mutant(
        STORM, "a_barrier_cuts_nothing", patch=(control, "REJOINING", 0.0), first=195
    ),
}


def _caught(mutant: Mutant) -> Iterator[tuple[int, str]]:
    with pytest.MonkeyPatch.context() as patch:
        if mutant.patch is not None:
            patch.setattr(*mutant.patch)
        for seed in range(mutant.first, mutant.first + 150):
            for complaint in mutant.history(seed, mutant.parts):
                if complaint.startswith(mutant.caught_by):
                    yield seed, complaint


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(name: str) -> None:
    """By the invariant that says what it breaks."""
    mutant = MUTANTS[name]
    found = next(_caught(mutant), None)
    assert found is not None, f"{mutant.caught_by} has nothing to say of: {name}"
    seed, complaint = found
    print(f"{name}: history {seed}, {complaint}")
    # The same history without the mutant: it is the mutant that is complained of.
    assert not mutant.history(seed, Parts())
