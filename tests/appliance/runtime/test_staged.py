"""Files on their way into a tree: nobody sees half of one, and nothing is left of one that never came."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from families import open_descriptors

from edge.appliance.runtime import FileFailed, FileTooLarge, PathEscape
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.staged import clear

ROOT = Path(__file__).parents[3]


@pytest.fixture
def tree(tmp_path: Path) -> WorkTree:
    """An empty tree."""
    (tmp_path / "workspace").mkdir()
    return WorkTree(tmp_path / "workspace")


def _left(tree: WorkTree) -> list[Path]:
    return list(tree.aside.folder.iterdir())


def test_a_file_appears_whole_or_not_at_all(tree: WorkTree) -> None:
    """Nothing is seen in the tree while it is received; then all of it is, and nothing beside the tree."""
    with tree.receive("a/b", 100) as staged:
        staged.write(b"first ")
        staged.write(bytearray(b"second"))
        assert list(tree.root.iterdir()) == []
        assert tree.publish(staged, "a/b").size == staged.size == 12
        assert (tree.root / "a" / "b").read_bytes() == b"first second"
    assert _left(tree) == []


def test_what_is_not_published_goes_without_a_trace(tree: WorkTree) -> None:
    """Closing removes it, more than once is harmless, and descriptors are given back."""
    before = open_descriptors()
    staged = tree.receive("x", 100)
    staged.write(b"data")
    assert len(_left(tree)) == 1
    staged.close()
    staged.close()
    assert _left(tree) == list(tree.root.iterdir()) == []
    assert open_descriptors() == before


def test_parts_come_in_any_order(tree: WorkTree) -> None:
    """Each at its offset, and they can be read before they are published."""
    with tree.receive("x", 6) as staged:
        staged.write_at(3, b"def")
        assert staged.read(0, 9) == b"\0\0\0def"
        staged.write_at(0, b"abc")
        tree.publish(staged, "x")
    assert tree.read("x", 9) == b"abcdef"


def test_the_limit_is_exact(tree: WorkTree) -> None:
    """Up to it and no byte beyond, wherever that would be."""
    with tree.receive("x", 4) as staged:
        staged.write(b"1234")
        for call in (lambda: staged.write(b"5"), lambda: staged.write_at(3, b"45")):
            with pytest.raises(FileTooLarge, match="larger than 4"):
                call()
        assert staged.read(0, 9) == b"1234"


def test_a_refused_place_costs_nothing(tree: WorkTree) -> None:
    """Where it cannot go is known before the first byte; what has come in the way since is told then."""
    (tree.root / "dir").mkdir()
    (tree.root / "out").symlink_to("../secret")
    for path, fault in {
        "dir": FileFailed,
        "../x": PathEscape,
        "out": PathEscape,
        "": FileFailed,
    }.items():
        with pytest.raises(fault):
            tree.receive(path, 1)
    assert not tree.aside.folder.exists()
    with tree.receive("new", 1) as staged:
        (tree.root / "new").mkdir()
        with pytest.raises(FileFailed, match="new is a directory"):
            tree.publish(staged, "new")
    assert _left(tree) == []


def test_the_mode_stays(tree: WorkTree) -> None:
    """Of a file that is replaced, without set-user-id bits; a new one gets the usual."""
    tree.write("x", b"1")
    usual = 0o644 & ~_umask()
    assert stat.S_IMODE((tree.root / "x").stat().st_mode) == usual
    (tree.root / "x").chmod(0o4750)
    tree.write("x", b"2")
    assert stat.S_IMODE((tree.root / "x").stat().st_mode) == 0o750


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_place_that_is_no_directory_is_not_used(tree: WorkTree, tmp_path: Path) -> None:
    """A link in the place beside the tree leads nobody away."""
    (tmp_path / "elsewhere").mkdir()
    tree.aside.folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotADirectoryError):
        tree.aside.open()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_clearing_copes_with_what_resists(tmp_path: Path) -> None:
    """Depth and read-only directories, also where root's powers do not help."""
    deep = tmp_path / "deep"
    (deep / ("d/" * 500)).mkdir(parents=True)
    (deep / "d").chmod(0o500)
    clear(deep)
    assert not deep.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs namespaces: Linux")
@pytest.mark.needs_tool("unshare")
def test_a_full_disk_leaves_the_old_content(tmp_path: Path) -> None:
    """On a file system of one MiB: a fault of its own, the old content whole, room again afterwards."""
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from edge.appliance.runtime import DiskFull
        from edge.appliance.runtime.files import WorkTree
        root = Path(sys.argv[1]) / "workspace"
        root.mkdir()
        tree = WorkTree(root)
        tree.write("x", b"old" * 1000)
        for data in (bytes(1 << 20), bytes(2 << 20)):
            try:
                tree.write("x", data)
            except DiskFull as fault:
                assert str(fault) == "x: no space is left on the disk.", fault
            else:
                raise SystemExit("written")
        assert tree.read("x", 9999) == b"old" * 1000
        tree.write("x", bytes(1 << 19))
        assert list((root.parent / "aside").iterdir()) == []
        print("proved")
    """)
    line = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", line, "sh"]
    ran = subprocess.run(
        [*command, str(tmp_path), sys.executable, script],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    if "unshare" in ran.stderr or "mount" in ran.stderr:
        pytest.skip(f"this machine lets us mount nothing: {ran.stderr.strip()}")
    assert ran.stdout == "proved\n", ran.stderr
