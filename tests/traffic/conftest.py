"""The stage of whole flows, with a clock that tests move, for all that happens at the edge's deadlines."""

from __future__ import annotations

import pytest

from tests.flows.conftest import make_stage, stage
from tests.flows.stage import MakeStage, Stage
from tests.traffic.dialogue import Clock

__all__ = ["make_stage", "stage"]


@pytest.fixture
def clock() -> Clock:
    """The edge's clock."""
    return Clock()


@pytest.fixture
async def timed(make_stage: MakeStage, clock: Clock) -> Stage:
    """A stage under that clock, with the deadlines of production."""
    return await make_stage(clock=clock)
