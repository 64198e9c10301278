"""Who is logged in, and how often somebody may try to be."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

LIFETIME = 12 * 3600.0
"""Seconds from a login to its end, whatever is done meanwhile: one working day."""

MAX_SESSIONS = 32
"""Sessions at once; the oldest goes when one more begins."""

MAX_FAILURES = 10
"""Wrong keys in `WINDOW`; after that nobody's key is looked at for a while."""

WINDOW = 60.0
"""Seconds a wrong key is remembered."""


@dataclass(slots=True, eq=False)
class Session:
    """One login. ``token`` proves that a form is of a page we made for it; ``ended`` is set at its end.

    ``ends_at`` is of the clock of its `Sessions`.
    """

    ends_at: float
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    ended: asyncio.Event = field(default_factory=asyncio.Event, repr=False)


class Sessions:
    """All of them, by the digest of their ids, so that no id can be read out of here. In memory only."""

    def __init__(self, clock: Callable[[], float], *, most: int = MAX_SESSIONS) -> None:
        self._clock = clock
        self._most = most
        self._all: dict[bytes, Session] = {}

    def open(self) -> tuple[str, Session]:
        """A new session and its id."""
        for key, session in list(self._all.items()):
            if self._late(session):
                self._end(key)
        if len(self._all) >= self._most:
            self._end(next(iter(self._all)))
        session_id = secrets.token_urlsafe(32)
        session = Session(self._clock() + LIFETIME)
        self._all[_key(session_id)] = session
        return session_id, session

    def find(self, session_id: str) -> Session | None:
        """The session of this id, while it lasts."""
        key = _key(session_id)
        session = self._all.get(key)
        if session is not None and self._late(session):
            self._end(key)
            return None
        return session

    def close(self, session_id: str) -> None:
        """End the session of this id, if there is one."""
        self._end(_key(session_id))

    def left(self, session: Session) -> float:
        """Seconds until it ends by itself."""
        return max(0.0, session.ends_at - self._clock())

    def _late(self, session: Session) -> bool:
        return self._clock() >= session.ends_at

    def _end(self, key: bytes) -> None:
        session = self._all.pop(key, None)
        if session is not None:
            session.ended.set()


class Attempts:
    """Wrong keys lately, of everybody: on loopback all have the same address."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: deque[float] = deque(maxlen=MAX_FAILURES)

    def wait(self) -> float:
        """Seconds until the next key is looked at; 0 = now."""
        if len(self._failures) < MAX_FAILURES:
            return 0.0
        return max(0.0, self._failures[0] + WINDOW - self._clock())

    def failed(self) -> None:
        """A key was wrong."""
        self._failures.append(self._clock())


def _key(session_id: str) -> bytes:
    return hashlib.sha256(session_id.encode("utf-8", "surrogateescape")).digest()
