"""Paths of the file calls: whatever they and the tree's links say, they do not lead out of the tree.

Processes of the sandbox change the tree while we walk it, so a path that was checked proves nothing
about the path that is opened. Each component is therefore opened by name in the directory opened
before it, refusing links (``openat`` with ``O_NOFOLLOW``); a link is read and its target walked in
the same way; ``..`` goes back to the directory we came from and never above the first.

``/workspace`` is the tree's name outside; links made inside may name its real place instead, so both
are understood. Hard links are no paths: a name for a file that has another one outside is that file.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Never, TypeVar

from edge.appliance.runtime.interface import (
    DiskFull,
    FileConflict,
    FileDenied,
    FileFailed,
    FileNotFound,
    FileTooLarge,
    NoSuchDirectory,
    PathEscape,
    RuntimeFault,
)

if TYPE_CHECKING:
    from edge.appliance.runtime.mounts import Mount, Mounts

WORKSPACE = "/workspace"
MAX_LINKS = 40
MAX_DEPTH = 64
"""Directories held open at once by one path; descriptors are the control plane's, not the sandbox's."""
MAX_PATH = 4096
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_FAULTS: dict[int, tuple[type[RuntimeFault], str]] = {
    errno.ENOENT: (FileNotFound, "{path} does not exist."),
    errno.ENOTDIR: (NoSuchDirectory, "{path}: not a directory."),
    errno.ELOOP: (PathEscape, "{path} was replaced by a link while it was opened."),
    errno.EACCES: (FileDenied, "{path}: the permissions do not allow it."),
    errno.EPERM: (FileDenied, "{path}: the permissions do not allow it."),
    errno.EROFS: (FileDenied, "{path}: the file system is read-only."),
    errno.ENOSPC: (DiskFull, "{path}: no space is left on the disk."),
    errno.EDQUOT: (DiskFull, "{path}: the disk quota is used up."),
    errno.EFBIG: (FileTooLarge, "{path}: the file would be larger than the system allows."),
    errno.EEXIST: (FileConflict, "{path} is in the way."),
    errno.ENOTEMPTY: (FileConflict, "{path}: the directory is not empty."),
    errno.EISDIR: (FileConflict, "{path} is a directory."),
}

T = TypeVar("T")


class Paths:
    """The directory ``root``, which exists, and the ways to what is below it. Every method blocks.

    ``mounts`` are part of it (``mounts.py``): directories below the root whose content is elsewhere.
    ``name`` is the root's outside; it may be empty, and then every absolute path is below it.
    """

    def __init__(self, root: Path, mounts: Mounts | None = None, name: str = WORKSPACE) -> None:
        self._root = root
        self._mounts = mounts
        self._name = name or "/"
        self._prefixes = [
            [part for part in prefix.split("/") if part]
            for prefix in (str(root), str(root.resolve()), name)
        ]

    def walk(
        self,
        path: str,
        last: Callable[[str, int], T],
        *,
        create: bool = False,
        follow: bool = True,
        taking: bool = False,
        changing: bool = False,
        mounted: bool = True,
    ) -> tuple[T, list[str]]:
        """Open ``path`` component by component; ``last(name, directory)`` acts on the last one.

        Gives what ``last`` gave, and the names that lead there without links. With ``create``, missing
        directories on the way are made. With ``follow``, the last component may be a link: ``last``
        has to refuse one with an OSError (see `refuse_link`) and is called again for its target; without,
        ``last`` gets the link. The name of the root is ``.``, and so is that of a mount. ``taking``
        refuses what has a mount below it; without ``mounted`` there are none, only their links. Whoever is
        ``changing`` something, as who creates and takes is, is refused in a mount that is read-only. Raises
        OSError and `RuntimeFault`.
        """
        rest = self._components(path)
        links = 0
        with ExitStack() as opened:
            trail = [_open_in(opened, str(self._root), None)]
            names: list[str] = []
            tops = {trail[0]}
            while rest:
                name = rest.pop()
                if name == "..":
                    if not names:
                        raise PathEscape(f"{path} leads out of {self._name}.")
                    trail.pop()
                    names.pop()
                    continue
                if len(names) > MAX_DEPTH:
                    raise FileFailed(f"{path} leads more than {MAX_DEPTH} directories deep.")
                mount = self._mounted([*names, name], trail[-1]) if mounted else None
                if mount is not None:
                    if mount.read_only and (create or taking or changing):
                        raise FileDenied(f"{path}: the volume is mounted read-only.")
                    inner = mount.open()
                    opened.callback(os.close, inner)
                    trail.append(inner)
                    names.append(name)
                    tops.add(inner)
                    continue
                if not rest and not follow:
                    if taking:
                        self._spare_mounts(path, [*names, name])
                    return last(name, trail[-1]), [*names, name]
                try:
                    if not rest:
                        return last(name, trail[-1]), [*names, name]
                    trail.append(_open_in(opened, name, trail[-1]))
                    names.append(name)
                except OSError as error:
                    target = link_target(name, trail[-1])
                    if target is not None:
                        links += 1
                        if links > MAX_LINKS:
                            raise FileFailed(f"{path}: too many symbolic links.") from None
                        if target.startswith("/"):
                            del trail[1:], names[:]
                        rest += self._components(target, shown=path)
                    elif create and rest and error.errno == errno.ENOENT:
                        make_directory(name, trail[-1])
                        rest.append(name)
                    else:
                        raise
            if follow or trail[-1] in tops:
                return last(".", trail[-1]), names
            # The path ended in ``..``; what its name leads to by now is inside in any case.
            return last(names[-1], trail[-2]), names

    def _mounted(self, names: list[str], directory: int) -> Mount | None:
        """What is mounted at these names, the last of them in ``directory``."""
        mounts = self._mounts
        mount = mounts.at("/".join([WORKSPACE, *names])) if mounts is not None else None
        if mount is None or not mount.is_at(names[-1], directory):
            return None
        return mount

    def _spare_mounts(self, path: str, names: list[str]) -> None:
        if self._mounts is not None and self._mounts.below(names) is not None:
            raise FileConflict(f"{path}: a volume is mounted there.")

    def _components(self, path: str, shown: str | None = None) -> list[str]:
        """The names in ``path``, the first one last, without ``.``; of an absolute path below the tree."""
        if "\0" in path or len(path) > MAX_PATH:
            raise FileFailed("The path holds a NUL character or is too long.")
        if path.startswith("/"):
            # A path as the API shows it may begin with several slashes or hold dots; so may a link.
            names = [name for name in path.split("/") if name not in ("", ".")]
            for own in self._prefixes:
                if names[: len(own)] == own:
                    return names[len(own) :][::-1]
            raise PathEscape(f"{shown or path} leads out of {self._name}.")
        return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def make_directory(name: str, directory: int) -> None:
    """Make it unless something of that name is there; what it is, opening it will tell."""
    try:
        os.mkdir(name, dir_fd=directory)
    except FileExistsError:
        pass


def link_target(name: str, directory: int) -> str | None:
    """The target of a symbolic link, or None for anything else."""
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return None


def refuse_link() -> Never:
    """What ``last`` does about a link that it found with calls that do not refuse one themselves."""
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))


@contextmanager
def faults(path: str) -> Iterator[None]:
    """The operating system's errors as ours, once for all methods."""
    try:
        yield
    except RuntimeFault:
        raise
    except ValueError:  # No UTF-8, or a NUL.
        raise FileFailed(f"{path}: not a valid name.") from None
    except OSError as error:
        fault, text = _FAULTS.get(error.errno or 0, (FileFailed, "{path}: {reason}."))
        raise fault(text.format(path=path, reason=error.strerror)) from None


def _open_in(opened: ExitStack, name: str, directory: int | None) -> int:
    descriptor = os.open(name, DIRECTORY, dir_fd=directory)
    opened.callback(os.close, descriptor)
    return descriptor
