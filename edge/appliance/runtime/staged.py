"""Files on their way into a work tree: received beside it, then moved to their place in one step.

So nobody in the sandbox ever sees half a file, a disk that is full leaves the old content, and what a
client that left has sent goes without a trace. The place beside the tree is on its file system, which is
what makes the move atomic. What is removed from the tree leaves it by the same door.
"""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

from edge.appliance.runtime.entries import require_regular
from edge.appliance.runtime.interface import FileTooLarge
from edge.appliance.runtime.paths import DIRECTORY, Paths, faults, refuse_link

PERMISSIONS = 0o777
"""What may be asked for; set-user-id, set-group-id and sticky bits may not."""


class Aside:
    """The directory beside a work tree. Every method blocks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self) -> int:
        """A descriptor of it, made if need be; the caller closes it. Raises OSError."""
        with suppress(FileExistsError):
            self.folder.mkdir(mode=0o700)
        return os.open(self.folder, DIRECTORY)

    def take(self, name: str, directory: int) -> None:
        """Remove a directory and all that is in it: out of the tree at once, off the disk then.

        Raises OSError.
        """
        aside = self.open()
        try:
            away = secrets.token_hex(16)
            os.rename(name, away, src_dir_fd=directory, dst_dir_fd=aside)
        finally:
            os.close(aside)
        clear(self.folder / away)

    def place_link(self, target: str, name: str, directory: int) -> None:
        """Make a symbolic link in place of what is no directory. Raises OSError."""
        aside = self.open()
        away = secrets.token_hex(16)
        try:
            os.symlink(target, away, dir_fd=aside)
            try:
                os.rename(away, name, src_dir_fd=aside, dst_dir_fd=directory)
            except OSError:
                os.unlink(away, dir_fd=aside)
                raise
        finally:
            os.close(aside)

    def receive(self, what: str, limit: int) -> Staged:
        """A new, empty file for ``what`` of at most ``limit`` bytes. Raises `RuntimeFault`."""
        with faults(what):
            return Staged(self.open(), secrets.token_hex(16), what, limit, os.O_CREAT | os.O_EXCL)

    def again(self, name: str, what: str, limit: int) -> Staged:
        """A file that was begun and kept. Raises `RuntimeFault`."""
        with faults(what):
            return Staged(self.open(), name, what, limit)


class Staged:
    """A file that is being received. Used by one thread at a time; close it in any case."""

    def __init__(self, aside: int, name: str, what: str, limit: int, flags: int = 0) -> None:
        self._what = what
        self._limit = limit
        self._aside = aside
        self._name = name
        self.size = 0
        flags |= os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            self._file = os.open(name, flags, 0o644, dir_fd=aside)
        except OSError:
            os.close(aside)
            raise
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, data: bytes | bytearray) -> None:
        """Append. Raises `FileTooLarge`, `DiskFull`."""
        self.write_at(self.size, data)

    def write_at(self, offset: int, data: bytes | bytearray) -> None:
        """Write somewhere; what was not written yet reads as zeros. Raises `FileTooLarge`, `DiskFull`."""
        if offset + len(data) > self._limit:
            raise FileTooLarge(f"{self._what} is larger than {self._limit} bytes.")
        with faults(self._what):
            view = memoryview(data)
            while view:
                written = os.pwrite(self._file, view, offset)
                view, offset = view[written:], offset + written
        self.size = max(self.size, offset)

    def read(self, offset: int, size: int) -> bytes:
        """What was written. Raises `RuntimeFault`."""
        with faults(self._what):
            return os.pread(self._file, size, offset)

    def publish(self, paths: Paths, path: str, mode: int | None = None) -> list[str]:
        """Move it to ``path``; a regular file there is replaced and keeps its mode, unless one is given.

        Missing directories are made. Gives the names that lead there without links. Raises `RuntimeFault`,
        and then nothing has changed (but for those directories).
        """

        def place(name: str, directory: int) -> None:
            try:
                before = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            except FileNotFoundError:
                before = None
            if before is not None:
                if stat.S_ISLNK(before):
                    refuse_link()
                require_regular(name, before)
            if (wanted := before if mode is None else mode) is not None:
                os.fchmod(self._file, wanted & PERMISSIONS)
            # Replaces what is there by now, be it a link, and follows nothing.
            os.rename(self._name, name, src_dir_fd=self._aside, dst_dir_fd=directory)

        with faults(path):
            return paths.walk(path, place, create=True)[1]

    def keep(self) -> str:
        """Close it without removing it; its name, for `Aside.again`."""
        self._close(remove=False)
        return self._name

    def close(self) -> None:
        """Remove it unless it was published or kept. Harmless when repeated."""
        self._close(remove=True)

    def _close(self, *, remove: bool) -> None:
        if not self._open:
            return
        self._open = False
        os.close(self._file)
        if remove:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._aside)
        os.close(self._aside)


def clear(folder: Path) -> None:
    """Remove a directory of any depth, with directories made read-only in it (module caches)."""
    subprocess.run(["rm", "-rf", "--", folder], stderr=subprocess.DEVNULL, check=False)
    if folder.exists():
        subprocess.run(["chmod", "-R", "u+rwX", "--", folder], check=False)
        subprocess.run(["rm", "-rf", "--", folder], check=False)
