"""How the parts are put together."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from service import config

from edge.appliance.barrier import REJOINING
from edge.appliance.config import EdgeLine
from edge.appliance.keys import SigningKeys
from edge.appliance.parts import build_parts
from edge.appliance.problems import SANDBOX_NOT_FOUND, ApiError
from edge.appliance.runtime import Runtime
from edge.appliance.store import Store
from edge.core.target import Site


async def test_ports_of_our_own_cannot_be_previewed(tmp_path: Path, store: Store) -> None:
    """The API's, the edge's and what is reserved besides, before and after the edge is known."""
    settings = config(tmp_path, port=3000)
    parts = build_parts(settings, Runtime(tmp_path / "s"), SigningKeys(tmp_path), store, log=print)
    assert {3000, 3002, 8443} <= parts.minter.reserved
    parts.set_edge(EdgeLine(public_port=4001, reserved_ports=(4002,)), 4000)
    assert parts.minter.reserved == {4000, 4001, 4002}
    assert parts.minter.site == Site("edge.test", "https", 4001)


async def test_a_cursor_of_an_earlier_run_is_not_of_this_one(tmp_path: Path, store: Store) -> None:
    """The log starts above it, so an edge that comes back after a restart is told to resync."""
    key, runtime = SigningKeys(tmp_path), Runtime(tmp_path / "s")
    runs = [
        build_parts(config(tmp_path), runtime, key, store, log=print, wall=lambda now=now: now).feed
        for now in (1_700_000_000.0, 1_700_000_001.0)
    ]
    assert runs[1].since(runs[0].cursor) is None


async def test_after_a_restart_edges_are_waited_for(tmp_path: Path, store: Store) -> None:
    """They may have requests in flight and not be back yet. In a new directory there were none."""
    key, runtime, clock = (
        SigningKeys(tmp_path),
        Runtime(tmp_path / "s"),
        asyncio.get_running_loop().time,
    )
    first, second = [
        build_parts(config(tmp_path), runtime, key, store, log=print).edges for _ in range(2)
    ]
    assert first.complete_at <= clock() < second.complete_at <= clock() + REJOINING


async def test_refusals_are_not_logged_as_crashes(tmp_path: Path, store: Store) -> None:
    """A task that ends with an `ApiError` was answered; any other exception is a line in the log."""
    logged: list[str] = []
    parts = build_parts(
        config(tmp_path),
        Runtime(tmp_path / "s"),
        SigningKeys(tmp_path),
        store,
        log=lambda event, **fields: logged.append(f"{event} {fields['task']}"),
    )

    async def fail(error: Exception) -> None:
        raise error

    for error in (ApiError(SANDBOX_NOT_FOUND), ValueError("bug")):
        with pytest.raises(type(error)):
            await parts.scope.shared(fail(error), name=type(error).__name__)
    await parts.scope.close()
    assert logged == ["crash ValueError"]
