"""Tests are found where they are looked for: every module has a test file of its name."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = [
    path.relative_to(ROOT / "edge")
    for path in sorted((ROOT / "edge").rglob("*.py"))
    if path.name != "__init__.py"
]

ELSEWHERE = {
    Path("__main__.py"): Path("test_cli.py"),
    Path("appliance/__main__.py"): Path("appliance/test_main.py"),
}
"""Entry points, which are tested by starting them."""


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_every_module_has_a_test_file_of_its_name(module: Path) -> None:
    """CONTRIBUTING.md promises it, so that nobody has to search."""
    expected = ELSEWHERE.get(module, module.with_name(f"test_{module.name}"))
    found = (ROOT / "tests" / expected).is_file()
    assert found, f"edge/{module} lacks tests/{expected}"
