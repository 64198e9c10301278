"""Paths of the file calls: whatever they and the tree's links say, they stay in the tree."""

from __future__ import annotations

import ast
import contextlib
import os
import pwd
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from families import open_descriptors

from edge.appliance.runtime import (
    FileConflict,
    FileFailed,
    FileNotFound,
    FileTooLarge,
    NoSuchDirectory,
    PathEscape,
    RuntimeFault,
)
from edge.appliance.runtime import files as module
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.paths import MAX_DEPTH

SECRET = b"outside"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the tree with a file nobody may reach."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_bytes(SECRET)
    return folder


@pytest.fixture
def tree(tmp_path: Path, outside: Path) -> WorkTree:
    """A tree with a file, a directory, and links of every kind."""
    root = tmp_path / "workspace"
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "file").write_bytes(b"inside")
    (root / "dir" / "sub" / "deep").write_bytes(b"deep")
    for name, target in {
        "to-file": "file",
        "to-dir": "dir",
        "dir/up": "../file",
        "by-name": "/workspace/dir/sub/deep",
        "by-place": str(root / "dir" / "sub" / "deep"),
        "dangling": "dir/new",
        "out-absolute": str(outside / "secret"),
        "out-relative": "../outside/secret",
        "out-dir": "../outside",
        "out-deep": "dir/sub/../../../outside/secret",
        "out-new": "../outside/new",
        "etc": "/etc",
        "loop": "loop",
        "ping": "pong",
        "pong": "ping",
        "to-root": ".",
    }.items():
        (root / name).symlink_to(target)
    return WorkTree(root)


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("file", b"inside"),
        ("/workspace/file", b"inside"),
        ("//workspace//./file", b"inside"),
        ("./dir/../file", b"inside"),
        ("/workspace/dir/sub/../sub/deep", b"deep"),
        ("to-file", b"inside"),
        ("to-dir/sub/deep", b"deep"),
        ("to-dir/up", b"inside"),
        ("to-dir/../file", b"inside"),
        ("to-root/to-root/file", b"inside"),
        ("by-name", b"deep"),
        ("by-place", b"deep"),
    ],
)
def test_paths_and_links_inside_are_followed(tree: WorkTree, path: str, content: bytes) -> None:
    """A link that stays inside is as good as its target, whichever name of the tree it uses."""
    assert tree.read(path, 100) == content


ESCAPES = [
    "..",
    "../outside/secret",
    "dir/../../outside/secret",
    "/workspace/../outside/secret",
    "/etc/passwd",
    "/",
    "/workspaces/file",
    "/workspace2",
    "out-absolute",
    "out-relative",
    "out-dir/secret",
    "out-deep",
    "out-new",
    "to-dir/../out-relative",
    "etc/passwd",
    "new/../../outside/secret",
]


@pytest.mark.parametrize("path", ESCAPES)
def test_nothing_escapes(tree: WorkTree, outside: Path, path: str) -> None:
    """Reading, writing, listing and starting there are refused, and nothing outside changes."""
    with pytest.raises((PathEscape, FileNotFound)) as caught:
        tree.read(path, 100)
    assert path in str(caught.value)
    for call in (
        lambda: tree.write(path, b"changed", 0o777),
        lambda: tree.make_directory(path),
    ):
        with pytest.raises(PathEscape):
            call()
    for call in (lambda: tree.entries(path, 1), lambda: os.close(tree.entered(path)[0])):
        with pytest.raises((PathEscape, FileNotFound)):
            call()
    assert [file.name for file in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == SECRET


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("missing", FileNotFound),
        ("missing/file", FileNotFound),
        ("dangling", FileNotFound),
        ("file/below", NoSuchDirectory),
        ("dir", FileFailed),
        ("", FileFailed),
        ("/workspace", FileFailed),
        ("loop", FileFailed),
        ("ping", FileFailed),
        ("a\0b", FileFailed),
        ("\ud800", FileFailed),
        ("x" * 300, FileFailed),
        ("x/" * 3000, FileFailed),
        ("to-root/" * 50 + "file", FileFailed),
        ("dir/../" * 500 + "missing", FileNotFound),
    ],
)
def test_what_cannot_be_read_is_said(tree: WorkTree, path: str, fault: type[Exception]) -> None:
    """One fault each, never a foreign exception."""
    with pytest.raises(fault):
        tree.read(path, 100)


def test_pipes_sockets_and_devices_hold_nobody_up(tree: WorkTree) -> None:
    """What is no regular file is refused at once, for reading and for writing."""
    os.mkfifo(tree.root / "pipe")
    with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(tree.root):
        server.bind("socket")  # By its short name: a socket's path may have 100 characters only.
        for name in ("pipe", "socket"):
            with pytest.raises(FileFailed):
                tree.read(name, 100)
            with pytest.raises(FileFailed):
                tree.write(name, b"x")
        reader = os.open(tree.root / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        with pytest.raises(FileFailed, match="not a regular file"):
            tree.write("pipe", b"x")
        os.close(reader)


def test_reading_is_bounded(tree: WorkTree) -> None:
    """Exactly as much as the caller takes, and not a byte more."""
    assert tree.read("file", 6) == b"inside"
    with pytest.raises(FileTooLarge, match="5 bytes"):
        tree.read("file", 5)


def test_writing_creates_replaces_and_sets_modes(tree: WorkTree) -> None:
    """Missing directories are made; shorter content leaves no rest; only a given mode is set."""
    tree.write("a/b/c", b"first", 0o600)
    made = tree.root / "a" / "b" / "c"
    assert (made.read_bytes(), stat.S_IMODE(made.stat().st_mode)) == (b"first", 0o600)
    tree.write("/workspace/a/b/c", b"2nd")
    assert (made.read_bytes(), stat.S_IMODE(made.stat().st_mode)) == (b"2nd", 0o600)
    tree.write("a/b/c", b"", 0o4755)
    assert (made.read_bytes(), stat.S_IMODE(made.stat().st_mode)) == (b"", 0o755)
    tree.write("to-file", b"through")
    assert (tree.root / "file").read_bytes() == b"through"
    tree.write("dangling", b"new")
    assert (tree.root / "dir" / "new").read_bytes() == b"new"
    assert (tree.root / "to-file").is_symlink() and (tree.root / "dangling").is_symlink()


def test_writing_into_a_file_or_over_a_directory_is_refused(tree: WorkTree) -> None:
    """Nothing is removed to make room."""
    with pytest.raises(NoSuchDirectory):
        tree.write("file/below", b"x")
    for path in ("dir", "", "to-dir"):
        with pytest.raises(FileFailed):
            tree.write(path, b"x")
    with pytest.raises(FileConflict):
        tree.make_directory("file")


def test_directories_are_made_once(tree: WorkTree) -> None:
    """Making what exists is fine, through links as well."""
    for path in ("x/y/z", "x/y/z", "/workspace", "to-dir", "to-dir/sub/more"):
        tree.make_directory(path)
        assert (tree.root / path.removeprefix("/workspace")).is_dir()


def test_a_listing_names_what_is_there(tree: WorkTree) -> None:
    """Kinds, sizes, modes and link targets; links are shown, never followed; paths that lead back."""
    os.mkfifo(tree.root / "pipe", 0o640)
    (tree.root / os.fsdecode(b"bad\xff")).write_bytes(b"")
    (tree.root / "file").chmod(0o640)
    found = {entry.path: entry for entry in tree.entries("/workspace", 1)}
    kinds = {path.removeprefix("/workspace/"): entry.type for path, entry in found.items()}
    assert kinds["dir"] == "dir" and kinds["file"] == "file" and kinds["pipe"] == "other"
    assert kinds["to-dir"] == kinds["etc"] == kinds["dangling"] == "symlink"
    assert "bad�" in kinds and not any(name.startswith("dir/") for name in kinds)
    file = found["/workspace/file"]
    assert (file.name, file.is_dir, file.size, file.mode) == ("file", False, 6, 0o640)
    assert file.modified_time == (tree.root / "file").stat().st_mtime
    assert found["/workspace/out-dir"].symlink_target == "../outside"
    assert not found["/workspace/to-dir"].is_dir and found["/workspace/dir"].is_dir


@pytest.mark.parametrize("path", ["dir", "to-dir", "/workspace/dir/", "to-dir/../dir/sub/.."])
def test_a_listing_shows_real_paths(tree: WorkTree, path: str) -> None:
    """Depth counts levels, and paths hold neither links nor dots."""
    shown = [entry.path for entry in tree.entries(path, 1)]
    assert shown == ["/workspace/dir/sub", "/workspace/dir/up"]
    deeper = [entry.path for entry in tree.entries(path, 2)]
    assert deeper == ["/workspace/dir/sub", "/workspace/dir/sub/deep", "/workspace/dir/up"]


def test_listings_are_bounded(tree: WorkTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many entries are an error, and a tree of any depth costs few descriptors."""
    with pytest.raises(NoSuchDirectory):
        tree.entries("file", 1)
    with pytest.raises(FileNotFound):
        tree.entries("missing", 1)
    monkeypatch.setattr(module, "MAX_ENTRIES", 3)
    with pytest.raises(FileTooLarge, match="more than 3"):
        tree.entries("", 1)


def test_depth_is_bounded(tree: WorkTree) -> None:
    """Neither a path nor a listing holds more directories open than the limit says."""
    deep = "d/" * (2 * MAX_DEPTH)
    with pytest.raises(FileFailed, match="directories deep"):
        tree.write(f"{deep}file", b"")
    (tree.root / deep).mkdir(parents=True)
    with pytest.raises(FileFailed, match="directories deep"):
        tree.read(f"{deep}file", 1)
    assert max(entry.path.count("/d") for entry in tree.entries("d", 10**9)) == MAX_DEPTH + 1


def test_no_descriptor_is_left_open(tree: WorkTree) -> None:
    """Success and failure alike close all that was opened on the way."""
    before = open_descriptors()
    for path in ("file", "to-dir/sub/deep", "out-deep", "loop", "dir", "missing/x"):
        for call in (lambda p=path: tree.read(p, 3), lambda p=path: tree.entries(p, 3)):
            try:
                call()
            except RuntimeFault:
                pass
    tree.write("dir/q", b"")
    assert open_descriptors() == before


def test_size_counts_regular_files_once(tree: WorkTree) -> None:
    """Links add nothing, unreadable corners are passed over."""
    assert tree.size() == len(b"inside") + len(b"deep")


def test_an_entry_is_told_by_itself(tree: WorkTree, outside: Path) -> None:
    """Info never follows the last link, shows the real path, and knows the root."""
    (tree.root / "file").chmod(0o4751)
    file = tree.info("to-dir/../file")
    assert (file.path, file.size, file.mode) == ("/workspace/file", 6, 0o4751)
    assert file.permissions == "-rwsr-x--x"
    assert file.owner == pwd.getpwuid(os.getuid()).pw_name and file.group
    link = tree.info("out-absolute")
    assert (link.type, link.symlink_target) == ("symlink", str(outside / "secret"))
    assert tree.info("to-dir/sub").path == "/workspace/dir/sub"
    assert tree.info("dir/sub/..").path == "/workspace/dir"
    for path in ("", "/workspace", "dir/.."):
        root = tree.info(path)
        assert (root.path, root.name, root.is_dir) == ("/workspace", "workspace", True)
    for path, there in {
        "dangling": True,
        "out-dir": True,
        "loop": True,
        "x": False,
        "file/x": False,
    }.items():
        assert tree.exists(path) is there, path
    for path in ("..", "/etc/passwd", "out-dir/secret"):
        with pytest.raises(PathEscape):
            tree.exists(path)


def test_removing_takes_links_and_not_their_targets(tree: WorkTree, outside: Path) -> None:
    """Files, links and whole directories go; what links lead to stays; the root stays."""
    for path in ("to-file", "out-absolute", "out-dir", "dangling", "loop", "to-dir", "file"):
        tree.remove(path)
        assert not os.path.lexists(tree.root / path)
    (tree.root / "dir" / "sub" / "out").symlink_to(outside)
    (tree.root / ("d/" * 200)).mkdir(parents=True)
    os.mkfifo(tree.root / "d" / "pipe")
    for path in ("dir", "/workspace/d"):
        tree.remove(path)
        assert not (tree.root / path.rpartition("/")[2]).exists()
    assert [file.name for file in outside.iterdir()] == ["secret"]
    assert list((tree.root.parent / "aside").iterdir()) == []
    with pytest.raises(FileNotFound):
        tree.remove("dir")
    for path in ("", "/workspace", "to-root/..", "../workspace", "out-dir/secret"):
        with pytest.raises((FileFailed, PathEscape, FileNotFound)):
            tree.remove(path)
    assert tree.root.is_dir()


def test_renaming_moves_and_replaces(tree: WorkTree, outside: Path) -> None:
    """As rename(2) does it: files over files, links as links, never a directory that holds something."""
    assert tree.rename("file", "dir/sub/moved").path == "/workspace/dir/sub/moved"
    assert (tree.root / "dir/sub/moved").read_bytes() == b"inside"
    assert tree.rename("dir/sub/moved", "dir/sub/deep").size == 6
    moved = tree.rename("out-absolute", "dir/link")
    assert (moved.type, moved.symlink_target) == ("symlink", str(outside / "secret"))
    assert tree.rename("to-dir", "by-name").symlink_target == "dir"
    assert tree.rename("dir/sub/..", "whole").path == "/workspace/whole"
    (tree.root / "full").mkdir()
    (tree.root / "full" / "x").touch()
    refused = {
        ("missing", "new"): FileNotFound,
        ("whole", "missing/new"): FileNotFound,
        ("whole", "full"): FileConflict,
        ("full/x", "whole"): FileConflict,
        ("whole", "full/x"): FileConflict,
        ("whole", "whole/sub/below"): FileFailed,
        ("whole", "../out"): PathEscape,
        ("whole", "out-dir/new"): PathEscape,
        ("../outside/secret", "stolen"): PathEscape,
        ("out-dir/secret", "stolen"): PathEscape,
        ("", "new"): FileFailed,
        ("full", "/workspace"): FileFailed,
    }
    for (old, new), fault in refused.items():
        with pytest.raises(fault):
            tree.rename(old, new)
    assert [file.name for file in outside.iterdir()] == ["secret"]


def test_permissions_are_bits_and_no_more(tree: WorkTree, outside: Path) -> None:
    """Files and directories, through links inside; set-user-id bits are dropped, pipes refused."""
    secret = (outside / "secret").stat().st_mode
    for path, name, mode in (
        ("file", "file", 0o600),
        ("to-file", "file", 0o4711),
        ("dir", "dir", 0o1750),
        ("", "", 0o700),
    ):
        tree.set_permissions(path, mode)
        assert stat.S_IMODE((tree.root / name).stat().st_mode) == mode & 0o777
    tree.set_permissions("file", 0)
    tree.set_permissions("file", 0o644)  # One without any permissions can be given some again.
    os.mkfifo(tree.root / "pipe", 0o600)
    for path, fault in {
        "pipe": FileFailed, "out-absolute": PathEscape, "missing": FileNotFound, "dangling": FileNotFound,
    }.items():  # fmt: skip
        with pytest.raises(fault):
            tree.set_permissions(path, 0o777)
    assert (outside / "secret").stat().st_mode == secret
    assert stat.S_IMODE((tree.root / "pipe").stat().st_mode) == 0o600


def test_links_replace_files_and_no_directories(tree: WorkTree) -> None:
    """A link is made in one step, whatever it says; it is followed only as far as any other."""
    tree.link("new/link", "../file")
    tree.link("file", "/etc/passwd")
    assert tree.info("new/link").symlink_target == "../file"
    with pytest.raises(PathEscape):
        tree.read("new/link", 10)
    with pytest.raises(FileConflict):
        tree.link("dir", "x")
    with pytest.raises(FileFailed):
        tree.link("", "x")


def test_awkward_names_are_names(tree: WorkTree) -> None:
    """Line feeds, blanks, leading dashes and 255 bytes are fine; one byte more is a fault of its own."""
    for name in ("a\nb", " ", "-rf", "é" * 127, "x" * 255, "'\"*?"):
        tree.write(name, name.encode())
        assert tree.read(name, 1000) == name.encode()
        assert tree.rename(name, f"dir/{name}").name == name
        tree.remove(f"dir/{name}")
    with pytest.raises(FileFailed, match="too long"):
        tree.write("x" * 256, b"")


def test_what_the_user_may_not_is_said(tree: WorkTree) -> None:
    """Without root's powers a read-only directory refuses changes with a fault of its own."""
    (tree.root / "dir").chmod(0o555)
    (tree.root / "file").chmod(0o000)
    calls = {
        "write": lambda: tree.write("dir/new", b"x"),
        "remove": lambda: tree.remove("dir/up"),
        "rename": lambda: tree.rename("dir/up", "up"),
        "mkdir": lambda: tree.make_directory("dir/new"),
        "read": lambda: tree.read("file", 10),
    }
    told = _unprivileged(tree.root, calls)
    (tree.root / "dir").chmod(0o755)
    assert told == dict.fromkeys(calls, "FileDenied")


def _unprivileged(root: Path, calls: dict[str, Callable[[], object]]) -> dict[str, str]:
    """Which faults calls meet in a process that is not root."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        told: dict[str, str] = {}
        try:
            if os.getuid() == 0:
                for folder in (root, *root.parents[:-1]):
                    if folder.stat().st_uid == 0 and str(folder).startswith("/tmp/"):
                        folder.chmod(0o755)
                for path in (root, root / "dir", root / "file", root.parent):
                    os.chown(path, 65534, 65534)
                os.setgid(65534)
                os.setuid(65534)
            for name, call in calls.items():
                try:
                    call()
                    told[name] = "done"
                except RuntimeFault as fault:
                    told[name] = type(fault).__name__
        finally:
            os.write(writing, repr(told).encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        told = ast.literal_eval(answer.read())
    os.waitpid(child, 0)
    return told
