"""Background loops: one that crashes is told of and begun again; none outlives its edge."""

from __future__ import annotations

import asyncio

import pytest

from edge.ops import background as module
from edge.ops.background import Background


class Loop:
    """A loop that fails as often as it is told, and then runs on."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.begun = 0
        self.goes_on = asyncio.Event()
        self.cancelled = False

    async def __call__(self) -> None:
        self.begun += 1
        if self.begun <= self.failures:
            raise RuntimeError(f"mistake {self.begun}")
        self.goes_on.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise


async def test_a_loop_that_crashes_is_told_of_and_begun_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As often as it does, and beside it the others go on; all of them end with `close`."""
    monkeypatch.setattr(module, "RESTART", 0.001)
    crashes: list[str] = []
    background = Background(lambda name, error: crashes.append(f"{name}: {error}"))
    sound, broken = Loop(0), Loop(2)
    background.keep("sound", sound)
    background.keep("broken", broken)
    async with asyncio.timeout(20):
        await sound.goes_on.wait()
        await broken.goes_on.wait()
    assert crashes == ["broken: mistake 1", "broken: mistake 2"]
    assert (sound.begun, broken.begun) == (1, 3)
    await background.close()
    assert sound.cancelled and broken.cancelled


async def test_a_loop_that_has_nothing_to_do_returns() -> None:
    """Keys from the settings alone are never refreshed: that is no crash, and not tried again."""
    crashes: list[object] = []
    returned: list[str] = []

    async def nothing() -> None:
        returned.append("once")

    background = Background(lambda *crash: crashes.append(crash))
    background.keep("nothing", nothing)
    await asyncio.sleep(0)
    await background.close()
    assert returned == ["once"] and not crashes
