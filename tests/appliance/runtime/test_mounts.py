"""Volumes in a work tree: the file calls go in by the table, and nowhere else."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.appliance.runtime import (
    FileConflict,
    FileDenied,
    FileFailed,
    FileNotFound,
    MountMissing,
    MountTaken,
    PathEscape,
    RuntimeFault,
    VolumeLost,
)
from edge.appliance.runtime import search as searching
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.mounts import Mount


@pytest.fixture
def tree(tmp_path: Path) -> WorkTree:
    """An empty work tree."""
    root = tmp_path / "sandbox" / "workspace"
    root.mkdir(parents=True)
    return WorkTree(root)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume with one file."""
    folder = tmp_path / "volume"
    folder.mkdir()
    (folder / "v.txt").write_text("needle")
    return folder


@pytest.fixture
def mount(tree: WorkTree, volume: Path) -> Mount:
    """The volume at ``/workspace/a/vol``."""
    made = Mount(("a", "vol"), volume)
    tree.mount(made)
    return made


def test_what_is_read_only_is_not_changed(tree: WorkTree, tmp_path: Path) -> None:
    """By no call, whichever way the path leads there; read it can be, and a directory that is there is fine."""
    volume = tmp_path / "one" / "files"
    (volume / "d").mkdir(parents=True)
    (volume / "d" / "f").write_text("needle")
    tree.mount(Mount(("v",), volume, read_only=True))
    tree.write("mine", b"mine")
    tree.link("way", "v/d")
    calls: list[Callable[[], object]] = [
        lambda: tree.write("v/d/f", b""),
        lambda: tree.write("v/new", b""),
        lambda: tree.write("way/f", b""),
        lambda: tree.receive("way/f", 1),
        lambda: tree.publish(tree.aside.receive("v/new", 1), "v/new"),
        lambda: tree.make_directory("v/new"),
        lambda: tree.make_directory("v/d/f"),
        lambda: tree.link("v/new", "d"),
        lambda: tree.remove("v/d/f"),
        lambda: tree.remove("way/f"),
        lambda: tree.remove("v"),
        lambda: tree.rename("v/d/f", "taken"),
        lambda: tree.rename("mine", "v/mine"),
        lambda: tree.set_permissions("v/d/f", 0o600),
        lambda: searching.replace(tree, ["v/d/f"], "needle", "pin", dry_run=False),
    ]
    for call in calls:
        with pytest.raises(FileDenied, match="read-only"):
            call()
    tree.make_directory("v/d")
    tree.check(Mount(("v",), volume, read_only=True))
    assert tree.read("way/f", 10) == b"needle" and tree.info("v/d/f").size == 6
    assert len(searching.find(tree, "v", "needle")) == 1
    assert [path.name for path in volume.rglob("*")] == ["d", "f"]
    with pytest.raises(VolumeLost):
        tree.mount(Mount(("w",), volume, ("missing",), read_only=True))


def test_processes_and_calls_see_the_same(tree: WorkTree, mount: Mount, volume: Path) -> None:
    """What one of both writes the other reads; the mount is shown as a directory."""
    through = tree.root / "a" / "vol"
    assert (through / "v.txt").read_text() == "needle"
    tree.write("/workspace/a/vol/b/new.txt", b"new")
    assert (volume / "b" / "new.txt").read_bytes() == b"new" == (through / "b/new.txt").read_bytes()
    assert tree.read("a/vol/v.txt", 10) == b"needle"
    assert tree.info("a/vol").is_dir and tree.info("a/vol").path == "/workspace/a/vol"
    listed = {entry.path: entry.type for entry in tree.entries("/workspace", 9)}
    assert listed == {
        "/workspace/a": "dir",
        "/workspace/a/vol": "dir",
        "/workspace/a/vol/b": "dir",
        "/workspace/a/vol/b/new.txt": "file",
        "/workspace/a/vol/v.txt": "file",
    }
    assert {entry.type for entry in tree.entries("a", 1)} == {"dir"}
    (match,) = searching.find(tree, "/workspace", "needle")
    assert match.file == "/workspace/a/vol/v.txt"
    tree.rename("a/vol/v.txt", "out.txt")
    assert (tree.root / "out.txt").read_text() == "needle" and not (volume / "v.txt").exists()
    directory = tree.entered("a/vol")[0]
    assert os.fstat(directory).st_ino == volume.stat().st_ino
    os.close(directory)


def test_ways_through_a_mount(tree: WorkTree, mount: Mount, volume: Path) -> None:
    """Links to it and in it, ``..`` behind it, and its real path all stay inside."""
    (tree.root / "link").symlink_to("a/vol")
    (volume / "up").symlink_to("../../top")
    (volume / "down").symlink_to("/workspace/a/vol/v.txt")
    (tree.root / "top").write_text("top")
    assert tree.read("link/v.txt", 10) == b"needle"
    assert tree.read("a/vol/up", 10) == b"top", "from where it is mounted, not from where it is"
    assert tree.read("a/vol/down", 10) == b"needle"
    assert tree.read("a/vol/../../top", 10) == b"top"
    (volume / "out").symlink_to(volume.parent)
    (volume / "far").symlink_to("../../../x")
    for path in ("a/vol/out/volume/v.txt", "a/vol/far", str(volume / "v.txt")):
        with pytest.raises(PathEscape):
            tree.read(path, 10)


def test_a_mount_stays_where_it_is(tree: WorkTree, mount: Mount, volume: Path) -> None:
    """Neither it nor what it is in is removed, moved, replaced or written over by a call."""
    tree.make_directory("empty")
    refused: list[Callable[[], object]] = [
        lambda: tree.remove("a/vol"),
        lambda: tree.remove("a"),
        lambda: tree.rename("a", "b"),
        lambda: tree.rename("a/vol", "b"),
        lambda: tree.rename("empty", "a/vol"),
        lambda: tree.write("a/vol", b""),
        lambda: tree.link("a/vol", "x"),
        lambda: tree.remove("a/vol/x/.."),
    ]
    (volume / "x").mkdir()
    for call in refused:
        with pytest.raises((FileFailed, FileConflict)):
            call()
    tree.check(mount)
    assert (volume / "v.txt").exists()


def test_a_link_of_a_process_is_no_mount(tree: WorkTree, mount: Mount, volume: Path) -> None:
    """Only at its place and only as we made it; a directory there is the process's own."""
    (tree.root / "copy").symlink_to(mount.target)
    with pytest.raises(PathEscape):
        tree.read("copy/v.txt", 10)
    place = tree.root / "a" / "vol"
    place.unlink()
    place.symlink_to(volume.parent)
    with pytest.raises(PathEscape):
        tree.entries("a/vol", 1)
    assert [entry.type for entry in tree.entries("a", 3)] == ["symlink"]
    place.unlink()
    place.mkdir()
    tree.write("a/vol/mine", b"")
    assert (place / "mine").exists() and not (volume / "mine").exists()


def test_what_it_leads_to_is_not_followed(tree: WorkTree, tmp_path: Path, volume: Path) -> None:
    """A part of a volume that somebody makes a link is not there, whatever the link says."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("secret")
    part = Mount(("part",), volume, ("p", "q"))
    tree.mount(part)
    tree.write("part/f", b"1")
    assert (volume / "p" / "q" / "f").exists()
    (volume / "p" / "q").rename(volume / "away")
    (volume / "p" / "q").symlink_to(secret)
    with pytest.raises(RuntimeFault):
        tree.read("part/file", 10)
    with pytest.raises(VolumeLost):
        tree.check(part)
    with pytest.raises(VolumeLost):
        tree.mount(part)


@pytest.mark.parametrize("what", ["file", "full", "link", "parent", "way"])
def test_what_is_in_the_way_stays(tree: WorkTree, volume: Path, what: str) -> None:
    """A file, a directory with something in it, a link, a file or link on the way to it."""
    (tree.root / "a").mkdir()
    place = tree.root / "a" / "vol"
    if what == "file":
        place.write_text("mine")
    elif what == "full":
        place.mkdir()
        (place / "mine").write_text("mine")
    elif what == "link":
        place.symlink_to("..")
    elif what == "parent":
        (tree.root / "a").rmdir()
        (tree.root / "a").write_text("mine")
    else:
        (tree.root / "a").rename(tree.root / "b")
        (tree.root / "a").symlink_to("b")
    mount = Mount(("a", "vol"), volume)
    with pytest.raises(MountTaken):
        tree.mount(mount)
    if what != "parent":
        with pytest.raises((MountTaken, MountMissing)):
            tree.check(mount)
    assert tree.mounts.at(mount.path) is None
    assert [path.name for path in tree.root.rglob("mine")] == (["mine"] if what == "full" else [])


def test_an_empty_directory_makes_room(tree: WorkTree, volume: Path) -> None:
    """As the place of a mount it is there beforehand, elsewhere."""
    (tree.root / "vol").mkdir()
    mount = Mount(("vol",), volume)
    tree.mount(mount)
    tree.mount(mount)
    assert tree.read("vol/v.txt", 10) == b"needle"


def test_health(tree: WorkTree, mount: Mount, volume: Path) -> None:
    """Well, link gone, something else there, the whole way gone, volume gone; and well again."""
    tree.check(mount)
    place = tree.root / "a" / "vol"
    place.unlink()
    with pytest.raises(MountMissing):
        tree.check(mount)
    place.write_text("")
    with pytest.raises(MountTaken):
        tree.check(mount)
    place.unlink()
    place.parent.rmdir()
    with pytest.raises(MountMissing):
        tree.check(mount)
    tree.mount(mount)
    volume.rename(volume.with_name("away"))
    with pytest.raises(VolumeLost):
        tree.check(mount)
    with pytest.raises(FileNotFound):
        tree.write("a/vol/x", b"")
    assert not volume.exists(), "nothing makes a volume that is gone anew"
    assert [entry.type for entry in tree.entries("a", 2)] == ["symlink"]
    volume.with_name("away").rename(volume)
    tree.check(mount)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_volume_that_cannot_be_written(tree: WorkTree, mount: Mount, volume: Path) -> None:
    """Is not well, and is seen all the same."""
    volume.chmod(0o500)
    with pytest.raises(FileDenied):
        tree.check(mount)
    assert tree.read("a/vol/v.txt", 10) == b"needle"
    with pytest.raises(FileDenied):
        tree.write("a/vol/new", b"")
    volume.chmod(0o700)
    tree.check(mount)


def test_unmounting(tree: WorkTree, mount: Mount, volume: Path) -> None:
    """The link goes, its place can be used, open files stay open; what a process made of it stays."""
    with (tree.root / "a" / "vol" / "v.txt").open("a") as file:
        tree.unmount(mount)
        file.write("!")
    assert (volume / "v.txt").read_text() == "needle!"
    assert list((tree.root / "a").iterdir()) == []
    tree.unmount(mount)
    tree.remove("a")
    tree.unmount(mount)
    tree.mount(mount)
    place = tree.root / "a" / "vol"
    place.unlink()
    place.mkdir()
    tree.unmount(mount)
    assert place.is_dir()
