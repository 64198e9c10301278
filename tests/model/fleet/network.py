"""Messages between actors: late, twice, overtaken, lost; and pairs of actors that are cut off from each other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.model.fleet.actors import ACTOR, NOBODY, Actor, ActorLoop


class Lost(Exception):
    """No answer came in time, or a refusal of the connection."""


@dataclass(frozen=True)
class Weather:
    """What happens to messages: the usual delay in seconds, and probabilities of the unusual."""

    delay: float = 0.005
    slow: float = 0.0
    slowness: float = 0.4
    lost: float = 0.0
    twice: float = 0.0
    cut: float = 0.0
    garbled: float = 0.0


CALM = Weather()


class Network:
    """Who reaches whom. Each message has a delay of its own, so any two may overtake each other."""

    def __init__(self, loop: ActorLoop, rng: random.Random, weather: Weather) -> None:
        self.loop = loop
        self.rng = rng
        self.weather = weather
        self.actors: dict[str, Actor] = {}
        self.apart: set[frozenset[str]] = set()
        self._open: dict[asyncio.Future[Any], tuple[Actor, str]] = {}

    def chance(self, probability: float) -> bool:
        """One throw of the dice."""
        return probability > 0 and self.rng.random() < probability

    def delay(self) -> float:
        """Of one message."""
        weather = self.weather
        slow = weather.slowness if self.chance(weather.slow) else 0.0
        return self.rng.uniform(0.0002, weather.delay) + self.rng.uniform(0.0, slow)

    def reaches(self, one: str, other: str) -> bool:
        """Whether a message that arrives now gets through."""
        return frozenset((one, other)) not in self.apart

    async def call(self, to: str, work: Callable[[], Any], limit: float) -> Any:
        """Have ``work`` done by another actor; what it returns or raises. Raises `Lost`."""
        caller = ACTOR.get()
        assert caller is not None
        answer: asyncio.Future[Any] = self.loop.create_future()
        self._open[answer] = (caller, to)
        for _ in range(2 if self.chance(self.weather.twice) else 1):
            if not self.chance(self.weather.lost):
                self.loop.later(self.delay(), self._arrive, caller, to, work, answer)
        try:
            async with asyncio.timeout(limit):
                return await answer
        except TimeoutError:
            raise Lost from None
        finally:
            del self._open[answer]

    def _arrive(
        self, caller: Actor, to: str, work: Callable[[], Any], answer: asyncio.Future[Any]
    ) -> None:
        if not self.reaches(caller.name, to):
            return
        actor = self.actors[to]
        if actor.dead:
            self._reply(caller, to, answer, None, Lost())
        else:
            self.loop.call_soon(self._work, caller, to, work, answer, context=actor.context.copy())

    def _work(
        self, caller: Actor, to: str, work: Callable[[], Any], answer: asyncio.Future[Any]
    ) -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - it is the caller's
            self._reply(caller, to, answer, None, error)
            return
        if not asyncio.iscoroutine(result):
            self._reply(caller, to, answer, result, None)
            return

        def over(task: asyncio.Task[Any]) -> None:
            if not task.cancelled():
                done = task.result() if task.exception() is None else None
                self._reply(caller, to, answer, done, task.exception())

        task = self.loop.create_task(result, name=f"work for {caller.name}")
        task.add_done_callback(over)

    def _reply(
        self,
        caller: Actor,
        to: str,
        answer: asyncio.Future[Any],
        result: Any,
        error: BaseException | None,
    ) -> None:
        if not self.chance(self.weather.lost):
            self.loop.later(self.delay(), self._settle, caller, to, answer, result, error)

    def _settle(
        self,
        caller: Actor,
        to: str,
        answer: asyncio.Future[Any],
        result: Any,
        error: BaseException | None,
    ) -> None:
        if not self.reaches(caller.name, to):
            return

        def settle() -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        self.loop.call_soon(settle, context=caller.context.copy())

    def reset(self, to: str) -> None:
        """A process died: its machine tells those who wait for it."""
        for answer, (caller, asked) in list(self._open.items()):
            if asked == to:
                self._settle(caller, to, answer, None, Lost())


class Stream:
    """A connection on which one actor sends to another, in order; `closed` once either end is gone."""

    def __init__(self, network: Network, sender: str, receiver: Actor) -> None:
        self._network = network
        self._sender = sender
        self._receiver = receiver
        self._arrived = 0.0
        self.items: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = asyncio.Event()
        self._sent: list[Any] = []

    async def send(self, item: Any) -> None:
        """What is sent arrives after what was sent before, unless it is garbled or cut on the way."""
        network = self._network
        if network.chance(network.weather.cut):
            self.close()
        if self.closed.is_set():
            raise ConnectionError
        now = network.loop.time()
        self._arrived = max(self._arrived, now + network.delay())
        at = self._arrived
        if network.chance(network.weather.garbled):
            at += network.rng.uniform(0.0, 0.3)  # what comes later overtakes it
        if self._sent and network.chance(network.weather.garbled):
            network.loop.later(at - now, self._arrive, network.rng.choice(self._sent[-10:]))
        self._sent.append((now, item))
        network.loop.later(at - now, self._arrive, (now, item))
        await asyncio.sleep(0)

    def _arrive(self, item: Any) -> None:
        if self.closed.is_set() or not self._network.reaches(self._sender, self._receiver.name):
            return
        self._network.loop.call_soon(
            self.items.put_nowait, item, context=self._receiver.context.copy()
        )

    def close(self) -> None:
        """Both ends notice in a moment, if they take steps at all."""
        if not self.closed.is_set():
            self.closed.set()
            loop = self._network.loop
            loop.call_soon(self.items.put_nowait, None, context=self._receiver.context.copy())


__all__ = ["CALM", "NOBODY", "Lost", "Network", "Stream", "Weather"]
