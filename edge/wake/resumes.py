"""Asking the control plane for one resume, until there is an answer or the wake's window is over.

Each attempt names the incarnation that was seen paused (compare-and-resume), so that however many attempts,
edges and lost answers there are, one new incarnation comes of them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from math import inf

from edge.core import errors
from edge.core.errors import Problem
from edge.core.records import IN_BETWEEN, SandboxRecord, State
from edge.state.port import RefusalReason, ResumeRefused, StatePort, Unavailable
from edge.wake.catalog import Catalog
from edge.wake.wake import Wake

BLIP = 3.0
"""Seconds, from its first failure on, during which a resume that found no control plane is tried again."""
FIRST_DELAY = 0.05
"""Seconds before the first repeated resume; doubled each time."""
LAST_DELAY = 0.5
"""Longest pause between two attempts, in seconds."""
LEAST_TIMEOUT = 0.05
"""With less than these seconds of the window left, no further resume is attempted."""

REFUSALS = {
    RefusalReason.FAILED: errors.SANDBOX_RESUME_FAILED,
    RefusalReason.TIMEOUT: errors.SANDBOX_RESUME_TIMEOUT,
    RefusalReason.NOT_FOUND: errors.SANDBOX_NOT_FOUND,
    RefusalReason.AUTO_RESUME_DISABLED: errors.SANDBOX_PAUSED_AUTO_RESUME_DISABLED,
}
"""What our client is told when the control plane says no."""


class Resumes:
    """Carries out resumes. ``window`` is in seconds, ``clock`` gives monotonic ones."""

    def __init__(
        self,
        port: StatePort,
        catalog: Catalog,
        *,
        window: float,
        clock: Callable[[], float],
        rng: random.Random | None = None,
    ) -> None:
        self._port = port
        self._catalog = catalog
        self._window = window
        self._clock = clock
        self._random = rng or random.Random()

    async def carry_out(self, wake: Wake) -> Problem | None:
        """What its waiters are told; None when the record is worth reading again."""
        try:
            async with asyncio.timeout(self._window):
                return await self._ask(wake)
        except TimeoutError:
            return errors.SANDBOX_RESUME_TIMEOUT

    async def _ask(self, wake: Wake) -> Problem | None:
        paused = wake.paused
        ends = wake.started + self._window
        give_up, delay = inf, FIRST_DELAY
        while (left := ends - self._clock()) >= LEAST_TIMEOUT:
            try:
                answer = await self._port.resume(paused.id, paused.incarnation, "preview", left)
            except ResumeRefused as refused:
                return REFUSALS[refused.reason]
            except Unavailable:
                now = self._clock()
                give_up = min(give_up, now + BLIP)
            else:
                return await self._take(paused, answer)
            if now >= give_up or not wake.waiting:
                return errors.CONTROL_PLANE_UNAVAILABLE
            # A resume that was carried out and whose answer was lost ends this wake by its change, which
            # whoever began it hears, or by the next answer: repeating names the same incarnation.
            await asyncio.sleep(delay * self._random.uniform(0.5, 1.0))
            delay = min(LAST_DELAY, delay * 2)
            if wake.over.is_set():
                return None
        return errors.SANDBOX_RESUME_TIMEOUT

    async def _take(self, paused: SandboxRecord, answer: SandboxRecord) -> Problem | None:
        """Put the answer into the catalog (which may end the wake) and judge what is there."""
        if answer.id != paused.id:
            return errors.SANDBOX_RESUME_FAILED
        self._catalog.apply(answer)
        # Somebody else's resume is under way: this wake is over when that is.
        while (
            isinstance(known := self._catalog.sandbox(paused.id), SandboxRecord)
            and known.state in IN_BETWEEN
        ):
            await self._catalog.changes_from(known)
        if (
            isinstance(known, SandboxRecord)
            and known.state is State.PAUSED
            and known.incarnation <= paused.incarnation
        ):
            # Still paused where it was: to read the record again would be to ask again without end.
            return errors.SANDBOX_RESUME_FAILED
        return None
