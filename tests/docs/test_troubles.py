"""docs/troubles.md: every trouble names a test that exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubles.md").read_text()
NAME = re.compile(r"`((?!tests/)[a-z_/]+/test_[a-z_]+\.py)(?:::(test_\w+))?`")
NAMED = NAME.findall(PAGE)
ROWS = [
    line
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith(("| trouble", "|---"))
]


def test_every_row_names_a_test() -> None:
    """One at least, in the last column."""
    assert len(ROWS) > 30
    assert not [row for row in ROWS if not NAME.search(row.rsplit("|", 2)[1])]


@pytest.mark.parametrize(("file", "test"), NAMED)
def test_the_test_exists(file: str, test: str) -> None:
    """Under that name in that file."""
    text = (ROOT / "tests" / file).read_text()
    assert f"def {test}(" in text if test else "def test_" in text
