"""Walking a path: what each kind of last component gets, and the system's errors in our words."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge.appliance.runtime import (
    DiskFull,
    FileConflict,
    FileDenied,
    FileFailed,
    FileNotFound,
    FileTooLarge,
    NoSuchDirectory,
    PathEscape,
)
from edge.appliance.runtime.paths import MAX_LINKS, Paths, faults, link_target, refuse_link


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A tree with a directory, a link to it, and a link to nothing."""
    root = tmp_path / "root"
    (root / "dir" / "sub").mkdir(parents=True)
    (root / "link").symlink_to("dir")
    (root / "dangling").symlink_to("dir/new")
    return root


def _look(name: str, directory: int) -> str:
    if link_target(name, directory) is not None:
        refuse_link()
    return name


@pytest.mark.parametrize(
    ("path", "followed", "unfollowed"),
    [
        ("dir", ("dir", ["dir"]), ("dir", ["dir"])),
        ("link", ("dir", ["dir"]), ("link", ["link"])),
        ("link/sub", ("sub", ["dir", "sub"]), ("sub", ["dir", "sub"])),
        ("dangling", ("new", ["dir", "new"]), ("dangling", ["dangling"])),
        ("dir/sub/..", (".", ["dir"]), ("dir", ["dir"])),
        ("link/.", ("dir", ["dir"]), ("link", ["link"])),
        ("", (".", []), (".", [])),
        ("/workspace/dir/..", (".", []), (".", [])),
    ],
)
def test_the_last_component_is_the_callers(
    root: Path, path: str, followed: tuple[str, list[str]], unfollowed: tuple[str, list[str]]
) -> None:
    """Following, it is what links lead to; not following, the name in its directory; never the way."""
    assert Paths(root).walk(path, _look) == followed
    assert Paths(root).walk(path, lambda name, _: name, follow=False) == unfollowed


def test_a_failure_of_the_last_step_is_not_taken_for_a_link(root: Path) -> None:
    """Not following, an error about a link is the caller's, and the link is not walked."""

    def fail(name: str, directory: int) -> None:
        raise FileExistsError(errno.EEXIST, "in the way")

    with pytest.raises(FileExistsError):
        Paths(root).walk("link", fail, follow=False)


def test_links_have_an_end(root: Path) -> None:
    """So many may be walked, one more is a fault."""
    for number in range(MAX_LINKS + 1):
        (root / f"l{number}").symlink_to(f"l{number - 1}" if number else "dir")
    assert Paths(root).walk(f"l{MAX_LINKS - 1}", _look) == ("dir", ["dir"])
    with pytest.raises(FileFailed, match="too many"):
        Paths(root).walk(f"l{MAX_LINKS}", _look)


def test_missing_directories_are_made_on_request(root: Path) -> None:
    """Those above the last component, and only then."""
    with pytest.raises(FileNotFoundError):
        Paths(root).walk("new/er/x", _look)
    assert not (root / "new").exists()
    assert Paths(root).walk("new/er/x", _look, create=True) == ("x", ["new", "er", "x"])
    assert [path.name for path in (root / "new").iterdir()] == ["er"]


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (errno.ENOENT, FileNotFound),
        (errno.ENOTDIR, NoSuchDirectory),
        (errno.ELOOP, PathEscape),
        (errno.EACCES, FileDenied),
        (errno.EPERM, FileDenied),
        (errno.EROFS, FileDenied),
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EFBIG, FileTooLarge),
        (errno.EEXIST, FileConflict),
        (errno.ENOTEMPTY, FileConflict),
        (errno.EISDIR, FileConflict),
        (errno.EIO, FileFailed),
    ],
)
def test_errors_have_our_words(number: int, fault: type[Exception]) -> None:
    """Each kind its fault, which names the path as it was asked for."""
    with pytest.raises(fault, match="the/path") as caught, faults("the/path"):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is fault
