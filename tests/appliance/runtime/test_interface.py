"""The names that the rest of the control plane uses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge.appliance import runtime
from edge.appliance.runtime import interface

ROOT = Path(__file__).resolve().parents[3]


def test_every_public_name_can_be_had() -> None:
    """What the package lists is what the interface defines, and the runtime."""
    for name in runtime.__all__:
        assert getattr(runtime, name).__name__ == name
    defined = {
        name
        for name, value in vars(interface).items()
        if isinstance(value, type) and value.__module__ == interface.__name__
    }
    assert set(runtime.__all__) == defined | {"Runtime", "Stream"}
    with pytest.raises(AttributeError, match="nonsense"):
        runtime.nonsense  # noqa: B018


def test_every_fault_is_of_one_family() -> None:
    """A caller can turn all of them into an answer in one place."""
    for name in runtime.__all__:
        value = getattr(runtime, name)
        if issubclass(value, Exception):
            assert issubclass(value, runtime.RuntimeFault)


def test_the_package_itself_loads_nothing() -> None:
    """Importing it, as each supervisor does, costs neither asyncio nor dataclasses."""
    script = (
        "import sys, edge.appliance.runtime; print({'asyncio', 'dataclasses'} & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-S", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert answer.stdout == "set()\n"
