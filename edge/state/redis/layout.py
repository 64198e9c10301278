"""How records lie in Redis: names of keys, shards, sizes.

Records and the stream of their changes share one of `SHARDS` hash tags, so that one script can write both,
in a Cluster too (Cluster specification, "hash tags"). The prefix is the operator's: two fleets may share a
server. ``config/redis.acl`` names the same keys; if you change one, change the other.

=====================================  ======  ============================================================
key                                    type    content
=====================================  ======  ============================================================
``P:{sNN}:sandbox:ID``                 hash    ``v`` the version, ``r`` the record as JSON, ``e`` the epoch of
                                               the changes in which the publisher last said it, or a
                                               remark that it is disputed
``P:{sNN}:grant:ID``                   hash    the same; expires a while after the grant
``P:{sNN}:changes``                    stream  ``k`` (sandbox, grant) and ``r``; ``b``, a heartbeat; ``n``, the
                                               beginning of an epoch
``P:{sNN}:server``                     string  replication id of the server on which ``changes`` was begun
``P:{sNN}:lease:ID:INCARNATION``       string  who wakes the sandbox, or how its latest wake has ended
``P:{edges}:members``                  zset    members by the time (ms, of Redis) until which they are
``P:{usage}:batches``                  stream  ``u``: a usage batch that the control plane could not take
=====================================  ======  ============================================================
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from edge.state.wire import MAX_EDGE_NAME

SHARDS = 16
"""Enough to spread over the nodes of any Cluster, few enough to read all of them at once."""
KEPT_CHANGES = 10_000
"""Changes kept per shard; an edge that was away for longer doubts everything it knows."""
KEPT_BATCHES = 1000
"""Usage batches that wait for a control plane that is away; edges keep the others."""
MAX_BATCH = 1 << 20
"""Bytes of a usage batch. One has 300 kB at most; what is longer is neither left nor read."""
MAX_RECORD = 16_384
"""Bytes of a record. One has a few hundred; what is longer is not read."""
MAX_MEMBERS = 10_000
"""Members at once."""
MAX_MEMBER = 4 * MAX_EDGE_NAME
"""Bytes of a member's name, in UTF-8."""


def shard_of(record_id: str) -> int:
    """The shard of a record (CRC-32 of its id, so that other programs can compute it, too)."""
    return zlib.crc32(record_id.encode("utf-8", "surrogatepass")) % SHARDS


@dataclass(frozen=True, slots=True)
class Layout:
    """The names of keys below one prefix."""

    prefix: str

    def record(self, kind: str, record_id: str) -> str:
        """Where a record lies; ``kind`` is sandbox or grant."""
        return f"{self._shard(shard_of(record_id))}:{kind}:{record_id}"

    def changes(self, shard: int) -> str:
        """The stream of one shard's changes."""
        return f"{self._shard(shard)}:changes"

    def server(self, shard: int) -> str:
        """On which server that stream was begun."""
        return f"{self._shard(shard)}:server"

    def lease(self, sandbox_id: str, incarnation: int) -> str:
        """Who wakes a sandbox from this incarnation."""
        return f"{self._shard(shard_of(sandbox_id))}:lease:{sandbox_id}:{incarnation}"

    @property
    def members(self) -> str:
        """Which edges are members."""
        return f"{self.prefix}:{{edges}}:members"

    @property
    def batches(self) -> str:
        """Usage for a control plane that is away."""
        return f"{self.prefix}:{{usage}}:batches"

    def _shard(self, shard: int) -> str:
        return f"{self.prefix}:{{s{shard:02d}}}"
