"""Bodies that are no JSON of ours, or no model."""

from __future__ import annotations

import pytest

from edge.appliance.bodies import DEPTH, parse, read_json
from edge.appliance.problems import ApiError
from edge.appliance.requests import Create


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff\xfe{}",
        "{}".encode("utf-16"),
        b"[]",
        b"null",
        b'"text"',
        b"NaN",
        b'{"metadata": {"x": NaN}}',
        b'{"metadata": {"x": Infinity}}',
        b'{"metadata": {"x": 1e999}}',
        b'{"metadata": {"x": ' + b"9" * 5000 + b"}}",
        b'{"metadata": ' + b"[" * 100_000,
        b'{"metadata": {"x": ' + b"[" * 500 + b"]" * 500 + b"}}",
        b'{"cwd": "\\ud800"}',
        b'{"envs": {"A": "\\udfff"}}',
    ],
)
def test_what_is_no_json_of_ours(body: bytes) -> None:
    """Bad encodings, numbers beyond JSON, deep nesting and lone surrogates are 400."""
    with pytest.raises(ApiError) as refused:
        parse(Create, body)
    assert (refused.value.problem.code, refused.value.problem.status) == ("invalid_request", 400)


def test_depth_has_an_exact_end() -> None:
    """As deep as allowed is read, one deeper is not."""
    assert read_json("[" * DEPTH + "]" * DEPTH)
    with pytest.raises(ApiError, match="nested"):
        read_json("[" * (DEPTH + 1) + "]" * (DEPTH + 1))


@pytest.mark.parametrize("text", ['{"a":1,"a":1}', '[{"b":{"a":null,"c":1,"a":2}}]'])
def test_a_key_is_there_once(text: str) -> None:
    """Which of two counts is not agreed on between readers, so both are refused, and the key is named."""
    with pytest.raises(ApiError, match="'a' is there twice"):
        read_json(text)
    assert read_json('[{"a":1},{"a":{"a":2}}]') == [{"a": 1}, {"a": {"a": 2}}]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"cwd": "a\\u0000b"}', "cwd: must not contain NUL"),
        (b'{"cwd": ""}', "cwd: String should have at least 1 character"),
        (
            b'{"auto_resume": true}',
            "auto_resume needs timeout_action hibernate or on_timeout pause",
        ),
        (b'{"envs": {"A=B": ""}}', "envs: a variable's name must not be empty or contain '='"),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(body: bytes, message: str) -> None:
    """Where it is, if it is anywhere, and what; nothing of how it was found."""
    with pytest.raises(ApiError) as refused:
        parse(Create, body)
    assert refused.value.message == message
