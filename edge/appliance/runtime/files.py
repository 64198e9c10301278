"""The work tree of a sandbox, as the API's file calls see it: paths that cannot lead out of it.

Processes of the sandbox change the tree while we walk it, so a path that was checked proves nothing
about the path that is opened. Each component is therefore opened by name in the directory opened
before it, refusing links (``openat`` with ``O_NOFOLLOW``); a link is read and its target walked in
the same way; ``..`` goes back to the directory we came from and never above the first.

``/workspace`` is the tree's name outside; links made inside may name its real place instead, so both
are understood. Every method blocks, and raises only faults of ``interface.py``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from edge.appliance.runtime.interface import (
    FileEntry,
    FileFailed,
    FileNotFound,
    FileTooLarge,
    NoSuchDirectory,
    PathEscape,
    RuntimeFault,
)

WORKSPACE = "/workspace"
MAX_LINKS = 40
MAX_ENTRIES = 10_000
MAX_DEPTH = 64
"""Directories held open at once by one call; descriptors are the control plane's, not the sandbox's."""
_MAX_PATH = 4096
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: a pipe made by the sandbox must not hold up whoever opens it.
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"}

T = TypeVar("T")


class WorkTree:
    """The directory ``root``, which exists, and everything below it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._prefixes = (WORKSPACE, str(root), str(root.resolve()))

    def open_directory(self, path: str) -> int:
        """A descriptor of a directory; the caller closes it."""
        return self._open_directory(path)[0]

    def _open_directory(self, path: str) -> tuple[int, list[str]]:
        with _faults(path):
            return self._walk(path, lambda name, at: os.open(name, _DIRECTORY, dir_fd=at))

    def make_directory(self, path: str) -> None:
        """Make a directory, and those above it that are missing; one that exists is fine."""

        def make(name: str, directory: int) -> None:
            if name != ".":
                _make_directory(name, directory)
            os.close(os.open(name, _DIRECTORY, dir_fd=directory))

        with _faults(path):
            self._walk(path, make, create=True)

    def read(self, path: str, max_bytes: int) -> bytes:
        """The content of a regular file of at most ``max_bytes``."""
        with _faults(path):
            descriptor, _ = self._walk(path, lambda name, at: _open_regular(name, at, os.O_RDONLY))
            with os.fdopen(descriptor, "rb") as file:
                data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise FileTooLarge(f"{path} is larger than {max_bytes} bytes.")
        return data

    def write(self, path: str, data: bytes, mode: int | None = None) -> None:
        """Make ``data`` the content of a file; it and missing directories above it are created.

        ``mode`` sets the permission bits, also of a file that exists already.
        """
        flags = os.O_WRONLY | os.O_CREAT
        with _faults(path):
            descriptor, _ = self._walk(
                path, lambda name, at: _open_regular(name, at, flags), create=True
            )
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                if mode is not None:
                    os.fchmod(descriptor, mode & 0o777)
                file.truncate(0)  # Not O_TRUNC, which acts before we know what was opened.
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]

    def entries(self, path: str, depth: int) -> list[FileEntry]:
        """What is in a directory, and in those below it down to ``depth`` levels (1: only it), by name.

        At most 64 levels; raises `FileTooLarge` for more than 10,000 entries.
        """
        found: list[FileEntry] = []
        top, names = self._open_directory(path)
        with _faults(path):
            try:
                shown = "/".join([WORKSPACE, *names])
                for entry in self._listed(top, shown, min(depth, MAX_DEPTH)):
                    found.append(entry)
                    if len(found) > MAX_ENTRIES:
                        raise FileTooLarge(f"{path} holds more than {MAX_ENTRIES} entries.")
            finally:
                os.close(top)
        return found

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

    def _walk(
        self, path: str, last: Callable[[str, int], T], *, create: bool = False
    ) -> tuple[T, list[str]]:
        """Open ``path`` component by component; ``last(name, directory)`` opens the last one.

        Gives what ``last`` gave, and the names that lead there without links. With ``create``, missing
        directories on the way are made.
        """
        rest = self._components(path)
        links = 0
        with ExitStack() as opened:
            trail = [_open_in(opened, str(self.root), None)]
            names: list[str] = []
            while rest:
                name = rest.pop()
                if name == "..":
                    if not names:
                        raise PathEscape(f"{path} leads out of {WORKSPACE}.")
                    trail.pop()
                    names.pop()
                    continue
                if len(names) > MAX_DEPTH:
                    raise FileFailed(f"{path} leads more than {MAX_DEPTH} directories deep.")
                try:
                    if not rest:
                        return last(name, trail[-1]), [*names, name]
                    trail.append(_open_in(opened, name, trail[-1]))
                    names.append(name)
                except OSError as error:
                    target = _link(name, trail[-1])
                    if target is not None:
                        links += 1
                        if links > MAX_LINKS:
                            raise FileFailed(f"{path}: too many symbolic links.") from None
                        if target.startswith("/"):
                            del trail[1:], names[:]
                        rest += self._components(target, shown=path)
                    elif create and rest and error.errno == errno.ENOENT:
                        _make_directory(name, trail[-1])
                        rest.append(name)
                    else:
                        raise
            return last(".", trail[-1]), names

    def _components(self, path: str, shown: str | None = None) -> list[str]:
        """The names in ``path``, the first one last, without ``.``; of an absolute path below the tree."""
        if "\0" in path or len(path) > _MAX_PATH:
            raise FileFailed("The path holds a NUL character or is too long.")
        if path.startswith("/"):
            # A path as the API shows it may begin with several slashes or hold dots; so may a link.
            names = [name for name in path.split("/") if name not in ("", ".")]
            for prefix in self._prefixes:
                own = prefix.strip("/").split("/")
                if names[: len(own)] == own:
                    return names[: len(own) - 1 : -1]
            raise PathEscape(f"{shown or path} leads out of {WORKSPACE}.")
        return [name for name in reversed(path.split("/")) if name not in ("", ".")]

    def _listed(self, directory: int, shown: str, depth: int) -> Iterator[FileEntry]:
        with os.scandir(directory) as scan:
            names = sorted(entry.name for entry in scan)
        for name in names:
            try:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                continue  # Gone since it was listed.
            entry = _entry(name, shown, status, directory)
            yield entry
            if entry.is_dir and depth > 1:
                try:
                    below = os.open(name, _DIRECTORY, dir_fd=directory)
                except OSError:
                    continue  # Gone, replaced, or not ours to read.
                try:
                    yield from self._listed(below, entry.path, depth - 1)
                finally:
                    os.close(below)


def _open_in(opened: ExitStack, name: str, directory: int | None) -> int:
    descriptor = os.open(name, _DIRECTORY, dir_fd=directory)
    opened.callback(os.close, descriptor)
    return descriptor


def _make_directory(name: str, directory: int) -> None:
    try:
        os.mkdir(name, dir_fd=directory)
    except FileExistsError:
        pass  # Somebody else was faster; what it is, opening it will tell.


def _link(name: str, directory: int) -> str | None:
    """The target of a symbolic link, or None for anything else."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return None


def _open_regular(name: str, directory: int, flags: int) -> int:
    descriptor = os.open(name, flags | _FILE, 0o644, dir_fd=directory)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
    raise FileFailed(f"{name} is {kind}." if name != "." else f"{WORKSPACE} is {kind}.")


def _entry(name: str, shown: str, status: os.stat_result, directory: int) -> FileEntry:
    kind = _TYPES.get(stat.S_IFMT(status.st_mode), "other")
    target = _link(name, directory) if kind == "symlink" else None
    return FileEntry(
        name=_text(name),
        path=_text(f"{shown}/{name}"),
        is_dir=kind == "dir",
        size=status.st_size,
        type=kind,
        mode=stat.S_IMODE(status.st_mode),
        modified_time=status.st_mtime,
        symlink_target=None if target is None else _text(target),
    )


def _text(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "replace")


@contextmanager
def _faults(path: str) -> Iterator[None]:
    """The operating system's errors as ours, once for all methods."""
    try:
        yield
    except RuntimeFault:
        raise
    except FileNotFoundError:
        raise FileNotFound(f"{path} does not exist.") from None
    except NotADirectoryError:
        raise NoSuchDirectory(f"{path}: not a directory.") from None
    except (OSError, UnicodeEncodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.ELOOP:
            raise PathEscape(f"{path} was replaced by a link while it was opened.") from None
        reason = error.strerror if isinstance(error, OSError) else "not a valid name"
        raise FileFailed(f"{path}: {reason}.") from None
