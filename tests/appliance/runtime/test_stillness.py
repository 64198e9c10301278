"""Who works and who needs it still take turns."""

from __future__ import annotations

import asyncio

import pytest

from edge.appliance.runtime.stillness import Stillness


async def test_stillness_waits_for_work_and_holds_up_what_comes() -> None:
    """In order: what was begun ends, then it is still, then what came meanwhile goes on."""
    stillness = Stillness()
    happened: list[str] = []
    begun, end = asyncio.Event(), asyncio.Event()

    async def early() -> None:
        async with stillness.work():
            begun.set()
            await end.wait()
            happened.append("early")

    async def still() -> None:
        await begun.wait()
        async with stillness.still():
            happened.append("still")
            await asyncio.sleep(0)
            happened.append("still")

    async def late() -> None:
        await begun.wait()
        await asyncio.sleep(0)
        end.set()
        async with stillness.work():
            happened.append("late")

    async def passing() -> None:
        await begun.wait()
        await asyncio.sleep(0)
        await stillness.passed()
        happened.append("passed")

    await asyncio.gather(early(), still(), late(), passing())
    assert happened[:3] == ["early", "still", "still"]
    assert sorted(happened[3:]) == ["late", "passed"]


async def test_whoever_gives_up_leaves_it_as_it_was() -> None:
    """A wait that is cancelled, and work that fails, hold nobody up."""
    stillness = Stillness()
    async with stillness.work():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0), stillness.still():
                raise AssertionError("it is not still")
        await stillness.passed()
    with pytest.raises(ZeroDivisionError):
        async with stillness.work():
            raise ZeroDivisionError
    async with stillness.still():
        pass
    async with stillness.work(), stillness.work():
        pass
