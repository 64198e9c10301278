"""What the tests with real peers share: a stage, and one process of Node for all of them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.flows.stage import Stage
from tests.npm import installed
from tests.peers.node_peer import Node, started

# Before the module is imported: only then its assertions say what was compared.
pytest.register_assert_rewrite("tests.peers.heads")


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """A stage with the settings of production."""
    async with Stage(tmp_path) as stage:
        yield stage


# Asked for by every test, also by those that do without: started in the middle of one, Node would block
# its loop.
@pytest.fixture(scope="session")
def node() -> Iterator[Node | None]:
    """Node alone, for HTTP; None where it is missing, and whoever needs it is marked."""
    if shutil.which("node") is None:
        yield None
        return
    with started(None) as process:
        yield process


@pytest.fixture(scope="session")
def node_with_ws() -> Iterator[Node | str]:
    """Node with `ws`; where it cannot be had, the reason."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        yield "node or npm is missing"
        return
    try:
        modules = installed(Path(__file__).parent)
    except subprocess.CalledProcessError as e:
        yield f"npm could not install ws: {e.stderr.decode(errors='replace')}"
        return
    with started(modules) as process:
        yield process
