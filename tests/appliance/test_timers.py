"""Timers: one per sandbox, the last setting counts."""

from __future__ import annotations

import asyncio

from virtual import VirtualLoop, run

from edge.appliance.timers import Timers


def test_the_last_setting_rings_once() -> None:
    """Setting again replaces, disarming and closing silence."""

    async def main(loop: VirtualLoop) -> None:
        rung: list[tuple[str, float]] = []
        start = loop.time()
        timers = Timers(lambda name: rung.append((name, loop.time() - start)))
        timers.arm("a", start + 5)
        timers.arm("a", start + 2)
        timers.arm("b", start + 1)
        timers.disarm("b")
        timers.disarm("never")
        await asyncio.sleep(10)
        assert rung == [("a", 2)]
        timers.arm("c", loop.time() + 1)
        timers.close()
        await asyncio.sleep(10)
        assert len(rung) == 1
        assert len(timers) == 0

    run(main)
