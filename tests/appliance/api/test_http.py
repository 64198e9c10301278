"""The small parts of HTTP that all handlers share."""

from __future__ import annotations

import json

import pytest

from edge.appliance.api.http import answer, number, whole
from edge.appliance.problems import ApiError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("80", 80),
        ("080", "080"),
        ("-1", "-1"),
        ("+1", "+1"),
        ("", ""),
        ("\u0661", "\u0661"),
        ("1e3", "1e3"),
        ("9" * 9, 999_999_999),
        ("9" * 10, "9" * 10),
    ],
)
def test_numbers_have_one_spelling(text: str, value: object) -> None:
    """Signs, leading zeros, foreign digits and endless numbers are no numbers."""
    assert number(text) == value


def test_numbers_of_a_query_have_a_range() -> None:
    """Inside it is taken, outside and elsewhere is refused."""
    assert whole({}, "limit", default=5, low=1, high=9) == 5
    assert whole({"limit": "9"}, "limit", default=5, low=1, high=9) == 9
    for text in ("0", "10", "x"):
        with pytest.raises(ApiError, match="limit"):
            whole({"limit": text}, "limit", default=5, low=1, high=9)


def test_answers_hold_whatever_text() -> None:
    """Lone surrogates from a client's JSON come back as they came."""
    body = answer({"a": "\ud800\u2603"}).body
    assert isinstance(body, bytes) and json.loads(body) == {"a": "\ud800\u2603"}
