"""A pool as the client reads it."""

from __future__ import annotations

import dataclasses

from nullspace.types import TemplateWarmPoolInfo, TemplateWarmPoolStatusCounts
from warehouse import Warehouse, here, play

from edge.appliance.pools.view import pool_view


def test_the_keys_are_published_ones() -> None:
    """Nothing that the client's own object would not know, where it is built from what came."""

    async def script(warehouse: Warehouse) -> None:
        view = pool_view(await warehouse.pool(2, resources={"disk_mb": 7}))
        known = {field.name for field in dataclasses.fields(TemplateWarmPoolInfo)}
        assert set(view) - known == {"resources"}
        assert view["resources"] == {"vcpus": 2, "memory_mb": 512, "disk_mb": 7}
        counts = {field.name for field in dataclasses.fields(TemplateWarmPoolStatusCounts)}
        assert set(view["status"]) == counts  # type: ignore[call-overload]

    play(script)


def test_the_counts() -> None:
    """What is there now, and what became of the others."""

    async def script(warehouse: Warehouse) -> None:
        pool = await warehouse.pool(3)
        await pool.stock.claim(0, here)
        warehouse.places.cool(warehouse.places.made[-1])
        status = pool_view(pool)["status"]
        assert status == {
            "target": 3,
            "ready": 1,
            "warming": 0,
            "claimed": 1,
            "draining": 1,
            "failed": 0,
            "expired": 0,
            "unavailable": 1,
        }
        assert pool_view(pool)["degraded_reason"] == "artifact_prewarm_failed"

    play(script)
