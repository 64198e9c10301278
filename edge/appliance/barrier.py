"""Which edges are alive, and what they answer before a pause for inactivity.

An edge is alive while its event socket is open. Before a sandbox that seems idle is frozen, every live
edge has to say that nothing is in flight for it: the edges count, because only they see the traffic.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 1.0
"""Seconds in which every live edge has to answer."""
REJOINING = 5.0
"""Seconds after a restart in which edges may not have come back yet: they try every 2 s at least."""


class _Question:
    """One sandbox version that edges are asked about."""

    def __init__(self, edges: set[str]) -> None:
        self.waiting_for = edges
        self.quiet: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def answer(self, edge: str, in_flight: int) -> None:
        if in_flight:
            # Also from one that was not known to be alive: it may have just joined.
            self.settle(quiet=False)
        if edge not in self.waiting_for:
            return
        self.waiting_for.discard(edge)
        if not self.waiting_for:
            self.settle(quiet=True)

    def settle(self, *, quiet: bool) -> None:
        if not self.quiet.done():
            self.quiet.set_result(quiet)


class Edges:
    """The live edges. ``patience`` and ``rejoining`` are in seconds."""

    def __init__(self, patience: float = PATIENCE, *, rejoining: float = 0.0) -> None:
        self._patience = patience
        self.complete_at = asyncio.get_running_loop().time() + rejoining
        """When those have come back that there were before a restart; until then nobody knows who all of them are."""
        self._sockets: Counter[str] = Counter()
        self._questions: dict[tuple[str, int], _Question] = {}
        self.elsewhere: Callable[[], frozenset[str]] = frozenset
        """Edges that are alive and hear of changes another way than by an event socket."""

    @property
    def live(self) -> frozenset[str]:
        """Names of the edges that hear of changes."""
        return self.elsewhere().union(self._sockets)

    @contextmanager
    def watching(self, edge: str) -> Iterator[None]:
        """The edge is alive in here. It may have several sockets open."""
        self._sockets[edge] += 1
        try:
            yield
        finally:
            self._sockets[edge] -= 1
            if not self._sockets[edge]:
                del self._sockets[edge]
                self._lost(edge)

    def ack(self, edge: str, sandbox_id: str, version: int, in_flight: int) -> None:
        """Take an answer. One to a question that nobody asks any more has no effect."""
        question = self._questions.get((sandbox_id, version))
        if question is not None:
            question.answer(edge, in_flight)

    async def quiet(self, sandbox_id: str, version: int) -> bool:
        """Whether all live edges say, in time, that nothing is in flight for this sandbox.

        Call it right after the record of that version was published. Without edges it is True.
        """
        edges = set(self.live)
        if not edges:
            return True
        question = self._questions[sandbox_id, version] = _Question(edges)
        try:
            async with asyncio.timeout(self._patience):
                return await question.quiet
        except TimeoutError:
            return False
        finally:
            del self._questions[sandbox_id, version]

    def _lost(self, edge: str) -> None:
        # It may have requests in flight and cannot tell us any more.
        for question in self._questions.values():
            if edge in question.waiting_for:
                question.settle(quiet=False)
