"""The copies that are kept: rows of the store, and directories below one of ours."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from edge.appliance.problems import (
    QUOTA_EXCEEDED,
    SNAPSHOT_IN_USE,
    SNAPSHOT_NOT_FOUND,
    ApiError,
)
from edge.appliance.rows import Rows
from edge.appliance.runtime.paths import faults
from edge.appliance.runtime.staged import clear
from edge.appliance.snapshots.snapshot import Copy, from_document, to_document
from edge.appliance.store import Store

MAX_COPIES = 100


class Copies:
    """The copies below ``folder``, each in a directory of its id. Raises `StoreError`."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder.absolute()
        self._rows = Rows(store, "snapshots", write=to_document, read=from_document)
        self._copies = {copy.id: copy for copy in self._rows.load()}
        self._making = 0
        self._used: Counter[str] = Counter()

    async def start(self) -> None:
        """Remove what was not finished, or not removed, by an earlier run. Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left in list(self._folder.iterdir()):
            if left.name not in self._copies:
                await asyncio.to_thread(clear, left)

    def all(self) -> list[Copy]:
        """All of them, oldest first."""
        return list(self._copies.values())

    def find(self, snapshot_id: str) -> Copy | None:
        """A copy, if there is one of this id."""
        return self._copies.get(snapshot_id)

    def files(self, copy: Copy) -> Path:
        """Where it is."""
        return self._folder / copy.id

    @asynccontextmanager
    async def room(self) -> AsyncIterator[tuple[str, Path]]:
        """The id and the empty directory of a new copy; without `add` it is gone at the end.

        Raises `ApiError` (quota_exceeded), `RuntimeFault`.
        """
        if len(self._copies) + self._making >= MAX_COPIES:
            raise ApiError(QUOTA_EXCEEDED, f"At most {MAX_COPIES} snapshots are kept.")
        snapshot_id = f"snap_{secrets.token_hex(8)}"
        folder = self._folder / snapshot_id
        self._making += 1
        try:
            with faults("The snapshot"):
                folder.mkdir(mode=0o700)
            yield snapshot_id, folder
        finally:
            self._making -= 1
            if snapshot_id not in self._copies:
                await asyncio.to_thread(clear, folder)

    def add(self, copy: Copy, kept: Callable[[Copy], None]) -> None:
        """Keep it; ``kept`` writes what has to be in the store together with it."""
        with self._store.transaction():
            self._rows.put(copy)
            kept(copy)
        self._copies[copy.id] = copy

    async def delete(self, snapshot_id: str) -> None:
        """Raises `ApiError` (snapshot_not_found, snapshot_in_use)."""
        copy = self._copies.get(snapshot_id)
        if copy is None:
            raise ApiError(SNAPSHOT_NOT_FOUND)
        if self._used[snapshot_id]:
            raise ApiError(SNAPSHOT_IN_USE)
        self._rows.remove(snapshot_id)
        del self._copies[snapshot_id]
        await asyncio.to_thread(clear, self.files(copy))

    @contextmanager
    def used(self, copy: Copy) -> Iterator[Path]:
        """Its directory, which stays while in here. Raises `ApiError` (snapshot_not_found)."""
        if copy.id not in self._copies:
            raise ApiError(SNAPSHOT_NOT_FOUND)
        self._used[copy.id] += 1
        try:
            yield self.files(copy)
        finally:
            self._used[copy.id] -= 1
