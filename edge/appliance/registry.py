"""Which sandboxes there are, by id and by snapshot, and for a while which there were.

What the store has is there from the start. A sandbox is written when it changes (``transitions.py``), from the
moment it runs for the first time: until then nobody was told of it.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.appliance.problems import SANDBOX_NOT_FOUND, SNAPSHOT_NOT_FOUND, ApiError
from edge.appliance.rows import Rows
from edge.appliance.sandbox import Sandbox, Snapshot, from_document, to_document
from edge.appliance.store import Store

TOMBSTONES = 10_000
"""Destroyed sandboxes that are remembered, for edges that ask and for lists of events."""

SNAPSHOTS = 100
"""Snapshot ids remembered per sandbox, for clients that resume from an old one."""


class Registry:
    """All sandboxes. ``on_forgotten`` hears the ids of tombstones that make room for newer ones, within the
    transaction that removes them.
    """

    def __init__(
        self,
        store: Store,
        on_forgotten: Callable[[str], None],
        *,
        max_tombstones: int = TOMBSTONES,
    ) -> None:
        self._store = store
        self.rows = Rows(store, "sandboxes", write=to_document, read=from_document)
        self._on_forgotten = on_forgotten
        self._max_tombstones = max_tombstones
        self._all: dict[str, Sandbox] = {}
        self._tombstones: dict[str, None] = {}
        self._snapshots: dict[str, Sandbox] = {}
        for sandbox in self.rows.load():
            self._restore(sandbox)

    def add(self, sandbox: Sandbox) -> None:
        """A new sandbox."""
        self._all[sandbox.id] = sandbox

    def find(self, sandbox_id: str) -> Sandbox | None:
        """A sandbox, destroyed ones included."""
        return self._all.get(sandbox_id)

    def get(self, sandbox_id: str) -> Sandbox:
        """A sandbox that is not destroyed. Raises `ApiError` (sandbox_not_found)."""
        sandbox = self._all.get(sandbox_id)
        if sandbox is None or not sandbox.alive:
            raise ApiError(SANDBOX_NOT_FOUND)
        return sandbox

    def of_snapshot(self, snapshot_id: str) -> Sandbox:
        """The sandbox of a snapshot. Raises `ApiError` (snapshot_not_found)."""
        sandbox = self._snapshots.get(snapshot_id)
        if sandbox is None:
            raise ApiError(SNAPSHOT_NOT_FOUND)
        return sandbox

    def all(self) -> list[Sandbox]:
        """All of them, destroyed ones included."""
        return list(self._all.values())

    def living(self) -> list[Sandbox]:
        """All that are not destroyed, oldest first."""
        return [sandbox for sandbox in self._all.values() if sandbox.alive]

    def snapshots(self) -> list[tuple[Sandbox, Snapshot]]:
        """All that are remembered, with their sandboxes."""
        return [(one, snapshot) for one in self.living() for snapshot in one.snapshots]

    def keep(self, snapshot: Snapshot) -> None:
        """The sandbox has this snapshot now."""
        sandbox = self._all[snapshot.sandbox_id]
        sandbox.snapshot = snapshot
        sandbox.snapshots.append(snapshot)
        self._snapshots[snapshot.id] = sandbox
        if len(sandbox.snapshots) > SNAPSHOTS:
            del self._snapshots[sandbox.snapshots.pop(0).id]

    def forget(self, snapshot_id: str) -> None:
        """There is no such snapshot any more. Raises `StoreError`."""
        sandbox = self._snapshots[snapshot_id]
        with self.rows.changing(sandbox):
            sandbox.snapshots = [one for one in sandbox.snapshots if one.id != snapshot_id]
            if sandbox.snapshot is not None and sandbox.snapshot.id == snapshot_id:
                sandbox.snapshot = None
        del self._snapshots[snapshot_id]

    def bury(self, sandbox: Sandbox) -> None:
        """The sandbox is destroyed: its snapshots go, its tombstone stays for a while.

        Raises `StoreError` when the oldest tombstone cannot be taken out of the file; it stays, then.
        """
        for snapshot in sandbox.snapshots:
            del self._snapshots[snapshot.id]
        sandbox.snapshots.clear()
        sandbox.snapshot = None
        self._tombstones[sandbox.id] = None
        while len(self._tombstones) > self._max_tombstones:
            oldest = next(iter(self._tombstones))
            with self._store.transaction():
                self.rows.remove(oldest)
                self._on_forgotten(oldest)
            del self._tombstones[oldest], self._all[oldest]

    @property
    def last_number(self) -> int:
        """The number of the newest sandbox that is remembered; 0 without any."""
        return max((sandbox.number for sandbox in self._all.values()), default=0)

    def _restore(self, sandbox: Sandbox) -> None:
        self._all[sandbox.id] = sandbox
        if sandbox.alive:
            self._snapshots |= {snapshot.id: sandbox for snapshot in sandbox.snapshots}
        else:
            # In the order in which they were made: when they were destroyed is not written.
            sandbox.snapshots.clear()
            self._tombstones[sandbox.id] = None
