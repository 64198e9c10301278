"""The log: one JSON object a line, on standard error."""

from __future__ import annotations

import json
import logging

import pytest

from edge.appliance.log import capture_libraries, log_event


def test_events_are_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A time, a name, the fields; what is no JSON is shown as text."""
    log_event("thing", number=1, odd=object)
    line = json.loads(capsys.readouterr().err)
    assert line["event"] == "thing" and line["number"] == 1 and "object" in line["odd"]
    assert line["time"].endswith("+00:00")


def test_libraries_speak_json_without_their_arguments(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Their warnings keep the form; arguments, which may quote requests, are left out."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        capture_libraries()
        try:
            raise ValueError("secret text")
        except ValueError:
            logging.getLogger("lib").exception("failed for %s", "secret url")
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
    text = capsys.readouterr().err
    line = json.loads(text)
    assert (line["source"], line["message"], line["error"]) == (
        "lib",
        "failed for %s",
        "ValueError",
    )
    assert "secret" not in text
