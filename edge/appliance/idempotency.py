"""Idempotency keys: a create that is repeated makes one sandbox and gets one answer, also after a restart."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from edge.appliance.problems import IDEMPOTENCY_CONFLICT, ApiError
from edge.appliance.rows import Rows
from edge.appliance.store import Store
from edge.appliance.tasks import Scope

LIFETIME = 3600.0
"""Seconds a key is remembered."""

MAX_KEYS = 10_000
"""Keys remembered at once; the oldest go first."""

T = TypeVar("T")

Keep = Callable[[T], None]
"""Write the answer to the store; for the transaction that makes what it tells of."""


@dataclass(slots=True)
class _Entry(Generic[T]):
    """``id`` is a digest of the key. ``task`` is None for an answer that an earlier run has made."""

    id: str
    fingerprint: bytes
    expires: float
    task: asyncio.Task[T] | None = None
    answer: T | None = None


class Idempotency(Generic[T]):
    """Answers by key. ``wall`` is Unix time, in seconds. What is kept of an answer has to be JSON.

    A failure is told to all who wait for it and then forgotten, so that it can be tried again. Raises
    `StoreError`.
    """

    def __init__(
        self,
        scope: Scope,
        store: Store,
        wall: Callable[[], float],
        *,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self._scope = scope
        self._wall = wall
        self._max = max_keys
        self._rows: Rows[_Entry[T]] = Rows(
            store, "creates", write=_to_document, read=_from_document
        )
        self._entries = {entry.id: entry for entry in self._rows.load()}

    def __len__(self) -> int:
        return len(self._entries)

    async def once(
        self, key: str, fingerprint: bytes, make: Callable[[Keep[T]], Coroutine[Any, Any, T]]
    ) -> T:
        """The answer of ``make``, which runs once per key, also for callers at the same time.

        ``make`` is given a function that writes what a repeat after a restart is to be answered. Raises
        `ApiError` (``idempotency_conflict``) when the key came with another fingerprint.
        """
        self._expire()
        # A header may hold any bytes; text in the store may not.
        name = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        entry = self._entries.get(name)
        if entry is None:
            entry = self._begin(name, fingerprint, make)
        elif entry.fingerprint != fingerprint:
            raise ApiError(IDEMPOTENCY_CONFLICT)
        if entry.task is None:
            assert entry.answer is not None
            return entry.answer
        return await asyncio.shield(entry.task)

    def _begin(
        self, name: str, fingerprint: bytes, make: Callable[[Keep[T]], Coroutine[Any, Any, T]]
    ) -> _Entry[T]:
        entry: _Entry[T] = _Entry(name, fingerprint, self._wall() + LIFETIME)

        def keep(answer: T) -> None:
            self._rows.put(_Entry(name, fingerprint, entry.expires, answer=answer))

        task = entry.task = self._scope.spawn(make(keep), name="create")
        self._entries[name] = entry
        task.add_done_callback(lambda done: self._settled(name, done))
        return entry

    def _settled(self, name: str, task: asyncio.Task[T]) -> None:
        if task.cancelled() or task.exception() is not None:
            entry = self._entries.get(name)
            if entry is not None and entry.task is task:
                del self._entries[name]

    def _expire(self) -> None:
        # Oldest first: the order of insertion is the order of expiry.
        now = self._wall()
        while self._entries:
            name, oldest = next(iter(self._entries.items()))
            if oldest.expires > now and len(self._entries) < self._max:
                break
            self._rows.remove(name)
            del self._entries[name]


def _to_document(entry: _Entry[Any]) -> dict[str, Any]:
    return {
        "id": entry.id,
        "fingerprint": entry.fingerprint.hex(),
        "expires": entry.expires,
        "answer": entry.answer,
    }


def _from_document(document: dict[str, Any]) -> _Entry[Any]:
    return _Entry(
        document["id"],
        bytes.fromhex(document["fingerprint"]),
        document["expires"],
        answer=document["answer"],
    )
