"""When an instance is too old."""

from __future__ import annotations

import pytest

from edge.appliance.pools.instance import Instance, Size


@pytest.mark.parametrize(
    ("idle", "stale", "due"),
    [(None, None, None), (10, None, 15), (None, 10, 10), (10, 16, 15), (20, 10, 10)],
)
def test_idle_counts_from_ready_and_stale_from_begun(
    idle: float | None, stale: float | None, due: float | None
) -> None:
    """Whichever comes first."""
    assert Instance("sb_1", begun_at=0, ready_at=5).due(Size(1, 1, idle, stale)) == due
