"""Tasks of the control plane: tracked, finished without their caller, ended with their owner."""

from __future__ import annotations

import asyncio

import pytest

from edge.appliance.tasks import Scope


async def test_a_shared_task_outlives_its_caller() -> None:
    """A caller that is cancelled does not take the work with it."""
    scope = Scope(lambda *_: None)
    go, done = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go.wait()
        done.set()

    caller = asyncio.create_task(scope.shared(work(), name="work"))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    go.set()
    await done.wait()
    await scope.close()


async def test_a_crash_is_told_and_a_cancellation_is_not() -> None:
    """The owner hears the name and the exception of a task that fails, of no other."""
    heard: list[tuple[str, str]] = []
    scope = Scope(lambda name, error: heard.append((name, str(error))))

    async def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await scope.shared(fail(), name="bad")
    waiting = scope.spawn(asyncio.Event().wait(), name="good")
    await scope.close()
    assert waiting.cancelled()
    assert heard == [("bad", "broken")]


async def test_a_closed_scope_takes_nothing() -> None:
    """After `close` a task is refused, and its coroutine does not warn that nobody awaited it."""
    scope = Scope(lambda *_: None)
    await scope.close()
    with pytest.raises(RuntimeError, match="shutting down"):
        scope.spawn(asyncio.sleep(0), name="late")
