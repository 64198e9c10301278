"""Signals: nobody who subscribed is missed, and nothing is left of those who went."""

from __future__ import annotations

import asyncio

from edge.wake.signals import Signals


async def test_release_reaches_all_who_subscribed() -> None:
    """A release between subscribing and waiting is not missed."""
    signals = Signals()
    with signals.subscribe("a") as first, signals.subscribe("a") as second:
        assert "a" in signals and list(signals) == ["a"]
        signals.release("a")
        await asyncio.wait_for(asyncio.gather(first.wait(), second.wait()), 1)
    assert len(signals) == 0


async def test_a_release_is_for_the_present() -> None:
    """Who subscribes after a release waits for the next one, even while earlier ones are leaving."""
    signals = Signals()
    with signals.subscribe("a"):
        signals.release("a")
        with signals.subscribe("a") as later:
            assert not later.is_set()
            signals.release_all()
            assert later.is_set()
    assert len(signals) == 0


async def test_who_leaves_leaves_nothing() -> None:
    """A waiter that is cancelled is forgotten; the other one stays subscribed."""
    signals = Signals()

    async def wait() -> None:
        with signals.subscribe("a") as event:
            await event.wait()

    one, other = asyncio.create_task(wait()), asyncio.create_task(wait())
    await asyncio.sleep(0)
    one.cancel()
    await asyncio.wait((one,))
    assert len(signals) == 1
    signals.release("a")
    await asyncio.wait_for(other, 1)
    assert len(signals) == 0
    signals.release("nobody waits")
