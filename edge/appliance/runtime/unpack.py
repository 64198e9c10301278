"""A tar archive that was received becomes a directory of a work tree.

The whole archive is judged before the first of its files is written. Every file goes the way of all
others (``paths.py``, ``staged.py``), so neither a name nor a link of the archive leads out of the tree.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.interface import FileNotFound, RuntimeFault
from edge.appliance.runtime.staged import Staged

MAX_MEMBERS = 100_000
_PIECE = 256 << 10
_HEADER = 1 << 20
"""Bytes that the archive may ask us to hold at once: names and the like."""


class BadArchive(RuntimeFault):
    """The archive cannot be unpacked; ``reason`` is the client's word for why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Unpacked:
    """How much there was in it."""

    files: int
    size: int


def unpack(tree: WorkTree, staged: Staged, path: str, conflict: str) -> Unpacked:
    """Make the archive's content the content of the directory ``path``.

    ``conflict`` says what becomes of one that exists: ``merge`` writes into it, ``replace`` removes it
    first, ``error`` refuses. Blocks; raises `BadArchive` and what `WorkTree` raises.
    """
    for member in _members(staged):
        _judge(member)
    try:
        tree.info(path)
    except FileNotFound:
        pass
    else:
        if conflict == "error":
            raise BadArchive("target_conflict", f"{path} exists.")
        if conflict == "replace":
            tree.remove(path)
    tree.make_directory(path)
    files = size = 0
    modes: list[tuple[str, int]] = []
    for member in _members(staged):
        place = f"{path}/{member.name}"
        if member.isdir():
            tree.make_directory(place)
            modes.append((place, member.mode))
        elif member.issym():
            tree.link(place, member.linkname)
        else:
            _write(tree, staged, place, member)
            files += 1
            size += member.size
    for place, mode in reversed(modes):  # Last, because a directory may be read-only.
        tree.set_permissions(place, mode)
    return Unpacked(files, size)


def _write(tree: WorkTree, staged: Staged, place: str, member: tarfile.TarInfo) -> None:
    with tree.receive(place, member.size) as file:
        while file.size < member.size:
            wanted = min(_PIECE, member.size - file.size)
            data = staged.read(member.offset_data + file.size, wanted)
            if not data:
                raise BadArchive("directory_extract_unsupported_entry", "The archive is cut short.")
            file.write(data)
        file.publish(tree.paths, place, member.mode)


def _judge(member: tarfile.TarInfo) -> None:
    shown = member.name[:200]
    if not (member.isdir() or member.issym() or member.isreg()) or member.issparse():
        reason, what = "directory_extract_unsupported_entry", "is no file, directory or link"
        raise BadArchive(reason, f"{shown!r} {what}.")
    if _depth(member.name) is None or not member.name:
        raise BadArchive("directory_extract_invalid_path", f"{shown!r} leads out of the archive.")
    if member.issym():
        above = member.name.rpartition("/")[0]
        if not member.linkname or _depth(f"{above}/{member.linkname}", member.linkname) is None:
            reason = "directory_extract_invalid_symlink"
            raise BadArchive(reason, f"{shown!r} is a link that leads out of the archive.")


def _depth(path: str, absolute: str | None = None) -> int | None:
    """How deep a path leads, or None if it leads out on the way or is absolute."""
    if (path if absolute is None else absolute).startswith("/") or "\0" in path:
        return None
    depth = 0
    for name in path.split("/"):
        if name == "..":
            depth -= 1
        elif name not in ("", "."):
            depth += 1
        if depth < 0:
            return None
    return depth


def _members(staged: Staged) -> Iterator[tarfile.TarInfo]:
    try:
        with tarfile.open(fileobj=_Reader(staged), mode="r:") as archive:
            count = 0
            while (member := archive.next()) is not None:
                # Kept for look-ups by name, of which there are none. Typeshed does not know the list.
                archive.members.clear()  # type: ignore[attr-defined]
                count += 1
                if count > MAX_MEMBERS:
                    raise BadArchive("size_limit_exceeded", f"More than {MAX_MEMBERS} entries.")
                yield member
    except (tarfile.TarError, ValueError, EOFError):
        reason = "directory_extract_unsupported_entry"
        raise BadArchive(reason, "The upload is not a good tar archive.") from None


class _Reader(io.RawIOBase):
    """The received file as tarfile wants it."""

    def __init__(self, staged: Staged) -> None:
        self._staged = staged
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes; never many at once."""
        if not 0 <= size <= _HEADER:
            raise ValueError("the archive has too large a header")
        data = self._staged.read(self._at, size)
        self._at += len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go on reading elsewhere."""
        assert whence == io.SEEK_SET
        self._at = offset
        return offset

    def tell(self) -> int:
        """Where reading goes on."""
        return self._at
