"""One fleet of processes for all tests of a module, and the report of what each trouble cost."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fleet.world import World

LINES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Redis, a control plane and three edges."""
    with World(tmp_path_factory.mktemp("fleet")) as made:
        yield made


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[str]:
    """Lines that are printed below the tests' results."""
    return request.config.stash.setdefault(LINES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What every trouble cost."""
    lines = terminalreporter.config.stash.get(LINES, [])
    if lines:
        terminalreporter.section("what the fleet went through")
        for line in lines:
            terminalreporter.write_line(line)
