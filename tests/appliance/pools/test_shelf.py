"""Pools on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from warehouse import definition

from edge.appliance.pools.pool import PoolState, Standing
from edge.appliance.pools.shelf import shelf
from edge.appliance.store import Store, StoreError

ODD = definition(
    name="\u2603 ' \" \\",
    labels={"a": "b"},
    metadata={"deep": [1, {"x": None}], "\ud800": "\udfff", "large": 10**40},
    resources={"vcpus": 1, "memory_mb": 2, "disk_mb": 3},
    stale_after_seconds=5,
)


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    """Every field, in the order of making, from a file that was closed and opened."""
    first = Standing("twp_z", ODD, PoolState.DRAINING, 1.5, 2.5, 3, 4.5, None, 5.5)
    second = Standing("twp_a", definition(), PoolState.ENABLED, 1.0, 1.0)
    store = Store(tmp_path / "state.sqlite")
    rows = shelf(store)
    rows.put(Standing("twp_z", definition(), PoolState.ENABLED, 1.0, 1.0))
    rows.put(second)
    rows.put(Standing("twp_gone", ODD, PoolState.ENABLED, 1.0, 1.0))
    rows.put(first)
    rows.remove("twp_gone")
    store.close()
    store = Store(tmp_path / "state.sqlite")
    assert shelf(store).load() == [first, second]
    store.close()


def test_a_row_of_an_older_version_has_the_defaults() -> None:
    """What was not there yet when it was written."""
    store = Store(None)
    rows = shelf(store)
    standing = Standing("twp_1", definition(), PoolState.ENABLED, 1.0, 1.0)
    rows.put(standing)
    store.write(
        "UPDATE warm_pools SET body = json_remove(body, '$.generation', '$.definition.labels')"
    )
    assert rows.load() == [standing]
    store.close()


@pytest.mark.parametrize("body", ["{", "{}", '{"definition": {"name": "x"}, "state": "enabled"}'])
def test_a_row_that_means_nothing_is_told(body: str) -> None:
    """With the name of the pool."""
    store = Store(None)
    rows = shelf(store)
    store.write("INSERT INTO warm_pools VALUES ('twp_1', ?)", (body,))
    with pytest.raises(StoreError, match="warm_pools twp_1"):
        rows.load()
    store.close()
