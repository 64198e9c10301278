"""The audit trail: what became of every grant, and who did it.

What people do (create, revoke, disable, enable) and what traffic does (use, fail) are kept apart, so
that a busy preview never pushes out who switched it off. Nothing in here is a credential.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from edge.appliance.grant import Grant
from edge.appliance.rows import Rows
from edge.appliance.store import Store

MAX_ENTRIES = 10_000
"""Entries kept of each of the two kinds; the oldest go first."""

QUIET = 60.0
"""Seconds between two entries that say the same of one grant: a use, or one kind of failure."""

MAX_TOLD = 32
"""Kinds of failure of one grant that are remembered so; the oldest go first."""


class Deed(StrEnum):
    """What happened to a grant, or to all previews of a sandbox."""

    CREATED = "created"
    USED = "used"
    FAILED = "failed"
    REVOKED = "revoked"
    DISABLED = "disabled"
    ENABLED = "enabled"


class Doer(StrEnum):
    """Who did it: the holder of the API key, an operator, or a visitor (as an edge reports)."""

    USER = "user"
    OPERATOR = "operator"
    VISITOR = "visitor"


_TRAFFIC = frozenset({Deed.USED, Deed.FAILED})


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One entry. ``id`` grows; ``occurred_at`` is Unix time in whole microseconds, as it is shown.

    Without a grant it is about all previews of the sandbox. ``code`` is a failure's error code,
    ``reason`` an operator's own words.
    """

    id: int
    occurred_at: float
    deed: Deed
    doer: Doer
    sandbox_id: str
    grant_id: str | None = None
    port: int | None = None
    auth_mode: str | None = None
    code: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """Which entries are asked for; None = any. ``since`` and ``until`` are Unix times, both included."""

    sandbox_id: str | None = None
    grant_id: str | None = None
    deed: Deed | None = None
    doer: Doer | None = None
    since: float | None = None
    until: float | None = None

    def admits(self, entry: AuditEntry) -> bool:
        """Whether this entry is one of those asked for."""
        wanted: Iterable[tuple[object, object]] = (
            (self.sandbox_id, entry.sandbox_id),
            (self.grant_id, entry.grant_id),
            (self.deed, entry.deed),
            (self.doer, entry.doer),
        )
        if any(want is not None and want != have for want, have in wanted):
            return False
        late_enough = self.since is None or entry.occurred_at >= self.since
        return late_enough and (self.until is None or entry.occurred_at <= self.until)


class AuditTrail:
    """The newest entries, in order. ``wall`` is Unix time in seconds.

    An entry is written with what it tells of: within that transaction. Raises `StoreError`.
    """

    def __init__(
        self, store: Store, wall: Callable[[], float], max_entries: int = MAX_ENTRIES
    ) -> None:
        self._store = store
        self._rows = Rows(store, "audit", write=_to_document, read=_from_document)
        self._wall = wall
        self._count = 0
        self._people: deque[AuditEntry] = deque(maxlen=max_entries)
        self._traffic: deque[AuditEntry] = deque(maxlen=max_entries)
        for entry in self._rows.load():
            self._count = max(self._count, entry.id)
            self._shelf(entry).append(entry)

    def grant(
        self,
        deed: Deed,
        doer: Doer,
        grant: Grant,
        *,
        code: str | None = None,
        reason: str | None = None,
    ) -> None:
        """Something was done with a grant."""
        self._add(
            deed,
            doer,
            sandbox_id=grant.sandbox_id,
            grant_id=grant.id,
            port=grant.port,
            auth_mode=grant.mode.value,
            code=code,
            reason=reason,
        )

    def traffic(self, grant: Grant, code: str | None = None) -> None:
        """A visitor used the grant, or (with a code) failed to; told at most once in `QUIET` seconds."""
        now, what = self._wall(), code or ""
        last = grant.told.get(what)
        # A clock set back must not silence the trail until it has caught up.
        if last is not None and 0 <= now - last < QUIET:
            return
        grant.told.pop(what, None)
        grant.told[what] = now
        if len(grant.told) > MAX_TOLD:
            del grant.told[next(iter(grant.told))]
        self.grant(Deed.FAILED if code else Deed.USED, Doer.VISITOR, grant, code=code)

    def previews(self, deed: Deed, sandbox_id: str, *, reason: str | None) -> None:
        """An operator switched all previews of a sandbox."""
        self._add(deed, Doer.OPERATOR, sandbox_id=sandbox_id, reason=reason)

    def select(
        self, wanted: AuditFilter, *, offset: int, limit: int, ascending: bool
    ) -> tuple[list[AuditEntry], bool]:
        """One page of the entries asked for, and whether there are more behind it."""
        both = heapq.merge(self._people, self._traffic, key=lambda entry: entry.id)
        found = [entry for entry in both if wanted.admits(entry)]
        if not ascending:
            found.reverse()
        return found[offset : offset + limit], len(found) > offset + limit

    def _add(
        self,
        deed: Deed,
        doer: Doer,
        *,
        sandbox_id: str,
        grant_id: str | None = None,
        port: int | None = None,
        auth_mode: str | None = None,
        code: str | None = None,
        reason: str | None = None,
    ) -> None:
        self._count += 1
        entry = AuditEntry(
            id=self._count,
            # As it will be shown, so that a filter by a time that was read finds the entry.
            occurred_at=datetime.fromtimestamp(self._wall(), UTC).timestamp(),
            deed=deed,
            doer=doer,
            sandbox_id=sandbox_id,
            grant_id=grant_id,
            port=port,
            auth_mode=auth_mode,
            code=code,
            reason=reason,
        )
        self._keep(entry)

    def _keep(self, entry: AuditEntry) -> None:
        shelf = self._shelf(entry)
        oldest = shelf[0] if len(shelf) == shelf.maxlen else None

        def undo() -> None:
            shelf.pop()
            if oldest is not None:
                shelf.appendleft(oldest)

        with self._store.transaction():
            self._rows.put(entry)
            if oldest is not None:
                self._rows.remove(oldest.id)
            shelf.append(entry)
            self._store.otherwise(undo)

    def _shelf(self, entry: AuditEntry) -> deque[AuditEntry]:
        return self._traffic if entry.deed in _TRAFFIC else self._people


def _to_document(entry: AuditEntry) -> dict[str, Any]:
    return {name: value for name, value in asdict(entry).items() if value is not None}


def _from_document(document: dict[str, Any]) -> AuditEntry:
    document |= {"deed": Deed(document["deed"]), "doer": Doer(document["doer"])}
    return AuditEntry(**document)
