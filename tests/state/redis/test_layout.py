"""Names and shards: stable, spread, and each record beside the stream of its changes."""

from __future__ import annotations

from collections import Counter

import pytest
from redis.crc import key_slot

from edge.state.redis.layout import SHARDS, Layout, shard_of


def test_shards_never_change() -> None:
    """A publisher of another language, or of last year, must find the same."""
    assert [shard_of(text) for text in ("sb_1a2b3c4d", "pvg_" + "0" * 32, "é", "")] == [
        13,
        12,
        14,
        0,
    ]


def test_ids_spread_over_all_shards() -> None:
    """No shard has more than twice its part."""
    found = Counter(shard_of(f"sb_{n:08x}") for n in range(16_000))
    assert len(found) == SHARDS and max(found.values()) < 2000


@pytest.mark.parametrize("record_id", ["sb_1a2b3c4d", "odd{id}", "{}", "a b\n"])
def test_a_record_its_lease_and_its_changes_share_a_slot(record_id: str) -> None:
    """One script writes them, in a Cluster too, whatever the id is."""
    layout = Layout("edge")
    keys = (
        layout.record("sandbox", record_id),
        layout.changes(shard_of(record_id)),
        layout.lease(record_id, 3),
    )
    assert len({key_slot(key.encode()) for key in keys}) == 1


def test_fleets_do_not_meet() -> None:
    """Every key begins with the prefix."""
    layout = Layout("blue")
    keys = [
        layout.record("grant", "x"), layout.changes(0), layout.lease("x", 1), layout.members, layout.batches,
    ]  # fmt: skip
    assert all(key.startswith("blue:{") for key in keys)
    assert len(set(keys)) == len(keys)
