"""Histories: a short one, in which one actor is struck at a chosen step, and long random ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tests.model.fleet.actors import ActorLoop, play
from tests.model.fleet.network import CALM, Weather
from tests.model.fleet.servers import in_place
from tests.model.fleet.world import BOXES, Client, Parts, World, outcome, settled

Strike = Callable[[World], None]


def run(seed: int, history: Callable[[World], Any], **how: Any) -> World:
    """Play one history."""

    async def main(loop: ActorLoop) -> World:
        world = World(loop, seed, **how)
        await settled(world)
        await history(world)
        return world

    with in_place():
        return play(main)


# --- Short: one wake by three edges ---------------------------------------------------------------


async def wake(world: World, actor: str = "", step: int = 0, strike: Strike | None = None) -> None:
    """A paused sandbox is asked for at every edge at once; one actor is struck before its ``step``-th step."""
    sandbox_id, grant_id = BOXES[0]
    world.order(lambda: world.plane.pause(sandbox_id, barrier=False))
    await asyncio.sleep(0.6)
    clients: list[Client] = []
    struck = world.network.actors.get(actor)
    if struck is not None and strike is not None:
        struck.strikes[struck.steps + step] = lambda: strike(world)
    before = {name: one.steps for name, one in world.network.actors.items()}
    began = world.loop.time()
    for edge in world.edges:
        clients += [world.client(sandbox_id, grant_id, edge) for _ in range(2)]
        if world.seed % 2 == 0 and edge is world.edges[0]:
            await asyncio.sleep(0.02)  # this one will have the lease
    while not all(one.task.done() or one.edge.actor.dead for one in clients):
        await asyncio.sleep(0.02)
        if world.loop.time() > began + 40:
            break
    world.steps = {
        name: one.steps - before.get(name, 0) for name, one in world.network.actors.items()
    }
    await asyncio.sleep(1.0)
    await world.finish()


# --- Long: anything ---------------------------------------------------------------------------------


async def storm(world: World, *, duration: float = 8.0, strikes: int = 3) -> None:
    """Random clients, pauses, a revocation, a destruction, and some strikes against anybody."""
    rng, plane, loop = world.rng, world.plane, world.loop

    for sandbox_id, grant_id in BOXES:
        for _ in range(rng.randint(2, 4)):
            at, barrier = rng.uniform(0.1, duration), rng.random() < 0.7
            loop.later(
                at,
                lambda s=sandbox_id, b=barrier: world.order(lambda: plane.pause(s, barrier=b)),
            )
            for _ in range(rng.randint(2, 5)):
                near = max(0.0, at + rng.gauss(0.2, 0.4))
                loop.later(near, world.client, sandbox_id, grant_id)
        for _ in range(6):
            loop.later(rng.uniform(0, duration + 4.0), world.client, sandbox_id, grant_id)
    for _ in range(rng.randint(0, 3)):
        loop.later(rng.uniform(0.2, duration), _leave, world)
    if rng.random() < 0.6:
        loop.later(rng.uniform(0.5, duration), world.order, lambda: plane.revoke("g_b"))
    if rng.random() < 0.2:
        loop.later(rng.uniform(0.5, duration), world.order, lambda: plane.destroy("sb_b"))
    for _ in range(strikes):
        loop.later(rng.uniform(0.0, duration), strike, world)
    await asyncio.sleep(duration + 6.0)
    if strikes or world.weather != CALM:
        await world.heal()
    await world.finish()


# --- Endings: what was let in yesterday, and shall not be today ---------------------------------------


TROUBLES: dict[str, Callable[[World, float], None]] = {
    "trimmed": lambda world, _: world.trim(),
    "flushed": lambda world, _: world.flush(),
    "failed over": lambda world, _: world.fail_over(0.2, old_lives=True),
    "failed over, the old one is dead": lambda world, _: world.fail_over(0.2, old_lives=False),
    "Redis stopped": lambda world, seconds: world.stop(world.redis, seconds),
    "edge stopped": lambda world, seconds: world.stop(world.edges[0].actor, seconds),
    "publisher cut off": lambda world, seconds: world.cut_off("plane", world.redis.name, seconds),
    "edge cut off": lambda world, seconds: world.cut_off("edge-0", world.redis.name, seconds),
}


async def endings(
    world: World, *, trouble: str = "", redis: bool = True, known: float = 0.7
) -> None:
    """A grant and a sandbox come to their end just when something happens to who is to tell of it.

    Without ``redis`` it is stopped for good, the control plane is followed, and forgets the sandbox without a word.
    """
    rng, plane, loop = world.rng, world.plane, world.loop
    if not redis:
        world.stop(world.redis, 60.0)
        await asyncio.sleep(3.0)
    for edge in world.edges:
        for names in BOXES:
            if rng.random() < known:
                world.client(*names, edge)
    await asyncio.sleep(rng.uniform(0.2, 1.2))
    at = rng.uniform(0.2, 0.6)
    loop.later(at, world.order, lambda: plane.revoke("g_a"))
    if redis or rng.random() < 0.5:
        loop.later(at + rng.uniform(0.0, 0.2), world.order, lambda: plane.destroy("sb_b"))
        loop.later(at + 0.5, plane.forgotten.add, "sb_b")
    else:
        loop.later(at - 0.1, world.order, lambda: plane.pause("sb_b", barrier=True))
        loop.later(at + 0.1, plane.forget, "sb_b")
    if redis:
        happens = TROUBLES[trouble or rng.choice(list(TROUBLES))]
        loop.later(
            at - rng.uniform(0.0, 0.2), happens, world, rng.choice([0.3, 0.7, 1.5, 3.0, 6.0])
        )
    await asyncio.sleep(at)
    for _ in range(25):
        await asyncio.sleep(rng.uniform(0.1, 0.4))
        for edge in world.edges:
            for names in BOXES:
                if not edge.actor.dead:
                    world.client(*names, edge)
    await world.finish()


def _leave(world: World) -> None:
    """Some client goes away, wherever it is."""
    if world.clients:
        client = world.rng.choice(world.clients)
        if not client.edge.actor.stopped:
            client.task.cancel()


def strike(world: World) -> None:
    """Something happens to somebody, at one of the next steps that somebody takes."""
    rng = world.rng
    edge = rng.choice(world.edges)
    seconds = rng.choice([0.05, 0.3, 0.7, 1.5, 3.0, 6.0])
    whom = [edge.actor, world.plane.actor, world.redis]
    match rng.randrange(9):
        case 0 | 1:
            actor = rng.choice(whom)
            _at_a_step(world, actor, lambda: world.stop(actor, seconds))
        case 2:
            _at_a_step(world, edge.actor, lambda: world.kill_edge(edge, min(seconds, 2.0)))
        case 3:
            _at_a_step(world, world.plane.actor, lambda: world.kill_plane(seconds / 2))
        case 4:
            names = [edge.name, "plane", world.redis.name]
            one, other = rng.sample(names, 2)
            world.cut_off(one, other, seconds)
        case 5:
            world.flush()
        case 6:
            world.trim()
        case 7:
            world.fail_over(rng.uniform(0.0, 0.5), old_lives=rng.random() < 0.5)
        case _:
            world.stop(edge.actor, seconds)


def _at_a_step(world: World, actor: Any, what: Callable[[], None]) -> None:
    actor.strikes[actor.steps + world.rng.randrange(60)] = what


WEATHERS = {
    "calm": CALM,
    "slow": Weather(slow=0.2),
    "lossy": Weather(lost=0.05, twice=0.1),
    "garbled": Weather(garbled=0.3, twice=0.2, slow=0.1),
    "all": Weather(slow=0.05, lost=0.03, twice=0.05, cut=0.02, garbled=0.1),
}

__all__ = ["CALM", "Parts", "outcome"]
