"""What the edge knows about sandboxes and grants, and how far it may be believed.

An entry is *known* (a record), *absent* (the control plane said there is none), or *unsure* (changes may
have been missed since); a look-up under way is *pending*. Changes apply to pending look-ups too: the
higher version wins, whichever came last.

Trust is measured by the local monotonic clock since the last proof of being caught up (`watch.py`), and
says when a known entry has to be asked for again before it is served:

========  ===========================  ===================  ============================================
trust     heartbeat age                sandbox              grant
========  ===========================  ===================  ============================================
FRESH     under ``fresh``              served               served
SUSPECT   up to ``stale_after``        served               asked for again when last asked over 1 s ago
STALE     up to ``stale_limit``        served               served
LOST      beyond                       as grant in SUSPECT  as grant in SUSPECT
(before)  no heartbeat yet             as grant in SUSPECT  as grant in SUSPECT
========  ===========================  ===================  ============================================

When asking fails, what is known goes on being served for another second, as long as it was last confirmed
(by a look-up, or by a heartbeat while nothing was in doubt) within ``stale_limit``. Beyond that an entry
is LOST until an answer comes. Records that can never change again (revoked, expired, destroyed) are
served without asking.

So a revocation takes effect within ``fresh`` plus a second while the control plane can be asked, and
within ``stale_limit`` at worst.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from math import inf

from edge.core.records import GrantRecord, Missing, Record, SandboxRecord
from edge.core.reports import Observer
from edge.core.settings import CatalogSettings
from edge.state.port import StatePort, Unavailable
from edge.wake.entries import Entry, Pending, R, Shelf
from edge.wake.scope import Scope, ScopeClosed
from edge.wake.signals import Signals
from edge.wake.watch import Watch

ASK_INTERVAL = 1.0
"""Seconds during which an answer (or the failure to get one) stands before the same entry is asked again."""
LEAST_ABSENT_TTL = 0.1
"""An absence is remembered at least this long: who looked it up must live to read the answer."""


class Trust(Enum):
    """How recently the catalog was caught up."""

    FRESH = "fresh"
    SUSPECT = "suspect"
    STALE = "stale"
    LOST = "lost"


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
        self._settings = settings
        self._clock = clock
        self._observer = observer
        self._scope = Scope(lambda name, e: observer.event("crash", task=name, error=repr(e)))
        self._watch = Watch(port, self, silence=settings.stale_after, observer=observer)
        self._sandboxes = Shelf(settings.max_entries, port.sandbox)
        self._grants = Shelf(settings.max_entries, port.grant)
        self._signals = Signals()
        self._listeners: list[Callable[[Record], None]] = []
        self._heartbeat_at = -inf
        self._epoch = 0
        self._doubted_at = -inf

    # --- Reading (the hot path) -------------------------------------------------------------------

    def sandbox(self, sandbox_id: str) -> SandboxRecord | Missing:
        """The record to decide on, or why there is none."""
        entry = self._sandboxes.entries.get(sandbox_id)
        if entry is None:
            return Missing.UNKNOWN
        now = self._clock()
        age = now - self._heartbeat_at
        if age < self._settings.fresh and entry.epoch == self._epoch and entry.record is not None:
            return entry.record
        return self._judge(entry, now, trusting=age < self._settings.stale_limit)

    def grant(self, grant_id: str) -> GrantRecord | Missing:
        """The record to decide on, or why there is none."""
        entry = self._grants.entries.get(grant_id)
        if entry is None:
            return Missing.UNKNOWN
        now = self._clock()
        age = now - self._heartbeat_at
        if age < self._settings.fresh and entry.epoch == self._epoch and entry.record is not None:
            return entry.record
        trusting = self._settings.stale_after <= age < self._settings.stale_limit
        return self._judge(entry, now, trusting=trusting)

    def _judge(self, entry: Entry[R], now: float, *, trusting: bool) -> R | Missing:
        """The slow half of reading. ``trusting``: a sure record need not be asked for again by now."""
        record = entry.record
        asked = now - entry.asked_at
        if record is None:
            ttl = max(self._settings.absent_ttl, LEAST_ABSENT_TTL)
            return Missing.ABSENT if asked < ttl and not entry.failed else Missing.UNKNOWN
        if entry.final:
            return record
        sure = entry.epoch == self._epoch
        answered = sure and asked < ASK_INTERVAL and not entry.failed
        excused = entry.failed and asked < ASK_INTERVAL and entry.asked_at >= self._doubted_at
        if answered:
            return record
        if not self._within_limit(entry, now):
            return Missing.LOST if excused else Missing.UNKNOWN
        return record if excused or (sure and trusting) else Missing.UNKNOWN

    def _within_limit(self, entry: Entry[R], now: float) -> bool:
        confirmed = entry.read_at
        if entry.epoch == self._epoch:
            confirmed = max(confirmed, self._heartbeat_at)
        return now - confirmed <= self._settings.stale_limit

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
        if entry is None or not self._usable(entry):
            raise Unavailable(pending.failure)

    def _usable(self, entry: Entry[R]) -> bool:
        if entry.record is None:
            return False
        return entry.final or self._within_limit(entry, self._clock())

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
        began, epoch = self._clock(), self._epoch
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
            entry = Entry(None, 0, self._epoch - 1, now, now)
            shelf.entries.put(record.id, entry, keep=self._signals)
        self._overtake(shelf, record)
        if self._supersede(entry, record):
            entry.asked_at, entry.failed = now, False
            if entry.epoch == self._epoch:
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

    # --- Trust ------------------------------------------------------------------------------------

    def trust(self) -> Trust:
        """How recently the catalog was caught up. SUSPECT before the first heartbeat."""
        age = self.heartbeat_age()
        if age < self._settings.fresh:
            return Trust.FRESH
        if age < self._settings.stale_after or age == inf:
            return Trust.SUSPECT
        return Trust.STALE if age < self._settings.stale_limit else Trust.LOST

    def heartbeat_age(self) -> float:
        """Seconds since the last proof of being caught up; infinite before the first."""
        return self._clock() - self._heartbeat_at

    def hear_heartbeat(self) -> None:
        """Every change up to this moment has been heard."""
        self._heartbeat_at = self._clock()

    def doubt_everything(self) -> None:
        """Every entry becomes unsure: it is looked up again when it is next needed."""
        self._epoch += 1
        self._doubted_at = self._clock()
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
