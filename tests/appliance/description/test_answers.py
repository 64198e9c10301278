"""The schemas of answers are closed, and know every error."""

from __future__ import annotations

from openapi_schema_validator import OAS31Validator

from edge.appliance.description.answers import ANSWERS, CODES, closed, nullable, words
from edge.appliance.problems import INVALID_REQUEST, NOT_IMPLEMENTED, SANDBOX_NOT_FOUND


def test_objects_have_their_keys_and_no_other() -> None:
    """One key too many is as wrong as one that is missing; a null has to be allowed."""
    schema = closed({"b": nullable(words("x"))}, a={"type": "integer"})
    valid = OAS31Validator(schema).is_valid
    assert valid({"a": 1}) and valid({"a": 1, "b": "x"})
    assert not any(map(valid, ({}, {"b": "x"}, {"a": 1, "c": 1}, {"a": None}, {"a": 1, "b": "y"})))


def test_codes_are_those_of_the_table() -> None:
    """Errors of the API are named, those of the console are not."""
    assert {INVALID_REQUEST.code, NOT_IMPLEMENTED.code, SANDBOX_NOT_FOUND.code} <= set(CODES)
    assert "form_outdated" not in CODES
    assert ANSWERS["Error"]["properties"]["code"]["enum"] == CODES
