"""Copies of work trees: the same files, nothing from outside, and never more than was allowed."""

from __future__ import annotations

import os
import socket
import stat
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.appliance.runtime import FileTooLarge, RuntimeFault
from edge.appliance.runtime import copying as module
from edge.appliance.runtime.copying import Bounds, Interrupted, copy_tree
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.mounts import Mount

sys.path.insert(0, str(Path(__file__).parents[2] / "core"))

from wires import examples


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What is copied."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where to."""
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def _looks(root: Path) -> dict[str, Any]:
    """Everything that a copy has to have, by path."""
    looks: dict[str, Any] = {}
    links: dict[int, str] = {}
    for folder, folders, files in os.walk(root):
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            status = path.lstat()
            mode = stat.filemode(status.st_mode)
            if path.is_symlink():
                what: object = str(path.readlink())
            elif path.is_dir():
                what = None
            else:
                what = (
                    path.read_bytes(),
                    links.setdefault(status.st_ino, str(path.relative_to(root))),
                )
            when = status.st_mtime_ns
            looks[str(path.relative_to(root))] = (mode, when, what)
    return looks


def test_a_copy_is_the_same(source: Path, target: Path) -> None:
    """Content, modes, times, links of both kinds, names of all kinds; and then both go their own ways."""
    (source / "d" / "e").mkdir(parents=True)
    (source / "d" / "e" / "f").write_bytes(b"content")
    (source / "d" / "f2").hardlink_to(source / "d" / "e" / "f")
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o4755)
    (source / "soft").symlink_to("d/e/f")
    (source / "broken").symlink_to("/nowhere")
    Path(os.fsdecode(os.fsencode(source) + b"/\xff\xfe")).write_bytes(b"")
    (source / "locked").mkdir()
    (source / "locked" / "x").write_text("x")
    (source / "locked").chmod(0o555)
    for path, when in (("d", 10), ("soft", 20), ("run.sh", 30)):
        os.utime(source / path, ns=(when, when), follow_symlinks=False)
    size = copy_tree(source, target)
    assert _looks(target) == _looks(source)
    assert size == len(b"content") + len("#!/bin/sh\n") + 1
    (target / "d" / "e" / "f").write_bytes(b"other")
    assert (target / "d" / "f2").read_bytes() == b"other", "a hard link among its own"
    assert (source / "d" / "f2").read_bytes() == b"content"


def test_what_belongs_to_processes_stays_behind(source: Path, target: Path) -> None:
    """Pipes and sockets are not copied, and nobody waits for one."""
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as sock:
        before = Path.cwd()
        os.chdir(source)  # The path of a socket has to be short.
        try:
            sock.bind("socket")
        finally:
            os.chdir(before)
        (source / "file").write_text("")
        copy_tree(source, target)
    assert [path.name for path in target.iterdir()] == ["file"]


def test_holes_stay_holes(source: Path, target: Path) -> None:
    """A file of a terabyte with a few bytes in it is a few bytes, on disk and of the bounds."""
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 30)
        file.write(b"here")
    size = copy_tree(source, target, bounds=Bounds(size=1 << 20))
    status = (target / "sparse").stat()
    assert status.st_size == 1 << 40 and status.st_blocks * 512 < 1 << 20 and 4 <= size < 1 << 20
    with (target / "sparse").open("rb") as file:
        file.seek(1 << 30)
        assert file.read(5) == b"here\0"


def test_links_to_its_own_real_path_are_moved(source: Path, target: Path) -> None:
    """As processes make them; others stay, also those that only begin alike."""
    says = {"top": str(source), "in": f"{source}/a/b", "near": f"{source}x", "rel": "a"}
    for name, text in says.items():
        (source / name).symlink_to(text)
    copy_tree(source, target, relocate={str(source): str(target)})
    moved = {name: str((target / name).readlink()) for name in says}
    assert moved == {"top": str(target), "in": f"{target}/a/b", "near": f"{source}x", "rel": "a"}


def test_mounts_are_left_out(tmp_path: Path, source: Path, target: Path) -> None:
    """Not their links either; what a process has put in the place of one is copied."""
    volume = tmp_path / "volume"
    volume.mkdir()
    tree = WorkTree(source)
    for name in ("one", "two"):
        tree.mount(Mount((name,), volume))
    (source / "two").unlink()
    (source / "two").write_text("mine")
    copy_tree(source, target, mounts=tree.mounts)
    assert [path.name for path in target.iterdir()] == ["two"]


@pytest.mark.parametrize(
    ("bounds", "allowed"),
    [
        (Bounds(entries=3), False),
        (Bounds(entries=4), True),
        (Bounds(size=29), False),
        (Bounds(size=30), True),
        (Bounds(seconds=-1), False),
    ],
)
def test_bounds(source: Path, target: Path, bounds: Bounds, allowed: bool) -> None:
    """Names, bytes and time: exactly so much and no more."""
    (source / "d").mkdir()
    for name in ("d/a", "b", "c"):
        (source / name).write_bytes(bytes(10))
    if allowed:
        assert copy_tree(source, target, bounds=bounds) == 30
    else:
        with pytest.raises(FileTooLarge):
            copy_tree(source, target, bounds=bounds)


def test_depth_is_bounded(source: Path, target: Path) -> None:
    """Neither descriptors nor the stack run out, however deep a process digs."""
    here = os.open(source, os.O_RDONLY)
    for _ in range(module.DEEPEST + 50):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    with pytest.raises(FileTooLarge, match="deep"):
        copy_tree(source, target)


def test_it_ends_when_it_is_told_to(source: Path, target: Path) -> None:
    """So that a control plane that stops does not wait for a copy."""
    (source / "a").write_text("")
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        copy_tree(source, target, stop=stop)


def test_a_full_disk_is_told(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the fault for it, wherever it strikes."""
    (source / "a").write_bytes(b"x" * 100)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_piece", full)
    monkeypatch.setattr(module, "_FICLONE", 0)
    with pytest.raises(RuntimeFault) as caught:
        copy_tree(source, target)
    assert type(caught.value).__name__ == "DiskFull" and "/workspace/a" in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_read_is_told(source: Path, target: Path) -> None:
    """A copy without it would not be one."""
    for name in ("file", "dir"):
        there = source / name
        (there.mkdir if name == "dir" else there.touch)()
        there.chmod(0)
        with pytest.raises(RuntimeFault) as caught:
            copy_tree(source, target)
        assert type(caught.value).__name__ == "FileDenied" and name in str(caught.value)
        there.chmod(0o700)
        (there.rmdir if name == "dir" else there.unlink)()


def test_without_help_of_the_kernel(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No clones, no copying in the kernel, no holes: reading and writing gives the same."""
    (source / "a").write_bytes(os.urandom(3 << 20))
    monkeypatch.setattr(module, "_FICLONE", 0)
    monkeypatch.setattr(module, "_HOLES", False)
    monkeypatch.delattr(os, "copy_file_range", raising=False)
    copy_tree(source, target)
    assert _looks(target) == _looks(source)


def test_what_is_swapped_for_a_link_is_not_followed(
    source: Path, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that could not be held replaces each name just after we looked: nothing from outside comes in."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (source / "file").write_text("mine")
    (source / "dir").mkdir()
    look = os.stat

    def swap(path: Any, *args: Any, **options: Any) -> os.stat_result:
        status = look(path, *args, **options)
        if options.get("dir_fd") is not None and path in ("file", "dir"):
            there = source / path
            (there.rmdir if there.is_dir() else there.unlink)()
            there.symlink_to(outside / "secret" if path == "file" else outside)
        return status

    monkeypatch.setattr(os, "stat", swap)
    for name in ("file", "dir"):
        with pytest.raises(RuntimeFault):
            copy_tree(source, target)
        monkeypatch.undo()
        assert "secret" not in "".join(p.read_text() for p in target.rglob("*") if p.is_file())
        (source / name).unlink(missing_ok=True)
        monkeypatch.setattr(os, "stat", swap)


_NAMES = st.sampled_from(["a", "b", "c"])
_PATHS = st.lists(_NAMES, min_size=1, max_size=4).map("/".join)
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("dir"), _PATHS),
        st.tuples(st.just("file"), _PATHS, st.binary(max_size=8)),
        st.tuples(st.just("hard"), _PATHS, _PATHS),
        st.tuples(st.just("soft"), _PATHS, _PATHS | st.sampled_from(["..", "/etc", "../../x"])),
        st.tuples(st.just("mode"), _PATHS, st.sampled_from([0o700, 0o555, 0o711, 0o750])),
    ),
    max_size=20,
)


@examples(150)
@given(steps=_STEPS)
def test_any_tree(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[Any, ...]]) -> None:
    """Whatever is made of directories, files, links and modes, the copy looks the same."""
    root = tmp_path_factory.mktemp("any")
    source, target = root / "s", root / "t"
    source.mkdir()
    target.mkdir()
    for kind, path, *more in steps:
        there = source / path
        try:
            if kind == "dir":
                there.mkdir(parents=True)
            elif kind == "file":
                there.write_bytes(more[0])
            elif kind == "hard":
                os.link(source / more[0], there, follow_symlinks=False)
            elif kind == "soft":
                there.symlink_to(more[0])
            elif not there.is_symlink():
                there.chmod(more[0])
        except OSError:
            continue
    copy_tree(source, target)
    assert _looks(target) == _looks(source)
