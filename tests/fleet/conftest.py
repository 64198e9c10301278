"""One fleet of processes for all tests of a module, and the report of what each trouble cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.stage import FleetStage
from tests.fleet.world import World
from tests.state.redis.sets import Set
from tests.state.redis.valkey import Valkey

MakeFleet = Callable[..., Awaitable[FleetStage]]

LINE = "what the fleet went through"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Redis, a control plane and three edges."""
    with World(tmp_path_factory.mktemp("fleet")) as made:
        yield made


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """Lines that are printed below the tests' results."""
    lines: list[str] = []
    yield lines
    # With the test's result, which is what comes from the processes of `pytest -n`.
    request.node.user_properties += [(LINE, line) for line in lines]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What every trouble cost."""
    lines = [
        line
        for report in (one for kind in terminalreporter.stats.values() for one in kind)
        if getattr(report, "when", "") == "teardown"
        for name, line in report.user_properties
        if name == LINE
    ]
    if lines:
        terminalreporter.section("what the fleet went through")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[Valkey]:
    """A server of the test's own."""
    async with Valkey(tmp_path) as server:
        yield server


@pytest.fixture
async def make_fleet(
    request: pytest.FixtureRequest, tmp_path: Path, redis: Valkey, report: list[str]
) -> AsyncIterator[MakeFleet]:
    """Set a stage with settings of its own; see `FleetStage`."""
    before = len(report)
    async with AsyncExitStack() as stack:
        made: list[FleetStage] = []

        async def make(servers: Valkey | Set = redis, **settings: Any) -> FleetStage:
            made.append(FleetStage(tmp_path, servers, **settings))
            return await stack.enter_async_context(made[-1])

        yield make
        if len(report) == before:  # the test has not said more itself
            report += [fleet.line(request.node.name) for fleet in made]


@pytest.fixture
async def fleet(make_fleet: MakeFleet) -> FleetStage:
    """A fleet with the settings of production."""
    return await make_fleet()
