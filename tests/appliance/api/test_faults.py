"""The runtime's refusals in the API's terms."""

from __future__ import annotations

import pytest

from edge.appliance import runtime
from edge.appliance.api.faults import FAULTS, told
from edge.appliance.problems import ApiError

NOT_FROM_HANDLERS = {runtime.FreezeFailed}


def test_every_fault_has_a_row() -> None:
    """A new way to fail in the runtime needs a row, or it would be a 500."""
    kinds = {getattr(runtime, name) for name in runtime.__all__}
    faults = {
        kind
        for kind in kinds
        if isinstance(kind, type)
        and issubclass(kind, runtime.RuntimeFault)
        and kind is not runtime.RuntimeFault
    }
    assert faults - NOT_FROM_HANDLERS == FAULTS.keys()


@pytest.mark.parametrize("kind", FAULTS, ids=lambda kind: kind.__name__)
def test_faults_keep_their_sentence(kind: type[runtime.RuntimeFault]) -> None:
    """The text is the runtime's, the code the table's."""
    with pytest.raises(ApiError) as refused, told():
        raise kind("What was wrong.")
    assert refused.value.message == "What was wrong."
    assert refused.value.problem is FAULTS[kind]


def test_other_exceptions_pass() -> None:
    """A bug stays a bug."""
    with pytest.raises(ValueError, match="bug"), told():
        raise ValueError("bug")
