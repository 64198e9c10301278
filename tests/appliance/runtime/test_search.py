"""Searching and replacing: what is found, what is passed over, and where it ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.appliance.runtime import (
    FileFailed,
    FileNotFound,
    FileTooLarge,
    Match,
    NoSuchDirectory,
    PathEscape,
    Replaced,
)
from edge.appliance.runtime import search as module
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.search import find, replace, search


@pytest.fixture
def tree(tmp_path: Path) -> WorkTree:
    """Files of several kinds, and links that lead out."""
    root = tmp_path / "workspace"
    (root / "src" / "deep").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.py").write_text("needle outside")
    (root / "src" / "a.py").write_bytes("x\nneedle é\r\nneedle needle\n".encode())
    (root / "src" / "deep" / "b.py").write_bytes(b"last line is the needle")
    (root / "src" / "latin").write_bytes(b"\xe9 needle")
    (root / "binary").write_bytes(b"\0needle")
    (root / "Readme.md").write_bytes(b"Needle")
    (root / "link.py").symlink_to("src/a.py")
    (root / "out").symlink_to("../outside")
    os.mkfifo(root / "pipe.py")
    return WorkTree(root)


def test_lines_are_found(tree: WorkTree) -> None:
    """Each line once, numbered from 1, in any encoding; not in binary files, pipes, links, other case."""
    assert find(tree, "", "needle") == [
        Match("/workspace/src/a.py", 2, "needle é"),
        Match("/workspace/src/a.py", 3, "needle needle"),
        Match("/workspace/src/deep/b.py", 1, "last line is the needle"),
        Match("/workspace/src/latin", 1, "\ufffd needle"),
    ]
    assert [match.line for match in find(tree, "src/a.py", "é")] == [2]
    assert [match.line for match in find(tree, "link.py", "x")] == [1]
    assert find(tree, "src", "x\nneedle") == [Match("/workspace/src/a.py", 1, "x")]
    assert find(tree, "src", "n.*e") == [] == find(tree, "src", "none")


def test_long_lines_are_cut_around_the_match(tree: WorkTree) -> None:
    """Of a line of a MiB, what is shown holds the match and is short."""
    tree.write("min.js", b"a" * (1 << 20) + b"needle" + b"b" * (1 << 20) + b"\nneedle")
    first, second = find(tree, "min.js", "needle")
    assert "needle" in first.content and len(first.content) == module.MAX_LINE
    assert (second.line, second.content) == (2, "needle")


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.py", ["link.py", "pipe.py", "src/a.py", "src/deep/b.py"]),
        ("?.py", ["src/a.py", "src/deep/b.py"]),
        ("[ab].p*", ["src/a.py", "src/deep/b.py"]),
        ("deep", ["src/deep"]),
        ("eep", []),
        ("readme.md", []),
        ("src/*.py", ["src/a.py", "src/deep/b.py"]),
        ("*/deep/*", ["src/deep/b.py"]),
        ("(a+)+$", []),
        ("secret*", []),
    ],
)
def test_names_are_found(tree: WorkTree, pattern: str, names: list[str]) -> None:
    """By shell patterns over names, or over paths where the pattern has a slash; links are not followed."""
    assert search(tree, "", pattern) == [f"/workspace/{name}" for name in names]


def test_patterns_cannot_run_away(tree: WorkTree) -> None:
    """What keeps naive matchers busy for ages is over at once."""
    tree.write("a" * 250, b"a" * 5_000_000)
    begun = time.process_time()
    assert search(tree, "", "*a" * 500 + "b") == []
    assert search(tree, "", "[a-" * 300) == []
    assert find(tree, "", "a" * 500 + "b") == []
    assert find(tree, "", "(a|a)*b") == []
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("path", "fault"),
    [("none", FileNotFound), ("..", PathEscape), ("out", PathEscape), ("pipe.py", FileFailed)],
)
def test_where_nothing_can_be_searched(tree: WorkTree, path: str, fault: type[Exception]) -> None:
    """The faults of any other call."""
    with pytest.raises(fault):
        find(tree, path, "x")
    with pytest.raises((fault, NoSuchDirectory)):
        search(tree, path, "x")


LIMITS: dict[str, tuple[str, int, Callable[[WorkTree], object]]] = {
    "lines": ("MAX_MATCHES", 3, lambda tree: find(tree, "", "needle")),
    "names": ("MAX_MATCHES", 3, lambda tree: search(tree, "", "*.py")),
    "visited": ("MAX_VISITED", 9, lambda tree: search(tree, "", "none")),
    "content": ("MAX_CONTENT", 63, lambda tree: find(tree, "", "none")),
    "time": ("MAX_SECONDS", -1, lambda tree: find(tree, "", "none")),
    "replaced": (
        "MAX_REPLACED",
        23,
        lambda tree: replace(tree, ["src/deep/b.py"], "needle", "needles"),
    ),
}


@pytest.mark.parametrize("name", LIMITS)
def test_work_is_bounded(tree: WorkTree, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each limit is an error of its own, one above it is none."""
    setting, limit, call = LIMITS[name]
    if limit > 0:
        monkeypatch.setattr(module, setting, limit + 1)
        call(tree)
    monkeypatch.setattr(module, setting, limit)
    with pytest.raises(FileTooLarge):
        call(tree)


def test_large_files_are_passed_over(tree: WorkTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not searched, and no error."""
    monkeypatch.setattr(module, "MAX_FILE", 10)
    assert [match.file for match in find(tree, "", "needle")] == ["/workspace/src/latin"]


def test_replacing(tree: WorkTree) -> None:
    """Counts what it did, keeps modes and other bytes, passes over binary files; dry runs do nothing."""
    files = ["src/a.py", "src/latin", "/workspace/binary", "Readme.md"]
    (tree.root / "src/a.py").chmod(0o750)
    dry = replace(tree, files, "needle", "pin", dry_run=True)
    assert dry == Replaced(
        replacements=4, files_modified=2, files_skipped=1, binary_files_skipped=1
    )
    assert tree.read("src/latin", 99) == b"\xe9 needle"
    assert replace(tree, files, "needle", "pin") == dry
    assert tree.read("src/a.py", 99) == "x\npin é\r\npin pin\n".encode()
    assert (tree.root / "src/a.py").stat().st_mode & 0o777 == 0o750
    assert tree.read("src/latin", 99) == b"\xe9 pin" and tree.read("binary", 99) == b"\0needle"
    assert replace(tree, ["src/latin"], " pin", "").replacements == 1
    assert replace(tree, [], "x", "y") == Replaced(0, 0, 0, 0)


def test_a_bad_name_changes_nothing(tree: WorkTree) -> None:
    """One file that cannot be, and no other one is touched."""
    for bad in ("none", "src", "out/secret.py", "pipe.py"):
        with pytest.raises((FileNotFound, FileFailed, PathEscape)):
            replace(tree, ["src/a.py", bad], "needle", "pin")
    assert b"needle" in tree.read("src/a.py", 99)


def test_a_text_without_utf8_is_refused(tree: WorkTree) -> None:
    """Half a character is no text."""
    with pytest.raises(FileFailed):
        find(tree, "", "\ud800")
