"""The small parts of HTTP that all handlers share."""

from __future__ import annotations

import json

import pytest
from service import KEY, Service

from edge.appliance.api.http import answer, moment, number, one_of, only, page, whole
from edge.appliance.audit import Doer
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


def test_fields_of_an_object() -> None:
    """All of it without ``fields``, else those in their order; one that does not apply now is no error."""
    view = {"id": 1, "status": "running"}
    assert only(view, None) == view
    assert list(only(view, ["status", "snapshot_id", "id"])) == ["status", "id"]


def test_pages_of_events() -> None:
    """Newest first and fifty of them, unless the query says otherwise."""
    assert page({}) == (0, 50, False)
    assert page({"offset": "3", "limit": "1000", "order": "asc"}) == (3, 1000, True)
    for wrong in ({"offset": "-1"}, {"limit": "0"}, {"limit": "1001"}, {"order": "up"}):
        with pytest.raises(ApiError, match="invalid_request"):
            page(wrong)


def test_words_and_times_of_a_query() -> None:
    """What is not there is None; a plus that became a blank is a plus; no zone is UTC."""
    assert one_of(Doer, {}, "actor") is None
    assert one_of(Doer, {"actor": "user"}, "actor") is Doer.USER
    with pytest.raises(ApiError, match="actor: must be one of user, operator, visitor"):
        one_of(Doer, {"actor": "nobody"}, "actor")
    assert moment({}, "from") is None
    for text in ("1970-01-01T00:01:00Z", "1970-01-01T00:01:00", "1970-01-01T01:01:00 01:00"):
        assert moment({"from": text}, "from") == 60.0
    with pytest.raises(ApiError, match="from: must be a time"):
        moment({"from": "yesterday"}, "from")


def test_answers_hold_whatever_text() -> None:
    """Lone surrogates from a client's JSON come back as they came."""
    body = answer({"a": "\ud800\u2603"}).body
    assert isinstance(body, bytes) and json.loads(body) == {"a": "\ud800\u2603"}


@pytest.mark.parametrize(
    ("media", "taken"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/merge-patch+json", True),
        ("text/json", False),
        ("application/jsonp", False),
        ("application/x-www-form-urlencoded", False),
        ("", False),
    ],
)
async def test_bodies_are_json_unless_they_say_otherwise(
    service: Service, media: str, taken: bool
) -> None:
    """JSON by any of its names is taken, everything else is 415; a body that is not there has no kind."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": media}
    path = "/v1/sandboxes/sb_none/timeout"
    answer, body = await service.raw("POST", path, data=b"{}", headers=headers)
    assert answer.status == (400 if taken else 415), body
    empty, _ = await service.raw("POST", path, headers=headers)
    assert empty.status == 400
