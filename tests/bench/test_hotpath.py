"""The in-process measurement: it runs what the scenarios of its names ask for, to the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench import hotpath


@pytest.mark.parametrize("kind", hotpath.KINDS)
async def test_every_request_of_a_kind_is_answered(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time for each batch; an answer that is missing would be an error."""
    monkeypatch.setattr(hotpath, "TURNS", 3)
    ran = []

    def run(batch: Callable[[], None]) -> None:
        batch()
        ran.append(batch)

    times = await hotpath.measure(kind, 2, run)
    assert len(times) == len(ran) == 2


def test_no_two_answers_of_the_mixed_kind_are_alike() -> None:
    """As in the scenario; those to the other kind are all the same."""
    for kind, different in (("get", 1), ("mixed", 50)):
        answers = hotpath.answers(kind)
        some = {next(answers) for _ in range(50)}
        assert len(some) == different
