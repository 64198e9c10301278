"""The table of refusals: every row is fit to be shown."""

from __future__ import annotations

import pytest

from edge.appliance import problems
from edge.appliance.problems import ApiError, invalid
from edge.core.errors import Problem

ROWS = [value for value in vars(problems).values() if isinstance(value, Problem)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.code)
def test_rows(row: Problem) -> None:
    """A code in the usual form, an error status (never 429, which clients retry), two sentences."""
    assert row.code.replace("_", "").islower()
    assert 400 <= row.status < 600 and row.status != 429
    assert row.message.endswith(".") and row.action.endswith(".")


def test_codes_are_used_once() -> None:
    """No code stands in two rows of the table."""
    codes = [row.code for row in ROWS]
    assert len(set(codes)) == len(codes)


def test_an_error_tells_its_own_sentence() -> None:
    """The particular message wins over the row's, and errors can be put into sets."""
    error = invalid("x: must be y", x=1)
    assert str(error) == "invalid_request: x: must be y"
    assert error.details == {"x": 1}
    assert len({error, ApiError(problems.NOT_FOUND)}) == 2
