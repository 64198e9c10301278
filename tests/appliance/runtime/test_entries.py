"""Walking directories: what is told of each name, and that every number has an end."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest
from families import open_descriptors

from edge.appliance.runtime import FileFailed, FileTooLarge
from edge.appliance.runtime.entries import Budget, below, change_mode, open_regular, shown
from edge.appliance.runtime.files import WorkTree

COUNT = 20_000
"""Names of a huge directory. Making 100,000 takes a slow disk ten seconds."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three files in two directories."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/x", "a/b/y", "z"):
        (tmp_path / name).write_bytes(b"123")
    return tmp_path


def _paths(folder: Path, depth: int, budget: Budget) -> list[str]:
    top = os.open(folder, os.O_RDONLY)
    try:
        return [found.path for found in below(top, "/w", depth, budget)]
    finally:
        os.close(top)


def test_names_come_in_order_and_to_a_depth(folder: Path) -> None:
    """A directory, then what is in it."""
    many = Budget("w", entries=100)
    assert _paths(folder, 1, many) == ["/w/a", "/w/z"]
    assert _paths(folder, 9, many) == ["/w/a", "/w/a/b", "/w/a/b/y", "/w/a/x", "/w/z"]


def test_a_budget_ends_the_walk(folder: Path) -> None:
    """By entries, by bytes, by time; descriptors are given back all the same."""
    before = open_descriptors()
    assert len(_paths(folder, 9, Budget("w", entries=5))) == 5
    with pytest.raises(FileTooLarge, match="w holds more than 4 entries"):
        _paths(folder, 9, Budget("w", entries=4))
    with pytest.raises(FileTooLarge, match="too long"):
        _paths(folder, 9, Budget("w", entries=9, seconds=-1))
    bytes_ = Budget("w", entries=9, size=3)
    bytes_.content(3)
    with pytest.raises(FileTooLarge, match="too many bytes"):
        bytes_.content(1)
    assert open_descriptors() == before


def test_a_huge_directory_costs_no_more_than_is_asked_for(tmp_path: Path) -> None:
    """Of twice as many names as may be, so many are read as it takes to say that there are too many; one is found at once."""
    root = tmp_path / "workspace"
    root.mkdir()
    directory = os.open(root, os.O_RDONLY)
    for number in range(COUNT):  # Links, because they are made by one call each.
        os.symlink("x", str(number), dir_fd=directory)
    os.close(directory)
    tree = WorkTree(root)
    with pytest.raises(FileTooLarge, match="more than 10000"):
        tree.entries("", 1)
    begun = time.process_time()
    assert tree.info(str(COUNT - 1)).name == str(COUNT - 1) and not tree.exists(str(COUNT))
    assert time.process_time() - begun < 0.1


def test_only_regular_files_are_opened(folder: Path) -> None:
    """Pipes, directories and links are refused, none of them holding us up."""
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("z")
    top = os.open(folder, os.O_RDONLY)
    os.close(open_regular("z", top, os.O_RDONLY))
    for name in ("pipe", "a"):
        with pytest.raises(FileFailed):
            open_regular(name, top, os.O_RDONLY)
    with pytest.raises(OSError, match="symbolic links"):
        open_regular("link", top, os.O_RDONLY)
    with pytest.raises(OSError, match="symbolic links"):
        change_mode("link", top, 0o600)
    change_mode("z", top, 0o600)
    assert stat.S_IMODE((folder / "z").stat().st_mode) == 0o600
    os.close(top)


def test_names_without_a_utf8_are_shown_all_the_same() -> None:
    """With the sign for what cannot be shown."""
    assert shown(os.fsdecode(b"a\xffb")) == "a\ufffdb"
