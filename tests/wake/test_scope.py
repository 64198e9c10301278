"""The scope: tasks that outlive their callers and not their owner."""

from __future__ import annotations

import asyncio

import pytest

from edge.wake.scope import Scope, ScopeClosed


async def test_a_crash_is_told_and_a_cancellation_is_not() -> None:
    """`on_crash` hears the name and the exception; being cancelled is no crash."""
    crashes: list[tuple[str, BaseException]] = []
    scope = Scope(lambda name, error: crashes.append((name, error)))
    error = ValueError("bad")

    async def crash() -> None:
        raise error

    broken = scope.spawn(crash(), name="broken")
    cancelled = scope.spawn(asyncio.sleep(60), name="cancelled")
    cancelled.cancel()
    await asyncio.wait((broken, cancelled))
    await asyncio.sleep(0)
    assert crashes == [("broken", error)]
    assert len(scope) == 0


async def test_close_waits_for_clean_up() -> None:
    """Closing cancels, and returns only when what tasks do on their way out is done."""
    cleaned: list[str] = []
    scope = Scope(lambda *_: None)

    async def careful() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.001)
            cleaned.append("careful")

    scope.spawn(careful(), name="careful")
    await asyncio.sleep(0)
    await scope.close()
    assert cleaned == ["careful"]
    await scope.close()


async def test_a_task_that_catches_one_cancellation_is_cancelled_again() -> None:
    """A task cannot outlive its scope by swallowing a cancellation."""
    scope = Scope(lambda *_: None)

    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass

    task = scope.spawn(stubborn(), name="stubborn")
    await asyncio.sleep(0)
    await scope.close()
    assert task.done()


async def test_nothing_starts_after_close() -> None:
    """A late spawn raises, and its coroutine is closed (a warning would fail this test)."""
    scope = Scope(lambda *_: None)
    await scope.close()
    assert scope.closed
    with pytest.raises(ScopeClosed):
        scope.spawn(asyncio.sleep(0), name="late")


async def test_a_result_is_given() -> None:
    """Who holds the task may await it."""
    scope = Scope(lambda *_: None)
    assert await scope.spawn(asyncio.sleep(0, "done"), name="quick") == "done"
