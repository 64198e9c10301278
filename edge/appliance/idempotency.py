"""Idempotency keys: a create that is repeated makes one sandbox and gets one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from edge.appliance.problems import IDEMPOTENCY_CONFLICT, ApiError
from edge.appliance.tasks import Scope

LIFETIME = 3600.0
"""Seconds a key is remembered."""

MAX_KEYS = 10_000
"""Keys remembered at once; the oldest go first."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    fingerprint: bytes
    expires: float
    task: asyncio.Task[T]


class Idempotency(Generic[T]):
    """Answers by key. ``clock`` is monotonic, in seconds.

    A failure is told to all who wait for it and then forgotten, so that it can be tried again.
    """

    def __init__(
        self, scope: Scope, clock: Callable[[], float], *, max_keys: int = MAX_KEYS
    ) -> None:
        self._scope = scope
        self._clock = clock
        self._max = max_keys
        self._entries: dict[str, _Entry[T]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def once(
        self, key: str, fingerprint: bytes, make: Callable[[], Coroutine[Any, Any, T]]
    ) -> T:
        """The answer of ``make``, which runs once per key, also for callers at the same time.

        Raises `ApiError` (``idempotency_conflict``) when the key came with another fingerprint.
        """
        self._expire()
        entry = self._entries.get(key)
        if entry is None:
            task = self._scope.spawn(make(), name="create")
            entry = self._entries[key] = _Entry(fingerprint, self._clock() + LIFETIME, task)
            task.add_done_callback(lambda done: self._settled(key, done))
        elif entry.fingerprint != fingerprint:
            raise ApiError(IDEMPOTENCY_CONFLICT)
        return await asyncio.shield(entry.task)

    def _settled(self, key: str, task: asyncio.Task[T]) -> None:
        if task.cancelled() or task.exception() is not None:
            entry = self._entries.get(key)
            if entry is not None and entry.task is task:
                del self._entries[key]

    def _expire(self) -> None:
        # Oldest first: the order of insertion is the order of expiry.
        now = self._clock()
        while self._entries:
            key, oldest = next(iter(self._entries.items()))
            if oldest.expires > now and len(self._entries) < self._max:
                break
            del self._entries[key]
