"""A tar archive becomes a directory, whole, inside, and only if all of it is good."""

from __future__ import annotations

import io
import stat
import tarfile
from pathlib import Path

import pytest

from edge.appliance.runtime import FileConflict
from edge.appliance.runtime import unpack as module
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.unpack import BadArchive, Unpacked, unpack


@pytest.fixture
def tree(tmp_path: Path) -> WorkTree:
    """A tree with a directory that holds a file, and something outside."""
    root = tmp_path / "workspace"
    (root / "d").mkdir(parents=True)
    (root / "d" / "old").write_bytes(b"old")
    (tmp_path / "outside").mkdir()
    return WorkTree(root)


def _member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o640
) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def _archive(*members: tarfile.TarInfo, content: bytes = b"content") -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if member.isreg():
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return data.getvalue()


def _unpack(tree: WorkTree, data: bytes, conflict: str = "merge", path: str = "d") -> Unpacked:
    with tree.aside.receive("archive", len(data)) as staged:
        staged.write(data)
        return unpack(tree, staged, path, conflict)


GOOD = (
    _member("sub", tarfile.DIRTYPE, mode=0o500),
    _member("sub/" + "long" * 60, mode=0o4755),
    _member("file"),
    _member("sub/link", tarfile.SYMTYPE, "../file"),
)


@pytest.mark.parametrize(
    ("conflict", "path", "old"),
    [("merge", "d", True), ("replace", "d", False), ("error", "new/er", False)],
)
def test_what_is_in_it_is_there(tree: WorkTree, conflict: str, path: str, old: bool) -> None:
    """Files, directories, links and their modes; what was there stays only where that is asked for."""
    done = _unpack(tree, _archive(*GOOD, content=bytes(1_000_000)), conflict, path)
    assert done == Unpacked(files=2, size=2_000_000)
    folder = tree.root / path
    assert (folder / "sub/link").read_bytes() == bytes(1_000_000)
    assert stat.S_IMODE((folder / "sub").stat().st_mode) == 0o500
    assert stat.S_IMODE((folder / "sub" / ("long" * 60)).stat().st_mode) == 0o755
    assert (folder / "old").exists() is old
    assert list(tree.aside.folder.iterdir()) == []


BAD: dict[str, tuple[tuple[tarfile.TarInfo, ...], str]] = {
    "dots": ((_member("../../outside/x"),), "invalid_path"),
    "dots later": ((_member("a/../../x"),), "invalid_path"),
    "absolute": ((_member("/x"),), "invalid_path"),
    "link up": ((_member("l", tarfile.SYMTYPE, "../x"),), "invalid_symlink"),
    "link absolute": ((_member("l", tarfile.SYMTYPE, "/etc"),), "invalid_symlink"),
    "link nowhere": ((_member("l", tarfile.SYMTYPE, ""),), "invalid_symlink"),
    "hard link": ((_member("a"), _member("l", tarfile.LNKTYPE, "a")), "unsupported_entry"),
    "pipe": ((_member("p", tarfile.FIFOTYPE),), "unsupported_entry"),
    "device": ((_member("c", tarfile.CHRTYPE),), "unsupported_entry"),
}


@pytest.mark.parametrize("name", BAD)
def test_one_bad_entry_and_nothing_is_written(tree: WorkTree, name: str) -> None:
    """Also when it is the last one; what would have been replaced stays."""
    members, reason = BAD[name]
    with pytest.raises(BadArchive) as refused:
        _unpack(tree, _archive(_member("good"), *members), "replace")
    assert refused.value.reason == f"directory_extract_{reason}"
    assert [path.name for path in (tree.root / "d").iterdir()] == ["old"]
    assert list((tree.root.parent / "outside").iterdir()) == []


def _huge_header() -> bytes:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    return header.tobuf()


@pytest.mark.parametrize(
    "data",
    [b"", b"no archive" * 100, _archive(_member("a"))[:520], _archive(_member("a"))[:512] + b"x", _huge_header()],
    ids=["empty", "nonsense", "cut", "cut content", "huge header"],
)  # fmt: skip
def test_what_is_no_archive(tree: WorkTree, data: bytes) -> None:
    """Is refused, however it is broken, and costs no memory."""
    with pytest.raises(BadArchive):
        _unpack(tree, data)


def test_a_link_of_the_archive_leads_nobody_out(tree: WorkTree) -> None:
    """Links that each stay inside may meet a link of the tree that does not: then the walk refuses."""
    (tree.root / "d" / "way").symlink_to("../../outside")
    for data in (
        _archive(_member("way/x")),
        _archive(_member("l", tarfile.SYMTYPE, "way"), _member("l/x")),
    ):
        with pytest.raises(Exception, match="leads out of /workspace"):
            _unpack(tree, data)
    assert list((tree.root.parent / "outside").iterdir()) == []


def test_what_is_in_the_way(tree: WorkTree, monkeypatch: pytest.MonkeyPatch) -> None:
    """An existing target where none may be, a file in place of a directory, too many entries."""
    with pytest.raises(BadArchive) as refused:
        _unpack(tree, _archive(*GOOD), "error")
    assert refused.value.reason == "target_conflict"
    with pytest.raises(FileConflict):
        _unpack(tree, _archive(*GOOD), "merge", "d/old")
    monkeypatch.setattr(module, "MAX_MEMBERS", 3)
    with pytest.raises(BadArchive, match="More than 3"):
        _unpack(tree, _archive(*GOOD))
