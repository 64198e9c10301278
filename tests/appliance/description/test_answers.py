"""The schemas of answers know every error."""

from __future__ import annotations

from edge.appliance.description.answers import ANSWERS, CODES
from edge.appliance.problems import INVALID_REQUEST, NOT_IMPLEMENTED, SANDBOX_NOT_FOUND


def test_codes_are_those_of_the_table() -> None:
    """Errors of the API are named, those of the console are not."""
    assert {INVALID_REQUEST.code, NOT_IMPLEMENTED.code, SANDBOX_NOT_FOUND.code} <= set(CODES)
    assert "form_outdated" not in CODES
    assert ANSWERS["Error"]["properties"]["code"]["enum"] == CODES
