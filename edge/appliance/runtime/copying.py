"""Copying a work tree: for snapshots, for what is created from one, and for forks.

A copy has what the original had, as far as files go: content with its holes, modes, times, symbolic links as
they are, hard links among its own files. Pipes, sockets and devices belong to processes and stay behind, and
so do mounts. Both sides are walked by descriptors and no link is ever followed, because processes that
nobody can hold (those of other sandboxes) may write to the tree meanwhile.

A link that says the original's real place says the copy's afterwards.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge.appliance.runtime.interface import FileTooLarge, RuntimeFault
from edge.appliance.runtime.mounts import Mounts
from edge.appliance.runtime.paths import DIRECTORY, WORKSPACE, faults

PIECE = 8 << 20
"""Bytes copied between two looks at the clock."""

DEEPEST = 128
"""Directories below each other; each costs two descriptors while it is copied."""

_FICLONE = 0x40049409
"""``ioctl_ficlone(2)``: share the content until one of both is written to."""
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_HOLES = hasattr(os, "SEEK_DATA")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one copy may be: names, bytes of content (holes do not count), seconds."""

    entries: int = 200_000
    size: int = 16 << 30
    seconds: float = 60.0


BOUNDS = Bounds()


class Interrupted(RuntimeFault):
    """The copy was told to end."""


def copy_tree(
    source: Path,
    target: Path,
    *,
    mounts: Mounts | None = None,
    relocate: Mapping[str, str] | None = None,
    bounds: Bounds = BOUNDS,
    stop: threading.Event | None = None,
) -> int:
    """Copy what is in ``source`` into ``target``, an empty directory; gives the bytes of content.

    ``relocate``: what absolute links begin with, and what they are to begin with in the copy. Blocks. Raises
    `FileTooLarge` (for all bounds), `DiskFull`, `FileDenied`, `FileFailed`; what is copied by then stays.
    """
    with _opened(source, WORKSPACE) as inner, _opened(target, WORKSPACE) as outer:
        copy = _Copy(outer, mounts, relocate or {}, bounds, stop or threading.Event())
        with faults(WORKSPACE):
            copy.directory(inner, outer, ())
    return copy.size


class _Copy:
    def __init__(
        self,
        top: int,
        mounts: Mounts | None,
        relocate: Mapping[str, str],
        bounds: Bounds,
        stop: threading.Event,
    ) -> None:
        self.size = 0
        self._top = top
        self._mounts = mounts
        self._relocate = relocate
        self._bounds = bounds
        self._stop = stop
        self._end = time.monotonic() + bounds.seconds
        self._entries = 0
        self._links: dict[tuple[int, int], str] = {}
        self._clones = True

    def directory(self, source: int, target: int, names: tuple[str, ...]) -> None:
        if len(names) > DEEPEST:
            raise FileTooLarge(f"The files are more than {DEEPEST} directories deep.")
        with os.scandir(source) as scan:
            for entry in scan:
                self._tick()
                path = (*names, entry.name)
                with faults("/".join([WORKSPACE, *map(_shown, path)])):
                    self._entry(entry.name, source, target, path)

    def _entry(self, name: str, source: int, target: int, path: tuple[str, ...]) -> None:
        try:
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
        except FileNotFoundError:
            return  # Gone since it was listed.
        match stat.S_IFMT(status.st_mode):
            case stat.S_IFREG:
                self._file(name, source, target, path, status)
            case stat.S_IFDIR:
                self._inner(name, source, target, path)
            case stat.S_IFLNK:
                self._link(name, source, target, path, status)

    def _inner(self, name: str, source: int, target: int, path: tuple[str, ...]) -> None:
        with _directory(name, source) as inner:
            os.mkdir(name, 0o700, dir_fd=target)
            with _directory(name, target) as outer:
                self.directory(inner, outer, path)
                # Last: a directory without write permission can be filled until then.
                self._finish(outer, os.fstat(inner))

    def _link(
        self, name: str, source: int, target: int, path: tuple[str, ...], status: os.stat_result
    ) -> None:
        mount = self._mounts.at("/".join([WORKSPACE, *path])) if self._mounts else None
        if mount is not None and mount.is_at(name, source):
            return
        says = os.readlink(name, dir_fd=source)
        for old, new in self._relocate.items():
            if says == old or says.startswith(f"{old}/"):
                says = new + says[len(old) :]
                break
        os.symlink(says, name, dir_fd=target)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)

    def _file(
        self, name: str, source: int, target: int, path: tuple[str, ...], status: os.stat_result
    ) -> None:
        here = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and here in self._links and self._linked(here, name, target):
            return
        inner = os.open(name, _READ, dir_fd=source)
        try:
            status = os.fstat(inner)
            if not stat.S_ISREG(status.st_mode):
                return  # Replaced since we looked.
            outer = os.open(name, _WRITE, 0o600, dir_fd=target)
            try:
                self._content(inner, outer, status)
                self._finish(outer, status)
            finally:
                os.close(outer)
        finally:
            os.close(inner)
        if status.st_nlink > 1:
            self._links[here] = "/".join(path)

    def _linked(self, here: tuple[int, int], name: str, target: int) -> bool:
        try:
            os.link(self._links[here], name, src_dir_fd=self._top, dst_dir_fd=target)
        except OSError:
            return False  # Too many links, or a directory that cannot be searched: a copy will do.
        return True

    def _content(self, source: int, target: int, status: os.stat_result) -> None:
        if not status.st_size:
            return
        if self._cloned(source, target):
            self._count(status.st_size)
            return
        os.ftruncate(target, status.st_size)
        for start, end in _extents(source, status.st_size):
            at = start
            while at < end:
                length = min(PIECE, end - at)
                self._count(length)
                self._tick(entries=0)
                copied = _piece(source, target, at, length)
                if not copied:
                    return  # It is shorter by now; the rest stays a hole.
                at += copied

    def _cloned(self, source: int, target: int) -> bool:
        if not self._clones:
            return False
        try:
            fcntl.ioctl(target, _FICLONE, source)
        except OSError:
            self._clones = (
                False  # Not this file system, or not this kernel; so not for the rest either.
            )
            return False
        return True

    @staticmethod
    def _finish(file: int, status: os.stat_result) -> None:
        os.fchmod(file, stat.S_IMODE(status.st_mode))
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _count(self, size: int) -> None:
        self.size += size
        if self.size > self._bounds.size:
            raise FileTooLarge(f"There are more than {self._bounds.size} bytes.")

    def _tick(self, entries: int = 1) -> None:
        self._entries += entries
        if self._entries > self._bounds.entries:
            raise FileTooLarge(f"There are more than {self._bounds.entries} files.")
        if time.monotonic() > self._end:
            raise FileTooLarge(f"Copying took more than {self._bounds.seconds:g} seconds.")
        if self._stop.is_set():
            raise Interrupted("Nobody wants the copy any more.")


def _extents(file: int, size: int) -> Iterator[tuple[int, int]]:
    """Where there is content, without the holes."""
    if not _HOLES:
        yield 0, size
        return
    at = 0
    while at < size:
        try:
            start = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return  # A hole up to the end.
            raise
        at = os.lseek(file, start, os.SEEK_HOLE)
        yield start, at


def _piece(source: int, target: int, at: int, length: int) -> int:
    """Copy some bytes to the same place; how many. 0 at the end of the source."""
    if hasattr(os, "copy_file_range"):
        try:
            return os.copy_file_range(source, target, length, at, at)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                raise
    data = os.pread(source, min(length, 1 << 20), at)
    return os.pwrite(target, data, at) if data else 0


@contextmanager
def _directory(name: str, at: int) -> Iterator[int]:
    file = os.open(name, DIRECTORY, dir_fd=at)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def _opened(folder: Path, shown: str) -> Iterator[int]:
    with faults(shown):
        file = os.open(folder, DIRECTORY)
    try:
        yield file
    finally:
        os.close(file)


def _shown(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")
