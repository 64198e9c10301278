"""Schemas in few words, as a validator reads them."""

from __future__ import annotations

from openapi_schema_validator import OAS31Validator

from edge.appliance.description.schemas import COUNT, closed, listed, nullable, words


def test_objects_have_their_keys_and_no_other() -> None:
    """One key too many is as wrong as one that is missing; a null has to be allowed."""
    schema = closed({"b": nullable(words("x"))}, a={"type": "integer"})
    valid = OAS31Validator(schema).is_valid
    assert valid({"a": 1}) and valid({"a": 1, "b": "x"})
    assert not any(map(valid, ({}, {"b": "x"}, {"a": 1, "c": 1}, {"a": None}, {"a": 1, "b": "y"})))


def test_lists_hold_one_kind() -> None:
    """Of as many as there are; a negative count is none."""
    valid = OAS31Validator(listed(COUNT)).is_valid
    assert valid([]) and valid([0, 1]) and not valid([-1]) and not valid(["1"]) and not valid(None)
