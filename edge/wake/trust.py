"""How far what is known of a sandbox or a grant may be believed, and when it has to be asked for again.

Trust is measured by the local monotonic clock since the last proof of being caught up (`watch.py`):

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

from edge.core.records import GrantRecord, Missing, SandboxRecord
from edge.core.settings import CatalogSettings
from edge.wake.entries import Entry, R

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


class Belief:
    """What has been proved and doubted so far, and what follows for an entry.

    ``epoch`` counts the doubts: an entry read in an earlier one is *unsure*. Until ``fresh_until``, in
    seconds of the clock, every sure record is served as it is; only beyond it is there something to judge.
    """

    def __init__(self, settings: CatalogSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._heartbeat_at = -inf
        self._doubted_at = -inf
        self.epoch = 0
        self.fresh_until = -inf

    # --- Proofs and doubts ------------------------------------------------------------------------

    def prove(self) -> None:
        """Every change up to this moment has been heard."""
        self._heartbeat_at = self._clock()
        self.fresh_until = self._heartbeat_at + self._settings.fresh

    def doubt(self) -> None:
        """Changes may have been missed: every entry becomes unsure."""
        self.epoch += 1
        self._doubted_at = self._clock()

    def heartbeat_age(self) -> float:
        """Seconds since the last proof of being caught up; infinite before the first."""
        return self._clock() - self._heartbeat_at

    def trust(self) -> Trust:
        """How recently the catalog was caught up. SUSPECT before the first heartbeat."""
        age = self.heartbeat_age()
        if age < self._settings.fresh:
            return Trust.FRESH
        if age < self._settings.stale_after or age == inf:
            return Trust.SUSPECT
        return Trust.STALE if age < self._settings.stale_limit else Trust.LOST

    # --- What follows -----------------------------------------------------------------------------

    def of_sandbox(self, entry: Entry[SandboxRecord]) -> SandboxRecord | Missing:
        """The record to decide on, or why there is none."""
        return self._judge(entry, trusting=self.heartbeat_age() < self._settings.stale_limit)

    def of_grant(self, entry: Entry[GrantRecord]) -> GrantRecord | Missing:
        """As `of_sandbox`, with the table's other column."""
        age, settings = self.heartbeat_age(), self._settings
        trusting = age < settings.fresh or settings.stale_after <= age < settings.stale_limit
        return self._judge(entry, trusting=trusting)

    def _judge(self, entry: Entry[R], *, trusting: bool) -> R | Missing:
        """``trusting``: a sure record need not be asked for again by now."""
        record, now = entry.record, self._clock()
        asked = now - entry.asked_at
        if record is None:
            ttl = max(self._settings.absent_ttl, LEAST_ABSENT_TTL)
            return Missing.ABSENT if asked < ttl and not entry.failed else Missing.UNKNOWN
        if entry.final:
            return record
        sure = entry.epoch == self.epoch
        answered = sure and asked < ASK_INTERVAL and not entry.failed
        excused = entry.failed and asked < ASK_INTERVAL and entry.asked_at >= self._doubted_at
        if answered:
            return record
        if not self._within_limit(entry, now):
            return Missing.LOST if excused else Missing.UNKNOWN
        return record if excused or (sure and trusting) else Missing.UNKNOWN

    def usable(self, entry: Entry[R]) -> bool:
        """Whether what is known will do for somebody whose asking has failed."""
        if entry.record is None:
            return False
        return entry.final or self._within_limit(entry, self._clock())

    def _within_limit(self, entry: Entry[R], now: float) -> bool:
        confirmed = entry.read_at
        if entry.epoch == self.epoch:
            confirmed = max(confirmed, self._heartbeat_at)
        return now - confirmed <= self._settings.stale_limit
