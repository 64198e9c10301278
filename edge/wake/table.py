"""A dictionary with a limit: what has not been used for longest is forgotten first, roughly.

Exact least-recently-used order would cost a write on every read. Two halves do nearly as well for one
dictionary look-up on the hot path: what is read moves to the young half; when the young half is full it
becomes the old one, and the old one, unread for as long as it took to fill a half, is dropped.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Generic, TypeVar

V = TypeVar("V")


class Table(Generic[V]):
    """At most ``limit`` values by string key (one half may be a little over for what is kept)."""

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._young: dict[str, V] = {}
        self._old: dict[str, V] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __contains__(self, key: str) -> bool:
        return key in self._young or key in self._old

    def get(self, key: str) -> V | None:
        """The value, which counts as used by this, or None."""
        value = self._young.get(key)
        if value is None and (value := self._old.pop(key, None)) is not None:
            self._young[key] = value
        return value

    def put(self, key: str, value: V, keep: Collection[str] = ()) -> None:
        """Store a value. Keys in ``keep`` (a few, somebody waits on them) survive a turn of the halves."""
        self._old.pop(key, None)
        if len(self._young) >= self._half and key not in self._young:
            for kept in keep:
                self.get(kept)
            self._old, self._young = self._young, {}
        self._young[key] = value
