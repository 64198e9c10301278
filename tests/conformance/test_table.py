"""docs/conformance.md says of the edge what the cases say."""

from __future__ import annotations

from tests.conformance.cases import load
from tests.conformance.table import PAGE, edge_column, page


def test_edge_column_is_current() -> None:
    """Every case has its row, in order, and the edge's cell in it is what the test of that case proves."""
    wanted = edge_column(page(load(), []))
    there = edge_column(PAGE.read_text("utf-8"))
    assert there == wanted, "run `python -m tests.conformance.compare`"
