"""Every case of the YAML files beside this one, before the real edge, on real sockets."""

from __future__ import annotations

import pytest

from tests.conformance.cases import Case, load
from tests.conformance.driver import play

CASES = load()


@pytest.mark.parametrize("case", CASES, ids=[f"{case.theme}: {case.name}" for case in CASES])
async def test_case(case: Case) -> None:
    """The edge does with the bytes on trial what the case says, and nothing of them reaches the next message."""
    await play(case)


def test_cases_are_many_and_each_is_named_once() -> None:
    """Nobody lost a file or copied a case without giving it a name of its own."""
    names = [(case.theme, case.name) for case in CASES]
    assert len(names) == len(set(names))
    assert len(names) >= 200
