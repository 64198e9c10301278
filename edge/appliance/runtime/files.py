"""The work tree of a sandbox, as the API's file calls see it.

How a path becomes a file without leaving the tree: ``paths.py``. How content gets in: ``staged.py``.
Every method blocks, and raises only faults of ``interface.py``: `PathEscape` for a path that leads out,
`FileNotFound`, `NoSuchDirectory`, `FileDenied`, `FileConflict`, `DiskFull`, `FileTooLarge`, `FileFailed`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from edge.appliance.runtime.entries import (
    Budget,
    Found,
    below,
    change_mode,
    open_regular,
    require_regular,
    shown,
)
from edge.appliance.runtime.interface import (
    FileConflict,
    FileDenied,
    FileEntry,
    FileFailed,
    FileNotFound,
    FileTooLarge,
    NoSuchDirectory,
)
from edge.appliance.runtime.mounts import Mount, Mounts, check, make, remove
from edge.appliance.runtime.paths import (
    DIRECTORY,
    WORKSPACE,
    Paths,
    faults,
    make_directory,
    refuse_link,
)
from edge.appliance.runtime.staged import PERMISSIONS, Aside, Staged

MAX_ENTRIES = 10_000


class WorkTree:
    """The directory ``root``, which exists, and everything below it; ``aside`` is made beside it.

    ``name`` is the root's outside, as in `Paths`.
    """

    def __init__(self, root: Path, name: str = WORKSPACE) -> None:
        self.root = root
        self.name = name
        self.mounts = Mounts()
        self.paths = Paths(root, self.mounts, name)
        self.aside = Aside(root.with_name("aside"))

    # --- Reading --------------------------------------------------------------------------------------

    def entered(self, path: str) -> tuple[int, str | None]:
        """A descriptor of a directory for processes, which the caller closes, and where they see it if that is not
        where we do (`Mount.read_only`).
        """
        descriptor, names = self._open_directory(path)
        mount = self.mounts.over(names)
        if mount is None or not mount.read_only:
            return descriptor, None
        return descriptor, "/".join([mount.target, *names[len(mount.names) :]])

    def open_file(self, path: str) -> tuple[int, int]:
        """A descriptor of a regular file, which the caller closes, and its size now."""
        with faults(path):
            file, _ = self.paths.walk(path, lambda name, at: open_regular(name, at, os.O_RDONLY))
            return file, os.fstat(file).st_size

    def read(self, path: str, max_bytes: int) -> bytes:
        """The content of a regular file of at most ``max_bytes``."""
        with faults(path), os.fdopen(self.open_file(path)[0], "rb") as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise FileTooLarge(f"{path} is larger than {max_bytes} bytes.")
        return data

    def info(self, path: str) -> FileEntry:
        """What is at the path; of a link, the link itself."""

        def look(name: str, directory: int) -> FileEntry:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            return Found(name, directory, "", status).entry()

        with faults(path):
            entry, names = self.paths.walk(path, look, follow=False)
        whole = self._shown(names)
        return replace(entry, name=whole.rpartition("/")[2], path=whole or "/")

    def exists(self, path: str) -> bool:
        """Whether `info` would find something."""
        try:
            self.info(path)
        except (FileNotFound, NoSuchDirectory):
            return False
        return True

    @contextmanager
    def scan(self, path: str, depth: int, budget: Budget) -> Iterator[Iterator[Found]]:
        """What is below a directory, as `below` gives it."""
        with faults(path):
            top, names = self._open_directory(path)
            try:
                yield below(top, self._shown(names), depth, budget, self.mounts)
            finally:
                os.close(top)

    def entries(self, path: str, depth: int) -> list[FileEntry]:
        """What is in a directory, and in those below it down to ``depth`` levels (1: only it), by name.

        At most 64 levels; raises `FileTooLarge` for more than 10,000 entries.
        """
        with self.scan(path, depth, Budget(path, entries=MAX_ENTRIES)) as found:
            return [one.entry() for one in found]

    def size(self) -> int:
        """Bytes of all regular files, as far as they hold still and can be reached by name."""
        total = 0
        folders = [str(self.root)]
        while folders:
            try:
                with os.scandir(folders.pop()) as scan:
                    for entry in scan:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(entry.path)
                        elif entry.is_file(follow_symlinks=False):
                            total += entry.stat(follow_symlinks=False).st_size
            except OSError:
                continue
        return total

    # --- Changing -------------------------------------------------------------------------------------

    def receive(self, path: str, limit: int) -> Staged:
        """A file to be written and then published at ``path``; at most ``limit`` bytes.

        A path where it could not be published is refused now, as far as that can be known.
        """

        def look(name: str, directory: int) -> None:
            mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                refuse_link()
            require_regular(name, mode)

        try:
            with faults(path):
                self.paths.walk(path, look, changing=True)
        except FileNotFound:
            pass  # It will be made, and what is missing above it.
        return self.aside.receive(path, limit)

    def write(self, path: str, data: bytes, mode: int | None = None) -> FileEntry:
        """Make ``data`` the content of a file; it and missing directories above it are created.

        ``mode`` sets the permission bits, also of a file that exists already. Gives what is there then.
        """
        with self.receive(path, len(data)) as staged:
            staged.write(data)
            return self.publish(staged, path, mode)

    def publish(self, staged: Staged, path: str, mode: int | None = None) -> FileEntry:
        """Move what was received to its place; what is there then, behind any links."""
        return self.info("/".join([self.name, *staged.publish(self.paths, path, mode)]))

    def make_directory(self, path: str) -> None:
        """Make a directory, and those above it that are missing; one that exists is fine."""

        def make(name: str, directory: int) -> None:
            if name != ".":
                make_directory(name, directory)
            os.close(os.open(name, DIRECTORY, dir_fd=directory))

        with faults(path):
            try:
                self.paths.walk(path, make, create=True)
            except NotADirectoryError:
                raise FileConflict(f"{path}: what is there is not a directory.") from None
            except FileDenied:
                # Where nothing can be made there may be one.
                if not self.exists(path) or not self.info(path).is_dir:
                    raise

    def link(self, path: str, target: str) -> None:
        """Make a symbolic link in place of a file or link; missing directories are made."""

        def make(name: str, directory: int) -> None:
            _not_root(name)
            self.aside.place_link(target, name, directory)

        with faults(path):
            self.paths.walk(path, make, create=True, follow=False)

    def remove(self, path: str) -> None:
        """Remove a file, a link (never its target), or a directory with all that is in it."""

        def remove(name: str, directory: int) -> None:
            _not_root(name)
            try:
                os.unlink(name, dir_fd=directory)
            except (IsADirectoryError, PermissionError):
                # POSIX has EPERM for directories.
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    raise
                self.aside.take(name, directory)

        with faults(path):
            self.paths.walk(path, remove, follow=False, taking=True)

    def rename(self, old: str, new: str) -> FileEntry:
        """Move a file, link or directory; one in its place is replaced as ``rename(2)`` does it.

        Gives what is at ``new`` then.
        """

        def move(name: str, directory: int) -> None:
            def to(other: str, there: int) -> None:
                _not_root(name, other)
                try:
                    os.rename(name, other, src_dir_fd=directory, dst_dir_fd=there)
                except NotADirectoryError:
                    raise FileConflict(f"{new}: what is there is not a directory.") from None

            os.stat(name, dir_fd=directory, follow_symlinks=False)
            with faults(new):
                self.paths.walk(new, to, follow=False, changing=True)

        with faults(old):
            self.paths.walk(old, move, follow=False, taking=True)
        return self.info(new)

    def set_permissions(self, path: str, mode: int) -> None:
        """Set the permission bits of a file or directory, through links that stay inside."""

        def change(name: str, directory: int) -> None:
            kind = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
            if stat.S_ISLNK(kind):
                refuse_link()
            if not stat.S_ISDIR(kind):
                require_regular(name, kind)
            change_mode(name, directory, mode & PERMISSIONS)

        with faults(path):
            self.paths.walk(path, change, changing=True)

    # --- Mounts: see ``mounts.py`` ----------------------------------------------------------------------

    def mount(self, mount: Mount) -> None:
        """Make it part of the tree. Raises `VolumeLost`, `MountTaken` too."""
        with faults(mount.path):
            make(mount, self.mounts, self.paths)

    def unmount(self, mount: Mount) -> None:
        """What is mounted stays as it is; who has it open keeps it."""
        with faults(mount.path):
            remove(mount, self.mounts, self.paths)

    def check(self, mount: Mount) -> None:
        """Raises `VolumeLost`, `MountMissing`, `MountTaken`, and `FileDenied` where it cannot be written."""
        with faults(mount.path):
            check(mount, self.paths)

    def _open_directory(self, path: str) -> tuple[int, list[str]]:
        with faults(path):
            return self.paths.walk(path, lambda name, at: os.open(name, DIRECTORY, dir_fd=at))

    def _shown(self, names: list[str]) -> str:
        return shown("/".join([self.name, *names]))


def _not_root(*names: str) -> None:
    if "." in names:
        raise FileFailed("The top directory, and what is mounted, stay as they are.")
