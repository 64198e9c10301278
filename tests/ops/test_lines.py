"""The line writer: everything arrives, nothing blocks, what is lost is counted."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.ops.lines import LineWriter, _chunks


def until(true: Callable[[], bool]) -> None:
    """Wait for the writer's thread; ten seconds are for broken code only."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "the writer did not get there"
        time.sleep(0.001)


def test_lines_arrive_in_order_and_whole(tmp_path: Path) -> None:
    """More lines than one batch holds, closed right after the last."""
    path = tmp_path / "log"
    writer = LineWriter(path)
    writer.open()
    lines = [b"%d\n" % i for i in range(50_000)]
    for line in lines:
        writer.add(line)
    writer.close()
    assert path.read_bytes() == b"".join(lines)
    assert writer.dropped == 0


def test_the_file_is_not_for_everybody(tmp_path: Path) -> None:
    """Addresses of people stand in it."""
    path = tmp_path / "log"
    writer = LineWriter(path)
    writer.open()
    writer.close()
    assert path.stat().st_mode & 0o007 == 0


def test_a_reader_that_stopped_reading_costs_lines_and_no_time() -> None:
    """With the pipe full, adding returns (else this would hang), and what does not fit the bound is counted."""
    reading, writing = os.pipe()
    writer = LineWriter(writing, max_pending=100_000)
    writer.open()
    line = b"x" * 999 + b"\n"
    for _ in range(1000):
        writer.add(line)
        writer.flush()
    assert writer.dropped >= 1000 - (100_000 + 65536 + 4096) // 1000
    kept = 1000 - writer.dropped
    received = b""
    while len(received) < kept * 1000:
        received += os.read(reading, 65536)
    writer.close()
    os.close(reading)
    os.close(writing)
    assert received == line * kept


def test_a_file_moved_away_is_opened_anew(tmp_path: Path) -> None:
    """Logrotate moves the file and sends SIGHUP: later lines go to a new file of the old name."""
    path, moved = tmp_path / "log", tmp_path / "log.1"
    writer = LineWriter(path)
    writer.open()
    writer.add(b"old\n")
    writer.flush()
    until(lambda: path.read_bytes() == b"old\n")
    path.rename(moved)
    writer.reopen()
    writer.add(b"new\n")
    writer.close()
    assert (moved.read_bytes(), path.read_bytes()) == (b"old\n", b"new\n")


def test_when_it_cannot_be_opened_anew_the_old_file_is_kept(tmp_path: Path) -> None:
    """A folder that vanished must not end the log."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path, moved = folder / "log", tmp_path / "log.1"
    writer = LineWriter(path)
    writer.open()
    path.rename(moved)
    folder.rmdir()
    writer.reopen()
    until(lambda: not writer._reopen.is_set())
    writer.add(b"still\n")
    writer.close()
    assert moved.read_bytes() == b"still\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="/dev/full is a Linux device")  # noqa: PTH110
def test_a_full_disk_costs_lines_and_is_counted() -> None:
    """Every line of a write that failed is lost, and said to be."""
    writer = LineWriter(Path("/dev/full"))
    writer.open()
    for _ in range(7):
        writer.add(b"x\n")
    writer.close()
    assert writer.dropped == 7


def test_a_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    """At start, when somebody can still mend it."""
    with pytest.raises(FileNotFoundError):
        LineWriter(tmp_path / "none" / "log").open()


def test_closing_what_was_never_opened() -> None:
    """A start that failed early closes everything all the same."""
    LineWriter(2).close()


def test_workers_that_share_a_pipe_do_not_tear_lines() -> None:
    """Into a pipe go whole lines of at most PIPE_BUF bytes a write (pipe(7)); a file takes all at once."""
    batch = [b"x" * 900 + b"\n"] * 20
    reading, writing = os.pipe()
    chunks = list(_chunks(writing, batch))
    assert b"".join(chunks) == b"".join(batch)
    assert max(map(len, chunks)) <= select.PIPE_BUF
    assert all(chunk.endswith(b"\n") for chunk in chunks)
    os.close(reading)
    os.close(writing)
