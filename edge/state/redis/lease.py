"""The wake lease: of many edges that want to wake one sandbox, one asks the control plane.

An optimisation, and nothing else. Whoever finds Redis gone, or the lease lost, goes on as if there were none:
the control plane compares incarnations, and one new one comes of any number of calls.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

from edge.state.port import RefusalReason
from edge.state.redis import scripts
from edge.state.redis.beside import beside
from edge.state.redis.connect import Connection, RedisGone

FAILED = "failed:"
"""What the key begins with while it tells of a failure; the reason follows."""
DONE = "done"
"""What the key says of a wake that was carried out: the record is on its way to whoever looks on."""
MEMORY = 1.0
"""Seconds the end of a wake is told to other edges."""

_TOKEN = re.compile(r"[0-9a-f]{16}")
_REFUSALS = {FAILED + reason: reason for reason in RefusalReason}


class Turn(Enum):
    """Whose turn it is."""

    OURS = "we ask"
    THEIRS = "somebody else asks"
    OVER = "somebody else has asked, and was answered"


class Lease:
    """The lease on one sandbox's wake. ``seconds`` is how long it outlives a holder that fell silent."""

    def __init__(self, connection: Connection, key: str, seconds: float) -> None:
        self._connection = connection
        self._key = key
        self._seconds = seconds
        self._token = secrets.token_hex(8)
        self._gone = False

    async def take(self) -> Turn | RefusalReason:
        """Try to get it; a reason when another edge's attempt has just failed."""
        try:
            holder = await self._connection.run(
                scripts.TAKE,
                [self._key],
                self._token,
                round(self._seconds * 1000),
                round(max(self._seconds, MEMORY) * 1000),
            )
        except RedisGone:
            self._gone = True
            return Turn.OURS
        return self._turn(holder.decode("ascii", "replace") if isinstance(holder, bytes) else "")

    def _turn(self, holder: str) -> Turn | RefusalReason:
        if holder in _REFUSALS:
            return _REFUSALS[holder]
        if holder == DONE:
            return Turn.OVER
        # Whatever does not look like a holder's token is none: nonsense must not keep anybody waiting.
        theirs = _TOKEN.fullmatch(holder) and holder != self._token
        return Turn.THEIRS if theirs else Turn.OURS

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keep it in here. Should it be lost all the same, nothing changes in here."""
        async with beside(self._keep()):
            yield

    async def leave(self, said: str = "") -> None:
        """Give it back, or (``said``) leave word for a moment how the wake has ended."""
        if self._gone:
            return  # perhaps taken all the same; it ends by itself, and nobody shall wait for Redis twice
        try:
            await self._connection.run(
                scripts.LEAVE, [self._key], self._token, said, round(MEMORY * 1000)
            )
        except RedisGone:
            pass  # it ends by itself

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / 3)
            try:
                kept = await self._connection.run(
                    scripts.KEEP, [self._key], self._token, round(self._seconds * 1000)
                )
            except RedisGone:
                continue
            if not kept:
                return  # somebody took over, or Redis was flushed
