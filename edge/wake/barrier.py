"""The pause barrier: before a sandbox is paused for inactivity, every edge says what it still has open.

The control plane publishes ``pausing`` with a version. From the moment the catalog holds that record,
new requests wait (`wakes.py`), so the number of exchanges in flight can only fall; the answer to that
version is that number. All zero: the sandbox is paused; otherwise it runs on.
"""

from __future__ import annotations

import asyncio
import random

from edge.core.records import Record, SandboxRecord, State
from edge.core.reports import Observer
from edge.state.port import StatePort, Unavailable
from edge.wake.admission import Admission
from edge.wake.catalog import Catalog
from edge.wake.scope import Scope

FIRST_DELAY = 0.05
"""Seconds before an ack that did not arrive is sent again; doubled each time."""
LAST_DELAY = 1.0
"""Longest pause between two attempts, in seconds."""
ATTEMPTS = 20
"""Attempts per version. A control plane that hears none of them decides by its own bound."""


class Barrier:
    """Answers each ``pausing`` record the catalog hears of, once per version.

    Every edge answers, also for sandboxes it never served: the control plane waits for all live edges.
    """

    def __init__(
        self,
        port: StatePort,
        catalog: Catalog,
        admission: Admission,
        *,
        scope: Scope,
        observer: Observer,
        rng: random.Random | None = None,
    ) -> None:
        self._port = port
        self._admission = admission
        self._scope = scope
        self._observer = observer
        self._random = rng or random.Random()
        self._answering: dict[str, int] = {}  # the version being answered, by sandbox
        catalog.listen(self._hear)

    def _hear(self, record: Record) -> None:
        if not isinstance(record, SandboxRecord):
            return
        known = self._answering.get(record.id, 0)
        if record.version <= known or self._scope.closed:
            return
        if record.state is State.PAUSING:
            self._answering[record.id] = record.version
            self._scope.spawn(self._answer(record.id, record.version), name=f"ack {record.id}")
        elif known:
            del self._answering[record.id]  # the sandbox has moved on; nobody waits for that answer

    async def _answer(self, sandbox_id: str, version: int) -> None:
        delay = FIRST_DELAY
        try:
            for _ in range(ATTEMPTS):
                # Counted anew for each attempt: what was in flight at the first may be over.
                in_flight = self._admission.in_flight(sandbox_id)
                try:
                    await self._port.ack(sandbox_id, version, in_flight)
                except Unavailable:
                    await asyncio.sleep(delay * self._random.uniform(0.5, 1.0))
                    delay = min(LAST_DELAY, delay * 2)
                else:
                    return
                # Re-check after each wait: a newer record makes this answer pointless.
                if self._answering.get(sandbox_id) != version:
                    return
            self._observer.event("ack_given_up", sandbox=sandbox_id, version=version)
        finally:
            if self._answering.get(sandbox_id) == version:
                del self._answering[sandbox_id]
