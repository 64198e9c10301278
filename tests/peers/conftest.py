"""What the tests with real peers share: a stage, and one process of Node for all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.flows.stage import Stage
from tests.peers.node_peer import Node, packages, started


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage with the settings of production."""
    async with Stage(tmp_path) as stage:
        yield stage


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """Node alone, for HTTP. Only for tests that are marked to need it."""
    with started(None) as process:
        yield process


@pytest.fixture(scope="session")
def node_with_ws() -> Iterator[Node]:
    """Node with `ws`. Only for tests that are marked to need node and npm."""
    with started(packages()) as process:
        yield process
