"""Real sandboxes for the tests of the runtime, frozen in both ways."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge.appliance.runtime import Runtime
from edge.appliance.runtime.cgroup import Cgroup

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The data directory, which does not exist yet."""
    return tmp_path / "sandboxes"


@pytest.fixture(params=["cgroup", "signals"])
def cgroups(request: pytest.FixtureRequest) -> bool:
    """Both ways to freeze, the first where this machine lets us."""
    if request.param == "signals":
        return False
    probe = Cgroup.make(f"test.{os.getpid()}")
    if probe is None:
        pytest.skip("this machine lets us have no cgroup v2 that can be frozen")
    probe.remove()
    return True


@pytest.fixture
async def runtime(root: Path, cgroups: bool) -> AsyncIterator[Runtime]:
    """A started runtime that freezes in one of both ways."""
    runtime = Runtime(root, cgroups=cgroups)
    await runtime.start()
    yield runtime
    await runtime.close()


@pytest.fixture
async def sandbox(runtime: Runtime) -> str:
    """The id of a sandbox in which nothing runs."""
    await runtime.create("sb_test0001", envs={}, cwd=None)
    return "sb_test0001"
