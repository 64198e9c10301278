"""Ids of entries: as the scripts make them, and no others."""

from __future__ import annotations

from typing import Any

import pytest

from edge.state.redis.connect import RedisGone
from edge.state.redis.ids import MOST, EntryId, entry_id


@pytest.mark.parametrize("epoch", [0, 7, 1_800_000_000_000, MOST - 1])
def test_what_a_script_makes_is_read(epoch: int) -> None:
    """Ids up to the largest are read as the two numbers they are."""
    assert entry_id(b"%d-%d" % (epoch, 3)) == (epoch, 3)
    assert entry_id(b"%d-%d" % (3, epoch)) == (3, epoch)


@pytest.mark.parametrize(
    "nonsense",
    [
        b"", b"-", b"7-", b"-7", b"7", b"x-1", b"1-x", b"-7-1", b"7--1", b"7-1-1", b" 7-1", b"7-1\n", b"7_0-1", b"+7-1",
        "\N{ARABIC-INDIC DIGIT SEVEN}-1".encode(), b"%d-0" % MOST, b"0-%d" % MOST, b"0-%d" % (2**64 - 1), b"1" * 5000 + b"-0",
        None, "7-1", 7, [], (7, 1),
    ],
)  # fmt: skip
def test_nothing_else_is(nonsense: Any) -> None:
    """Neither what is no id at all, nor what Lua could not count on from."""
    with pytest.raises(RedisGone):
        entry_id(nonsense)


def test_the_next_number_follows() -> None:
    """Within the same epoch; nothing else does."""
    here = EntryId(7, 9)
    assert EntryId(7, 10).follows(here)
    for other in (EntryId(7, 9), EntryId(7, 11), EntryId(8, 10), EntryId(8, 0), EntryId(7, 8)):
        assert not other.follows(here)
