"""What is told of two looks at a directory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.appliance.runtime import FileTooLarge, PathEscape
from edge.appliance.runtime import watch as module
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.watch import Change, changes, look


@pytest.fixture
def tree(tmp_path: Path) -> WorkTree:
    """A file, and one in a directory."""
    root = tmp_path / "workspace"
    (root / "watched" / "dir").mkdir(parents=True)
    (root / "watched" / "file").write_bytes(b"1")
    (root / "watched" / "dir" / "below").write_bytes(b"1")
    return WorkTree(root)


Folder = Callable[[Path], object]


def _swap(folder: Path) -> None:
    (folder / "file").unlink()
    (folder / "file").mkdir()


STORIES: dict[str, tuple[Folder, list[tuple[str, str]]]] = {
    "nothing": (lambda f: None, []),
    "new": (lambda f: (f / "new").touch(), [("create", "new")]),
    "gone": (lambda f: (f / "file").unlink(), [("remove", "file")]),
    "longer": (lambda f: (f / "file").write_bytes(b"22"), [("write", "file")]),
    "touched": (lambda f: os.utime(f / "file", ns=(1, 1)), [("write", "file")]),
    "mode": (lambda f: (f / "file").chmod(0o600), [("chmod", "file")]),
    "moved": (lambda f: (f / "file").rename(f / "to"), [("rename", "file"), ("create", "to")]),
    "moved down": (
        lambda f: (f / "file").rename(f / "dir" / "to"), [("rename", "file"), ("create", "dir/to")],
    ),
    "moved directory": (
        lambda f: (f / "dir").rename(f / "to"),
        [("rename", "dir"), ("rename", "dir/below"), ("create", "to"), ("create", "to/below")],
    ),
    "another kind": (_swap, [("remove", "file"), ("create", "file")]),
    "link": (lambda f: (f / "new").symlink_to("/etc"), [("create", "new")]),
    "below": (lambda f: (f / "dir" / "x").touch(), [("create", "dir/x")]),
}  # fmt: skip


@pytest.mark.parametrize("story", STORIES)
def test_a_change_is_told(tree: WorkTree, story: str) -> None:
    """By its kind, its name below the watched directory, and its path; looking tells nothing by itself."""
    act, told = STORIES[story]
    before = look(tree, "watched", recursive=True)
    act(tree.root / "watched")
    assert changes(before, look(tree, "watched", recursive=True)) == [
        Change(event, name, f"/workspace/watched/{name}") for event, name in told
    ]


def test_a_file_replaced_in_one_step_is_written(tree: WorkTree) -> None:
    """As the API writes: another file, of the same size and time, in the same place."""
    file = tree.root / "watched" / "file"
    os.utime(file, ns=(1, 1))
    before = look(tree, "watched", recursive=False)
    (tree.root / "next").write_bytes(b"2")
    os.utime(tree.root / "next", ns=(1, 1))
    (tree.root / "next").rename(file)
    told = changes(before, look(tree, "watched", recursive=False))
    assert [(change.event, change.name) for change in told] == [("write", "file")]


def test_only_what_is_asked_for_is_watched(tree: WorkTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """One level unless recursive; not outside; not more than there may be."""
    before = look(tree, "", recursive=False)
    (tree.root / "watched" / "new").touch()
    assert changes(before, look(tree, "", recursive=False)) == []
    with pytest.raises(PathEscape):
        look(tree, "..", recursive=True)
    monkeypatch.setattr(module, "MAX_WATCHED", 3)
    with pytest.raises(FileTooLarge):
        look(tree, "", recursive=True)
