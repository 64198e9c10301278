"""What the tests of whole flows share: a stage of their own, set as each test wants it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.flows.stage import MakeStage, Stage


@pytest.fixture
async def make_stage(tmp_path: Path) -> AsyncIterator[MakeStage]:
    """Set a stage with settings of its own; see `Stage`."""
    async with AsyncExitStack() as stack:

        async def make(**settings: Any) -> Stage:
            return await stack.enter_async_context(Stage(tmp_path, **settings))

        yield make


@pytest.fixture
async def stage(make_stage: MakeStage) -> Stage:
    """A stage with the settings of production."""
    return await make_stage()
