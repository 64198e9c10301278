"""The table of calls fits itself."""

from __future__ import annotations

from edge.appliance.description.answers import ANSWERS
from edge.appliance.description.calls import BYTES, CALLS


def test_answers_are_all_used_and_all_there() -> None:
    """Every answer is described, and every description is of an answer or of a part of one."""
    named = {call.answer for call in CALLS.values()} - {None, BYTES}
    parts = {"Error", "SandboxObject", "FileInfo", "Grant"}
    assert named <= set(ANSWERS)
    assert set(ANSWERS) - named <= parts


def test_reading_has_no_body() -> None:
    """A GET or DELETE takes no body, and what is needed of a query is in it."""
    for name, call in CALLS.items():
        if name.startswith(("GET", "DELETE")):
            assert call.body is None, name
        assert set(call.needed) <= set(call.query), name
