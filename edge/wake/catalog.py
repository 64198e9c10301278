"""What the edge knows about sandboxes and grants.

An entry is *known* (a record), *absent* (the control plane said there is none), or *unsure* (changes may
have been missed since); a look-up under way is *pending*. Changes apply to pending look-ups too: the
higher version wins, whichever came last.

What may be served of it, and what has to be asked for again, is `edge.wake.trust`'s to say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from edge.core.records import GrantRecord, Missing, Record, SandboxRecord
from edge.core.reports import Observer
from edge.core.settings import CatalogSettings
from edge.state.port import StatePort, Unavailable
from edge.wake.entries import Entry, Pending, R, Shelf
from edge.wake.scope import Scope, ScopeClosed
from edge.wake.signals import Signals
from edge.wake.trust import Belief, Trust
from edge.wake.watch import Watch

POLL = 1.0
"""Seconds after which a change that is waited for is asked for: its message may be lost."""


class Catalog:
    """Records by id. Reading is a dictionary look-up and a clock reading; nothing is O(entries).

    ``clock`` gives monotonic seconds. `run` follows the control plane's changes; without it the catalog
    still works, asking at most once a second per entry.
    """

    def __init__(
        self,
        port: StatePort,
        settings: CatalogSettings,
        *,
        clock: Callable[[], float],
        observer: Observer,
    ) -> None:
        self._clock = clock
        self._belief = Belief(settings, clock)
        self._scope = Scope(lambda name, e: observer.event("crash", task=name, error=repr(e)))
        self._watch = Watch(port, self, silence=settings.stale_after, observer=observer)
        self._sandboxes = Shelf(settings.max_entries, port.sandbox)
        self._grants = Shelf(settings.max_entries, port.grant)
        self._signals = Signals()
        self._listeners: list[Callable[[Record], None]] = []

    # --- Reading (the hot path) -------------------------------------------------------------------

    def sandbox(self, sandbox_id: str) -> SandboxRecord | Missing:
        """The record to decide on, or why there is none."""
        entry = self._sandboxes.entries.get(sandbox_id)
        if entry is None:
            return Missing.UNKNOWN
        belief, record = self._belief, entry.record
        if record is None or entry.epoch != belief.epoch or self._clock() >= belief.fresh_until:
            return belief.of_sandbox(entry)
        return record

    def grant(self, grant_id: str) -> GrantRecord | Missing:
        """The record to decide on, or why there is none."""
        entry = self._grants.entries.get(grant_id)
        if entry is None:
            return Missing.UNKNOWN
        belief, record = self._belief, entry.record
        if record is None or entry.epoch != belief.epoch or self._clock() >= belief.fresh_until:
            return belief.of_grant(entry)
        return record

    # --- Asking -----------------------------------------------------------------------------------

    async def look_up_sandbox(self, sandbox_id: str) -> None:
        """Ask for a sandbox, in one call with all who ask; the answer lands in the catalog.

        Raises `Unavailable` when there is no answer and nothing known within the stale limit.
        """
        await self._look_up(self._sandboxes, sandbox_id)

    async def look_up_grant(self, grant_id: str) -> None:
        """As `look_up_sandbox`, for a grant."""
        await self._look_up(self._grants, grant_id)

    async def _look_up(self, shelf: Shelf[R], key: str) -> None:
        pending = shelf.pending.get(key)
        if pending is None:
            pending = self._begin(shelf, key)
        # The call runs in the scope and tells by event, so a caller that leaves disturbs nobody.
        await pending.done.wait()
        if pending.failure is None:
            return
        entry = shelf.entries.get(key)
        if entry is None or not self._belief.usable(entry):
            raise Unavailable(pending.failure)

    def _begin(self, shelf: Shelf[R], key: str) -> Pending[R]:
        pending: Pending[R] = Pending()
        try:
            task = self._scope.spawn(self._ask(shelf, key, pending), name=f"look-up {key}")
        except ScopeClosed:
            raise Unavailable("the edge is shutting down") from None
        shelf.pending[key] = pending

        # A callback and not a finally: a task cancelled before its first step never enters its body.
        def over(_: object) -> None:
            del shelf.pending[key]
            pending.done.set()

        task.add_done_callback(over)
        return pending

    async def _ask(self, shelf: Shelf[R], key: str, pending: Pending[R]) -> None:
        began, epoch = self._clock(), self._belief.epoch
        try:
            answer = await shelf.ask(key)
        except Unavailable as e:
            pending.failure = str(e) or "the control plane did not answer"
            entry = shelf.entries.get(key)
            if entry is not None:
                entry.failed, entry.asked_at = True, self._clock()
            return
        pending.failure = None
        self._land(shelf, key, answer, pending, began, epoch)

    def _land(
        self,
        shelf: Shelf[R],
        key: str,
        answer: R | None,
        pending: Pending[R],
        began: float,
        epoch: int,
    ) -> None:
        """Put an answer in its place. A change heard while it was on its way is not overwritten by it."""
        newest = pending.newest
        if newest is not None and (answer is None or answer.version < newest.version):
            answer = newest
        entry = shelf.entries.get(key)
        if entry is None:
            entry = Entry(None, 0, epoch, began, self._clock())
            shelf.entries.put(key, entry, keep=self._signals)
        # An answer read before a doubt arose (its epoch is past) leaves the entry unsure.
        entry.epoch, entry.read_at = epoch, began
        entry.asked_at, entry.failed = self._clock(), False
        if answer is None:
            # The version stays as a tombstone: a late change cannot bring the record back to life.
            entry.record = None
            self._signals.release(key)
        else:
            self._supersede(entry, answer)

    # --- Changes ----------------------------------------------------------------------------------

    def apply(self, record: Record) -> None:
        """Take over an answer of the control plane, if it is newer than what is known.

        Never makes an unsure entry sure: only a look-up begun after the doubt does.
        """
        if isinstance(record, SandboxRecord):
            self._apply(self._sandboxes, record)
        else:
            self._apply(self._grants, record)

    def _apply(self, shelf: Shelf[R], record: R) -> None:
        now = self._clock()
        entry = shelf.entries.get(record.id)
        if entry is None:
            entry = Entry(None, 0, self._belief.epoch - 1, now, now)
            shelf.entries.put(record.id, entry, keep=self._signals)
        self._overtake(shelf, record)
        if self._supersede(entry, record):
            entry.asked_at, entry.failed = now, False
            if entry.epoch == self._belief.epoch:
                entry.read_at = now

    def hear_change(self, record: Record) -> None:
        """A change from the watch.

        Of an id nobody asked about it is told to the listeners and not kept: it may be an old one, and
        the next look-up will know better. (A pause barrier is answered by every edge all the same.)
        """
        if isinstance(record, SandboxRecord):
            self._hear(self._sandboxes, record)
        else:
            self._hear(self._grants, record)

    def _hear(self, shelf: Shelf[R], record: R) -> None:
        self._overtake(shelf, record)
        entry = shelf.entries.get(record.id)
        if entry is not None:
            self._supersede(entry, record)
        else:
            self._tell(record)

    def _overtake(self, shelf: Shelf[R], record: R) -> None:
        entry = shelf.entries.get(record.id)
        if entry is not None and record.version <= entry.version:
            return  # a repeated change: it must not outweigh the answer that there is no such thing any more
        pending = shelf.pending.get(record.id)
        if pending is not None and (
            pending.newest is None or pending.newest.version < record.version
        ):
            pending.newest = record

    def _supersede(self, entry: Entry[R], record: R) -> bool:
        if record.version <= entry.version:
            return False
        entry.record, entry.version = record, record.version
        self._signals.release(record.id)
        self._tell(record)
        return True

    def _tell(self, record: Record) -> None:
        for listener in self._listeners:
            listener(record)

    def listen(self, callback: Callable[[Record], None]) -> None:
        """Call ``callback`` with every newer record, synchronously. It must not block and not raise."""
        self._listeners.append(callback)

    async def changed(self, sandbox_id: str, version: int) -> SandboxRecord | Missing:
        """Wait until the sandbox's record is not of ``version`` any more; what it is then.

        Returns at once when that is so already, and also when the record came into doubt.
        """
        while True:
            # Subscribe, re-check, wait: a change between the caller's look and our waiting is seen
            # by the re-check, one after it by the subscription.
            with self._signals.subscribe(sandbox_id) as event:
                record = self.sandbox(sandbox_id)
                if isinstance(record, Missing) or record.version != version:
                    return record
                await event.wait()

    async def changes_from(self, known: SandboxRecord) -> None:
        """Wait until the sandbox's record is worth another look: it has changed, or was asked for."""
        try:
            async with asyncio.timeout(POLL):
                await self.changed(known.id, known.version)
        except TimeoutError:
            with suppress(Unavailable):  # then it is worth another look in a while
                await self.look_up_sandbox(known.id)

    # --- Trust ------------------------------------------------------------------------------------

    def trust(self) -> Trust:
        """See `Belief.trust`."""
        return self._belief.trust()

    def heartbeat_age(self) -> float:
        """See `Belief.heartbeat_age`."""
        return self._belief.heartbeat_age()

    def hear_heartbeat(self) -> None:
        """Every change up to this moment has been heard."""
        self._belief.prove()

    def doubt_everything(self) -> None:
        """Every entry becomes unsure: it is looked up again when it is next needed."""
        self._belief.doubt()
        # Who waits for a change might have missed just that one, and would wait for ever.
        self._signals.release_all()

    # --- Life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow the control plane's changes until cancelled."""
        await self._watch.run()

    async def close(self) -> None:
        """Give up look-ups under way; their callers get `Unavailable`."""
        await self._scope.close()

    def size(self) -> dict[str, int]:
        """How many entries of each kind are kept, and how many look-ups are under way."""
        return {
            "sandboxes": len(self._sandboxes.entries),
            "grants": len(self._grants.entries),
            "pending": len(self._sandboxes.pending) + len(self._grants.pending),
        }
