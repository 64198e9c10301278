"""The logs of an edge: which there are, what cannot be opened, what is moved away, and what is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.core.settings import LogSettings
from edge.ops.logs import Logs
from edge.ops.process import StartError


def logs(access: str, level: str = "info") -> Logs:
    """Logs of these settings, at a time that stands still."""
    return Logs(LogSettings.model_validate({"access": access, "level": level}), wall=lambda: 0.0)


def test_both_are_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The access log to its file, events of their level or above to standard error."""
    both = logs(str(tmp_path / "access"), "warning")
    both.open()
    assert both.access is not None
    both.access.add(b"line\n")
    both.events.write("started", {})
    both.events.write("watch_lost", {"reason": "x"})
    both.close()
    assert (tmp_path / "access").read_bytes() == b"line\n"
    (event,) = capfd.readouterr().err.splitlines()
    assert json.loads(event)["event"] == "watch_lost"
    assert both.dropped() == {"access": 0, "event": 0}


def test_the_access_log_may_be_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    """As in containers; a dash means that."""
    both = logs("-")
    both.open()
    assert both.access is not None
    both.access.add(b"line\n")
    both.close()
    assert capfd.readouterr().out == "line\n"


def test_without_an_access_log() -> None:
    """Nothing to open anew, and nothing that could be dropped."""
    alone = logs("")
    alone.open()
    alone.reopen()
    alone.close()
    assert alone.access is None and alone.dropped() == {"access": 0, "event": 0}


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """In one line, by the setting's name; events can still be written."""
    both = logs(str(tmp_path / "nowhere" / "access"))
    with pytest.raises(StartError, match=r"^log\.access: .*/nowhere/access cannot be written: No "):
        both.open()
    both.close()


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    """Lines from before stay in the old one."""
    file = tmp_path / "access"
    both = logs(str(file))
    both.open()
    assert both.access is not None
    both.access.add(b"1\n")
    both.access.flush()
    both.close()
    again = logs(str(file))
    again.open()
    assert again.access is not None
    file.rename(tmp_path / "old")
    again.reopen()
    again.access.add(b"2\n")
    again.close()
    assert ((tmp_path / "old").read_bytes(), file.read_bytes()) == (b"1\n", b"2\n")


def test_what_is_dropped_is_counted_by_log(tmp_path: Path) -> None:
    """A line that no room would ever hold."""
    both = logs(str(tmp_path / "access"))
    both.open()
    assert both.access is not None
    both.access.add(b"x" * (9 << 20))
    both.close()
    assert both.dropped() == {"access": 1, "event": 0}
