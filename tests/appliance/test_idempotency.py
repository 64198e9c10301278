"""Idempotency keys: one answer per key, also at the same time, for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from edge.appliance.idempotency import LIFETIME, Idempotency, Keep
from edge.appliance.problems import ApiError
from edge.appliance.store import Store
from edge.appliance.tasks import Scope


class Maker:
    """Counts what it made; fails while told to."""

    def __init__(self) -> None:
        self.made = 0
        self.fail = False

    async def make(self, keep: Keep[int]) -> int:
        await asyncio.sleep(0)
        if self.fail:
            raise ValueError("not now")
        self.made += 1
        keep(self.made)
        return self.made


@pytest.fixture
async def scope() -> AsyncIterator[Scope]:
    """A scope that is closed after the test."""
    scope = Scope(lambda *_: None)
    yield scope
    await scope.close()


async def test_concurrent_and_later_repeats_get_one_answer(scope: Scope, store: Store) -> None:
    """Ten callers at once and one later: made once."""
    maker, keys = Maker(), Idempotency[int](scope, store, lambda: 0.0)
    calls = (keys.once("k", b"body", maker.make) for _ in range(10))
    assert await asyncio.gather(*calls) == [1] * 10
    assert await keys.once("k", b"body", maker.make) == 1
    assert await keys.once("other", b"body", maker.make) == 2


async def test_another_body_is_a_conflict(scope: Scope, store: Store) -> None:
    """A key belongs to the request it came with first."""
    maker, keys = Maker(), Idempotency[int](scope, store, lambda: 0.0)
    await keys.once("k", b"body", maker.make)
    with pytest.raises(ApiError) as refused:
        await keys.once("k", b"another", maker.make)
    assert refused.value.problem.code == "idempotency_conflict"
    assert refused.value.problem.status == 409


async def test_a_failure_is_shared_and_then_forgotten(scope: Scope, store: Store) -> None:
    """All who waited hear of it; the next one tries anew."""
    maker, keys = Maker(), Idempotency[int](scope, store, lambda: 0.0)
    maker.fail = True
    calls = (keys.once("k", b"body", maker.make) for _ in range(3))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [str(result) for result in results] == ["not now"] * 3
    maker.fail = False
    assert await keys.once("k", b"body", maker.make) == 1


async def test_keys_expire_and_are_bounded(scope: Scope, store: Store) -> None:
    """An old key is free again, and the number of keys has an end."""
    now = 0.0
    maker, keys = Maker(), Idempotency[int](scope, store, lambda: now, max_keys=3)
    await keys.once("k", b"body", maker.make)
    now = LIFETIME
    assert await keys.once("k", b"another", maker.make) == 2
    for number in range(10):
        await keys.once(f"k{number}", b"", maker.make)
    assert len(keys) <= 3


async def test_a_caller_who_leaves_does_not_cancel(scope: Scope, store: Store) -> None:
    """The answer is there for the one who comes back."""
    maker, keys = Maker(), Idempotency[int](scope, store, lambda: 0.0)
    caller = asyncio.create_task(keys.once("k", b"body", maker.make))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert await keys.once("k", b"body", maker.make) == 1
    assert maker.made == 1


async def test_an_answer_outlives_a_restart(scope: Scope, store: Store) -> None:
    """What was kept of it, under its key and fingerprint, for the rest of its time; any bytes may be a key."""
    now = 1000.0
    maker, key = Maker(), "k\udcff"
    before = Idempotency[int](scope, store, lambda: now)
    assert await before.once(key, b"body", maker.make) == 1
    now += LIFETIME - 1
    after = Idempotency[int](scope, store, lambda: now)
    assert await after.once(key, b"body", maker.make) == 1
    with pytest.raises(ApiError, match="idempotency_conflict"):
        await after.once(key, b"another", maker.make)
    now += 1
    assert await after.once(key, b"another", maker.make) == 2
    assert store.read("SELECT count(*) FROM creates") == [(1,)]


async def test_what_was_not_made_is_not_remembered(scope: Scope, store: Store) -> None:
    """A failure, and one that is still under way when everything ends."""
    maker, keys = Maker(), Idempotency[int](scope, store, lambda: 0.0)
    maker.fail = True
    with pytest.raises(ValueError, match="not now"):
        await keys.once("failed", b"", maker.make)

    async def never(_: Keep[int]) -> int:
        await asyncio.Event().wait()
        return 0

    waiting = asyncio.create_task(keys.once("under way", b"", never))
    await asyncio.sleep(0)
    assert len(Idempotency[int](scope, store, lambda: 0.0)) == 0
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
