"""Waiting for a change of one thing: subscribe, re-check, wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Signal:
    event: asyncio.Event = field(default_factory=asyncio.Event)
    waiting: int = 0


class Signals:
    """One event per key, which exists only while somebody waits for it."""

    def __init__(self) -> None:
        self._signals: dict[str, _Signal] = {}

    def __len__(self) -> int:
        return len(self._signals)

    def __iter__(self) -> Iterator[str]:
        return iter(self._signals)

    def __contains__(self, key: object) -> bool:
        return key in self._signals

    @contextmanager
    def subscribe(self, key: str) -> Iterator[asyncio.Event]:
        """The event of the next `release`. Re-check what you wait for between entering and waiting."""
        signal = self._signals.setdefault(key, _Signal())
        signal.waiting += 1
        try:
            yield signal.event
        finally:
            signal.waiting -= 1
            # After a release the key may have a newer signal, which is not ours to drop.
            if not signal.waiting and self._signals.get(key) is signal:
                del self._signals[key]

    def release(self, key: str) -> None:
        """Wake everybody who subscribed to ``key`` up to now."""
        signal = self._signals.pop(key, None)
        if signal is not None:
            signal.event.set()

    def release_all(self) -> None:
        """Wake everybody."""
        for key in tuple(self._signals):
            self.release(key)
