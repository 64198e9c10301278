"""What somebody else writes into Redis holds up nothing for long, and stops nobody."""

from __future__ import annotations

import pytest

from edge.core.records import SandboxRecord, State
from edge.state.redis.layout import Layout
from tests.state.redis.conftest import Fleet, Servers, only_single

LAYOUT = Layout("edge")
BOX = SandboxRecord("sb_aaaaaaaa", State.PAUSED, 1, 1, auto_resume=True)


@only_single
@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("value", ["failed:x", "failed:not_found", "done", "0123456789abcdef"])
async def test_a_lease_for_ever_holds_up_no_wake(
    fleet: Fleet, servers: Servers, value: str
) -> None:
    """Neither is its failure believed, nor is anybody waited for: one call, at once."""
    fleet.put(BOX)
    # So long that nobody takes over from a holder who falls silent.
    fleet.settings = fleet.settings.model_copy(update={"timeout": 20.0, "lease": 600.0})
    edge = await fleet.edge()
    async with servers.client() as client:
        await client.set(LAYOUT.lease(BOX.id, 1), value)
    assert (await edge.port.resume(BOX.id, 1, "preview", 60)).incarnation == 2
    assert fleet.control.resumed == [BOX.id]
