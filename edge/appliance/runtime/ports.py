"""The ports of this machine by which sandboxes with networks of their own are reached.

One that was given back rests before it leads anywhere else. An edge that has lost touch with its control plane goes by
the last record it had for a while, and that record names a port: whoever is allowed to visit the sandbox that has ended
must not come out in another one.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable, Sequence

REST = 90.0
"""Seconds. An edge goes by a record for `catalog.stale_limit` (60 s) without a word from its control plane; the rest is
for requests that had been decided on by then, and wait for a connection."""

_TRIED = 100
# Below the ports that the kernel gives to outgoing connections (Linux: 32768 and up).
_NUMBERS = range(20_000, 32_000)


class Ports:
    """All of them. ``clock`` is in seconds and never goes back."""

    def __init__(self, clock: Callable[[], float], numbers: Sequence[int] = _NUMBERS) -> None:
        self._clock = clock
        self._numbers = numbers
        self._resting: dict[int, float] = {}
        """Until when, the first to be over first."""

    def take(self) -> socket.socket:
        """A socket on a free port of loopback that does not listen. Raises OSError."""
        self._wake()
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            for number in random.sample(self._numbers, min(_TRIED, len(self._numbers))):
                if number in self._resting:
                    continue
                try:
                    # By number: a port that the kernel has chosen would be lost with the first shutdown.
                    sock.bind(("127.0.0.1", number))
                except OSError:
                    continue
                return sock
        except BaseException:
            sock.close()
            raise
        sock.close()
        raise OSError("no free port was found")

    def give_back(self, number: int) -> None:
        """Nothing of ours is behind it any more."""
        self._resting.pop(number, None)
        self._resting[number] = self._clock() + REST

    def _wake(self) -> None:
        now = self._clock()
        for number, until in tuple(self._resting.items()):
            if until > now:
                return
            del self._resting[number]
