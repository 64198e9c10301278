"""Usage on disk: what one process left the next one has, once; and whatever is wrong there harms nobody."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge.state.port import Usage, UsageBatch
from edge.wake.spool import Spool

BATCHES = [UsageBatch("a", n, (Usage("sb_1", "pvg_1", requests=n),)) for n in range(3)]


def names(folder: Path) -> list[str]:
    """What is in the directory, by kind."""
    return sorted(file.suffix for file in folder.iterdir())


def test_what_a_dead_process_left(tmp_path: Path) -> None:
    """Is the next one's, and outlives that one, too; with nothing left there is no file left."""
    folder = tmp_path / "deep" / "usage"
    first = Spool(folder)
    assert first.write(BATCHES)
    assert folder.stat().st_mode & 0o777 == 0o700
    first.close()
    second = Spool(folder)
    assert second.take_over() == BATCHES
    second.close()
    third = Spool(folder)
    assert third.take_over() == BATCHES
    assert names(folder) == [".lock", ".usage"]
    assert third.write(())
    third.close()
    assert names(folder) == [] and Spool(folder).take_over() == []


def test_the_living_keep_theirs(tmp_path: Path) -> None:
    """Several processes share a directory; who died is known by the lock, not by the name."""
    one, two, dead = Spool(tmp_path), Spool(tmp_path), Spool(tmp_path)
    for spool, batch in zip((one, two, dead), BATCHES, strict=True):
        spool.write([batch])
    os.close(dead._lock)  # type: ignore[arg-type] - as the end of a process does
    assert two.take_over() == [BATCHES[2]]
    assert one.take_over() == []
    one.close()
    two.close()


def test_a_process_that_dies_while_it_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches may be taken over twice then, under the same numbers, and never not at all."""
    first = Spool(tmp_path)
    first.write(BATCHES)
    first.close()
    second = Spool(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError("died")))
        second.take_over()
    second.close()
    assert Spool(tmp_path).take_over() == [*BATCHES, *BATCHES]


@pytest.mark.parametrize("text", [b"\xff\n", b"{}\n", b'{"edge": "a"', b"\0" * 100])
def test_nonsense_is_told_and_left_alone(tmp_path: Path, text: bytes) -> None:
    """Somebody may want to look at it; what others left is taken over all the same."""
    (tmp_path / "x.usage").write_bytes(text)
    spool = Spool(tmp_path)
    spool.write(BATCHES)
    spool.close()
    heir = Spool(tmp_path)
    assert heir.take_over() == BATCHES
    assert [event for event, _ in heir.troubles] == ["usage_unreadable"]
    assert (tmp_path / "x.usage").read_bytes() == text
    heir.close()


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    """It is told once, until it can be used again."""
    (tmp_path / "file").write_text("")
    spool = Spool(tmp_path / "file" / "usage")
    assert spool.take_over() == []
    assert not spool.write(BATCHES) and not spool.write(BATCHES)
    assert [event for event, _ in spool.troubles] == ["usage_not_kept"]
    (tmp_path / "file").unlink()
    assert spool.write(BATCHES) and not spool.failing
    spool.close()
