"""Whoever plays the runtime in tests of states can do what the real one can, and is asked for no more."""

from __future__ import annotations

import inspect

import pytest
from stage import Scripted

from edge.appliance.executions import Executions
from edge.appliance.runtime import Runtime

ASKED = [name for name in vars(Executions) if not name.startswith("_")]


@pytest.mark.parametrize("kind", [Runtime, Scripted])
def test_both_take_what_states_say(kind: type) -> None:
    """Every call that a state makes is there, and takes the arguments by the names that it says."""
    said = {name for name in ASKED if inspect.isfunction(vars(Executions)[name])}
    assert {"create", "freeze", "thaw", "destroy", "publish"} <= said
    for name in said:
        wanted = inspect.signature(getattr(Executions, name)).parameters
        taken = inspect.signature(getattr(kind, name)).parameters
        loose = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values())
        assert loose or set(wanted) <= set(taken), name
