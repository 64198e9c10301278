"""What the tests of this room share: a real control plane on loopback, and sandboxes in virtual time."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "model")]

from service import Service  # noqa: E402 - the path above has to be there first

from edge.appliance.store import Store  # noqa: E402 - as above


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A control plane on a free port, with real sandboxes, and a client for its APIs."""
    async with Service(tmp_path) as running:
        yield running


@pytest.fixture
def store() -> Iterator[Store]:
    """A store in memory."""
    store = Store(None)
    yield store
    store.close()
