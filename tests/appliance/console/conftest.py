"""A logged-in desk in front of a real control plane."""

from __future__ import annotations

import pytest
from service import Service

from tests.appliance.console.desk import Desk


@pytest.fixture
async def desk(service: Service) -> Desk:
    """Somebody who has given the key."""
    desk = Desk(service)
    assert (await desk.log_in()).status == 303
    return desk
