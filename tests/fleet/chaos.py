"""``make chaos``: a fleet under traffic for minutes, while its parts are killed, stopped and emptied at random.

Stricter than any single test in one way, since troubles overlap, and laxer in another: an ordered pause may cut a
request, which is asked again. Ends with 1, and with the seed that brings it back, at the first wrong or lost answer.
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from edge.core.records import State
from tests.fleet.world import EDGES, Tally, World, ask
from tests.flows.scriptedapp import ScriptedApp
from tests.flows.stage import Preview

ROUND = 20.0
"""Seconds of a round, after which everything is mended and has to heal."""
BOXES, VISITORS = 8, 4
VICTIMS = [(victim, how) for victim in (*EDGES, "redis", "plane") for how in ("killed", "stopped")]
VICTIMS.append(("redis", "flushed"))


async def storm(world: World, rng: random.Random) -> Tally:
    """One round."""
    tally, over = Tally(cut_by_pauses=True), asyncio.Event()
    async with ScriptedApp() as app:
        boxes = [
            await world.sandbox(app, rng.choice((State.PAUSED, State.RUNNING)))
            for _ in range(BOXES)
        ]
        tokens = {box.id: box.token() for box in boxes}

        async def visit(name: str, number: int) -> None:
            while not over.is_set():
                box = rng.choice(boxes)
                path = f"/{name}/{number}/{tally.sent}"
                await ask(world, box, path, (name, *EDGES), tally, tokens[box.id])
                await asyncio.sleep(rng.uniform(0, 0.1))

        visits = [asyncio.create_task(visit(name, n)) for name in EDGES for n in range(VISITORS)]
        pauses = asyncio.create_task(pause(world, boxes, rng, over))
        ends = time.monotonic() + ROUND
        await asyncio.gather(
            *(trouble(world, kind, rng, ends) for kind in ("edge", "redis", "plane"))
        )
        mended = time.monotonic()
        await world.whole(120)
        print(f"healed {time.monotonic() - mended:.1f} s after the last trouble", flush=True)
        over.set()
        await asyncio.gather(*visits, pauses)
    return tally


async def trouble(world: World, kind: str, rng: random.Random, ends: float) -> None:
    """One kind of victim, one after the other."""
    while True:
        await asyncio.sleep(rng.uniform(0.5, 6))
        if time.monotonic() > ends:
            return
        victim, how = rng.choice([pair for pair in VICTIMS if pair[0].startswith(kind)])
        print(f"  {victim} {how}", flush=True)
        try:
            await world.strike(victim, how)
        except OSError:
            continue  # what is to be flushed is not there
        await asyncio.sleep(rng.choice((0.1, 1, 3, 6)) * rng.uniform(0.5, 1.0))
        await world.undo(victim, how)


async def pause(
    world: World, boxes: list[Preview], rng: random.Random, over: asyncio.Event
) -> None:
    """Put sandboxes to sleep, so that there are wakes."""
    while not over.is_set():
        await asyncio.sleep(rng.uniform(0.1, 0.6))
        try:
            async with asyncio.timeout(1):
                await world.tell(pause=rng.choice(boxes).id)
        except (OSError, aiohttp.ClientError, TimeoutError):
            pass  # the control plane is away


def main(minutes: float, seed: int) -> int:
    """Until the time is up, or something is wrong."""
    ends = time.monotonic() + 60 * minutes
    number = 0
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder, World(Path(folder)) as world:
        while time.monotonic() < ends:
            number += 1
            print(f"Round {number} (seed {seed})", flush=True)
            tally = asyncio.run(storm(world, random.Random(seed)))
            print(tally.line(f"round {number}", world.begun(), 0.0), flush=True)
            if tally.wrong or tally.lost or tally.right != tally.sent:
                print("\n".join(tally.wrong), f"seed {seed}", sep="\n")
                return 1
            seed += 1
    return 0


if __name__ == "__main__":
    sys.exit(
        main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(10**6))
    )
