"""Ids of a stream's entries: ``epoch-number``, as the scripts make them.

Who else can write to Redis may have made others. What no script makes is refused here, for both sides: the publisher
begins such a stream anew, and edges follow the control plane until it has.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from edge.state.redis.connect import RedisGone

MOST = 9 * 10**15
"""What epochs and numbers stay below. Up to there Lua counts exactly; `scripts.BEGIN` has the same number."""

_ENTRY_ID = re.compile(rb"(\d{1,16})-(\d{1,16})")


class EntryId(NamedTuple):
    """Where an entry stands."""

    epoch: int
    number: int

    def follows(self, other: EntryId) -> bool:
        """Whether nothing was between the two."""
        return self == (other.epoch, other.number + 1)


def entry_id(found: object) -> EntryId:
    """Read an id as Redis gives it. Raises `RedisGone` for what is none of ours."""
    parts = _ENTRY_ID.fullmatch(found) if isinstance(found, bytes) else None
    if parts is not None:
        read = EntryId(int(parts[1]), int(parts[2]))
        if max(read) < MOST:
            return read
    raise RedisGone("an id of an impossible shape")
