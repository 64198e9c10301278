"""Wording: every error has words for people, and they keep what they promise."""

from __future__ import annotations

import string

import pytest

from edge.core.errors import PROBLEMS, Problem
from edge.traffic.wording import WORDS, Retry, Words

ROWS = pytest.mark.parametrize(
    ("problem", "words"),
    [(PROBLEMS[code], words) for code, words in WORDS.items() if code in PROBLEMS],
    ids=lambda value: value.code if isinstance(value, Problem) else "",
)


def test_every_error_has_words_and_no_other() -> None:
    """A new row of the table of errors needs one here."""
    assert WORDS.keys() == PROBLEMS.keys()


@ROWS
def test_a_page_tries_by_itself_only_where_that_may_help(problem: Problem, words: Words) -> None:
    """Every 503 that may be retried; else only what failed before the app saw anything."""
    unseen = {"preview_service_not_ready", "edge_runtime_host_unreachable"}
    alone = problem.retryable and (problem.status == 503 or problem.code in unseen)
    assert (words.retry is Retry.ALONE) is alone
    assert words.retry is not Retry.NEVER or not problem.retryable


@ROWS
def test_words_are_whole(problem: Problem, words: Words) -> None:
    """A title is short and no sentence; all else is sentences; code and fields are closed and known."""
    assert len(words.title) <= 50 and words.title[-1] not in string.punctuation.replace("}", "")
    for text in (words.text, *words.hints):
        assert text[0].isupper() and text[-1] == "." and text.count("`") % 2 == 0
    for text in (words.title, words.text, *words.hints, *words.examples):
        fields = {field for _, field, _, _ in string.Formatter().parse(text) if field is not None}
        assert fields <= ({"number"} if text in words.examples else {"port"})
    assert "`" not in words.title
    assert len({words.title, words.text, *words.hints}) == len(words.hints) + 2
