"""docs/errors.md says the same as the table in edge/core/errors.py."""

from __future__ import annotations

import json
import re
from pathlib import Path

from edge.core.errors import EDGE_TOKEN_EXPIRED, PROBLEMS, EdgeError
from edge.traffic.pages import render

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
ROW = re.compile(r"\| `([a-z_]+)` \| [0-9]{3} \|.*")


def test_every_error_is_documented_and_no_other() -> None:
    """One row each, in the table's order, with status, flag, and the very words a client gets."""
    rows = [
        f"| `{p.code}` | {p.status} | {'yes' if p.retryable else 'no'} | {p.message} | {p.action} |"
        for p in PROBLEMS.values()
    ]
    assert [line for line in PAGE.splitlines() if ROW.fullmatch(line)] == rows


def test_the_example_is_what_the_edge_writes() -> None:
    """The JSON on the page is the body of that error, but for the request id."""
    shown = json.loads(PAGE.partition("```json\n")[2].partition("```")[0])
    answer = render(EdgeError(EDGE_TOKEN_EXPIRED), None, shown["request_id"], close=False)
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == shown


def test_the_fields_on_the_page_are_the_fields_of_an_answer() -> None:
    """Each field the page promises for a 401 and for a 503 is there, with the value it names."""
    named = dict(re.findall(r"^\| `([A-Za-z-]+)(?:: ([^`]+))?` \| ", PAGE, re.MULTILINE))
    seen: dict[str, str] = {}
    for problem in PROBLEMS.values():
        error = EdgeError(problem, allow="GET" if problem.status == 405 else None)
        head = render(error, None, "id", close=True).partition(b"\r\n\r\n")[0].decode()
        seen |= dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    assert {name: seen.get(name) for name in named} == {
        name: value or seen.get(name) for name, value in named.items()
    }
    assert named.keys() <= seen.keys()
