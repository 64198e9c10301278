"""A fleet of real processes, one of which is killed, stopped or emptied while a sandbox is being woken.

Whoever it is: nobody gets a wrong answer or none, and one new incarnation comes of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from edge.core.records import State
from tests.fleet.world import AWAY, EDGES, STOPPED, Tally, World, ask, herd
from tests.flows.scriptedapp import ScriptedApp

HERD = 60


@pytest.fixture
async def app() -> AsyncIterator[ScriptedApp]:
    """The app in every sandbox: an echo."""
    async with ScriptedApp() as one:
        yield one


async def test_a_thousand_requests_over_three_edges_wake_one_sandbox_once(
    world: World, app: ScriptedApp, report: list[str]
) -> None:
    """A thousand right answers, after one resume call; not one of them was refused on the way."""
    await world.whole()
    box, tally = await world.sandbox(app), Tally()
    began = time.monotonic()
    await world.tell(gate=False)
    answers = await herd(world, box, 1000, tally)
    await world.tell(gate=True)
    await answers
    report.append(
        tally.line("a thousand requests", world.incarnations(box), time.monotonic() - began)
    )
    assert (tally.right, tally.wrong, tally.lost) == (1000, [], 0)
    assert not tally.refused and not tally.broke
    assert world.incarnations(box) == 1
    assert world.calls(sandbox_id=box.id)["resume"] <= len(
        EDGES
    )  # one, unless the machine is very slow


async def mend(world: World, victim: str, how: str, away: float = AWAY) -> None:
    """Undo it, a moment later: how long it is away is what is being tested."""
    if how != "flushed":
        await asyncio.sleep(away)
    await world.undo(victim, how)


@pytest.mark.parametrize(
    ("victim", "how"),
    [
        ("edge-2", "killed"),
        ("edge-2", "stopped"),
        ("redis", "killed"),
        ("redis", "stopped"),
        ("redis", "flushed"),
        ("plane", "killed"),
        ("plane", "stopped"),
    ],
)
async def test_in_the_middle_of_a_wake(
    world: World, app: ScriptedApp, report: list[str], victim: str, how: str
) -> None:
    """The leading edge, Redis or the control plane: everybody is answered right, after one new incarnation."""
    await world.whole()
    box, tally = await world.sandbox(app), Tally()
    await world.tell(gate=False)
    answers = await herd(world, box, HERD, tally, first="edge-2")
    name = f"{'the leading edge' if victim == 'edge-2' else victim} {how}, waking"
    struck = time.monotonic()
    await world.strike(victim, how)
    if victim == "edge-2":
        await world.resuming(box, 2)  # somebody else takes over
        name += f", replaced {time.monotonic() - struck:.1f} s after"
    if victim != "plane":
        await world.tell(gate=True)
    if victim == "redis":
        await answers  # nobody waits for Redis
    await mend(world, victim, how, STOPPED if how == "stopped" else AWAY)
    mended = time.monotonic()
    if victim == "plane" and how == "stopped":
        await world.tell(gate=True)  # what was killed begins with an open one
    await answers
    await world.whole()
    healed = time.monotonic() - mended
    report.append(tally.line(name, world.incarnations(box), healed))
    assert (tally.right, tally.wrong, tally.lost) == (HERD, [], 0)
    assert world.incarnations(box) == 1
    if victim != "edge-2" or how != "killed":
        assert not tally.broke
    assert set(tally.broke) <= {"edge-2"}
    if victim != "plane":
        assert not tally.refused


@pytest.mark.parametrize(
    ("victim", "how"),
    [
        ("edge-2", "killed"),
        ("redis", "killed"),
        ("redis", "stopped"),
        ("redis", "flushed"),
        ("plane", "killed"),
        ("plane", "stopped"),
    ],
)
async def test_while_sandboxes_run(
    world: World, app: ScriptedApp, report: list[str], victim: str, how: str
) -> None:
    """They are served on all the time; what it costs the control plane is bounded by what is in use."""
    await world.whole()
    boxes = [await world.sandbox(app, State.RUNNING) for _ in range(5)]
    for name in EDGES:
        await asyncio.gather(
            *(ask(world, box, "/", (name,), Tally(), box.token()) for box in boxes)
        )
    place, tally, over = world.place, Tally(), asyncio.Event()

    async def visit(name: str, number: int) -> None:
        box = boxes[number]
        token = box.token()
        while not over.is_set():
            await ask(world, box, f"/{tally.sent}", (name, *EDGES), tally, token)
            await asyncio.sleep(0.02)

    visits = [asyncio.create_task(visit(name, n)) for name in EDGES for n in range(len(boxes))]
    struck = time.monotonic()
    await world.strike(victim, how)
    await mend(world, victim, how)
    mended = time.monotonic()
    await world.whole()
    healed = time.monotonic() - mended
    over.set()
    await asyncio.gather(*visits)
    report.append(tally.line(f"{victim} {how}, serving", 0, healed))
    assert tally.right == tally.sent and not tally.wrong and not tally.lost and not tally.refused
    assert set(tally.broke) <= ({victim} if victim in EDGES else set())
    asked = world.calls(place)
    # Each doubt costs each edge one question per record in use; and a grant is asked for once a second in suspense.
    records = 2 * len(boxes) * len(EDGES)
    assert asked["sandbox"] + asked["grant"] <= records * (2 + mended + healed - struck), asked
    assert not asked["resume"]
