"""The record of a sandbox: what edges may rely on in every state."""

from __future__ import annotations

import pytest

from edge.appliance.sandbox import Plan, Sandbox
from edge.core.records import State


@pytest.mark.parametrize("state", State)
def test_a_route_exists_exactly_while_it_runs(state: State) -> None:
    """Upstream and start time are told while processes run, a pausing one included, else never."""
    plan = Plan("base", 1, 1, "/workspace", {}, True, 5.0, {}, "localhost:${PORT}", "ab" * 32)
    sandbox = Sandbox("sb_1", 1, plan, 0.0, 1000, "hibernate", state, 3, 2, started_at=9.0)
    record = sandbox.record()
    runs = state in (State.RUNNING, State.PAUSING)
    assert (record.upstream is not None) is runs
    assert (record.running_since == 9.0) is runs
    if runs:
        assert record.upstream is not None
        assert record.upstream.address(8080) == ("127.0.0.1", 8080)
    assert (record.version, record.incarnation, record.auto_resume) == (3, 2, True)
    assert record.mask_request_host == "localhost:${PORT}"
    assert record.traffic_token_sha256 == "ab" * 32
    assert sandbox.idle_at == 5.0
