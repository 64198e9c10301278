"""Finding a cgroup v2 on any machine, and freezing a real one where this machine lets us."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from families import until

from edge.appliance.runtime.cgroup import Cgroup, base

V2 = "25 30 0:22 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
HYBRID = "30 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "31 25 0:27 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"
PART = "25 30 0:22 /docker/abc /sys/fs/cgroup ro shared:1 - cgroup2 cgroup rw\n"


@pytest.mark.parametrize(
    ("mounts", "own", "found"),
    [
        (V2, "0::/user.slice/x.scope\n", "/sys/fs/cgroup/user.slice/x.scope"),
        (V2, "0::/\n", "/sys/fs/cgroup"),
        (V1 + HYBRID, "6:freezer:/\n0::/a b\n", "/sys/fs/cgroup/unified/a b"),
        (V1, "6:freezer:/\n", None),
        (V1, "6:freezer:/\n0::/\n", None),
        (V2, "6:freezer:/\n", None),
        (PART, "0::/docker/abc/in\n", "/sys/fs/cgroup/in"),
        (PART, "0::/docker/abc\n", "/sys/fs/cgroup"),
        (PART, "0::/docker/abcd\n", None),
        (PART, "0::/\n", None),
        ("", "0::/\n", None),
        ("broken\n", "0::/\n", None),
    ],
)
def test_our_place_in_the_hierarchy(
    tmp_path: Path, mounts: str, own: str, found: str | None
) -> None:
    """Unified, hybrid, v1 only, and the part that a container sees."""
    (tmp_path / "mounts").write_text(mounts)
    (tmp_path / "own").write_text(own)
    assert base(str(tmp_path / "mounts"), str(tmp_path / "own")) == found


def test_machines_without_cgroups(tmp_path: Path) -> None:
    """No such files, as on macOS: no cgroup, no error."""
    assert base(str(tmp_path / "none"), str(tmp_path / "none")) is None


def test_a_directory_that_is_no_cgroup_is_refused_and_removed(tmp_path: Path) -> None:
    """Seeing is believing: where the probe fails, nothing is left behind."""
    assert Cgroup.make("m", under=str(tmp_path / "missing")) is None
    real_make = Cgroup.make("m", under=str(tmp_path))
    assert real_make is None
    assert Cgroup.find("m", under=str(tmp_path)) is None


def test_a_read_only_hierarchy_is_refused(tmp_path: Path) -> None:
    """A name that is taken, or a place we may not write to, means no cgroup."""
    (tmp_path / "preview-m").mkdir()
    assert Cgroup.make("m", under=str(tmp_path)) is None
    assert (tmp_path / "preview-m").is_dir(), "it was not ours to remove"


@pytest.fixture
def cgroup() -> Iterator[Cgroup]:
    """A working cgroup, removed at the end."""
    made = Cgroup.make(f"test.{os.getpid()}.{time.monotonic_ns()}")
    if made is None:
        pytest.skip("this machine lets us have no cgroup v2 that can be frozen")
    yield made
    made.kill()
    made.remove()


async def test_freeze_thaw_kill(cgroup: Cgroup, tmp_path: Path) -> None:
    """What joined stands still when freeze returns, moves after the thaw, and dies frozen."""
    beats = tmp_path / "beats"
    line = "while :; do echo >> {}; done"
    child = await asyncio.create_subprocess_exec(
        "sh", "-c", line.format(beats), preexec_fn=cgroup.join
    )
    witness = tmp_path / "witness"
    free = await asyncio.create_subprocess_exec("sh", "-c", line.format(witness))
    try:
        await until(lambda: beats.exists() and witness.exists())
        assert cgroup.holds(child.pid) and not cgroup.holds(free.pid)
        assert cgroup.freeze(5)
        frozen, then = beats.stat().st_size, witness.stat().st_size
        await until(lambda: witness.stat().st_size > then + 100)
        assert beats.stat().st_size == frozen
        cgroup.thaw()
        await until(lambda: beats.stat().st_size > frozen)
        assert cgroup.freeze(5)
        cgroup.kill()
        await child.wait()
    finally:
        for process in (free, child):
            if process.returncode is None:
                process.kill()
            await process.wait()
    cgroup.remove()
    assert not Path(cgroup.path).exists() and not cgroup.holds(child.pid)


def test_it_is_found_by_its_mark(cgroup: Cgroup) -> None:
    """Another process finds the cgroup that one made, and removes it with what was made below."""
    mark = Path(cgroup.path).name.removeprefix("preview-")
    (Path(cgroup.path) / "inner").mkdir()
    found = Cgroup.find(mark)
    assert found is not None and found.path == cgroup.path
    found.remove()
    assert Cgroup.find(mark) is None


def test_freezing_what_was_removed_is_an_error(cgroup: Cgroup) -> None:
    """The freezer, which falls back to signals then, has to hear of it."""
    cgroup.remove()
    with pytest.raises(OSError, match="No such file"):
        cgroup.freeze(1)
    cgroup.kill()
