"""What is in directories: walked by descriptors, links never followed, every number bounded."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from edge.appliance.runtime.interface import FileEntry, FileFailed, FileTooLarge
from edge.appliance.runtime.mounts import Mounts
from edge.appliance.runtime.paths import DIRECTORY, MAX_DEPTH, WORKSPACE, link_target, refuse_link

# Not blocking: a pipe made by the sandbox must not hold up whoever opens it.
_FILE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink"}


@dataclass(frozen=True, slots=True)
class Found:
    """One name in a directory, as it was when it was looked at.

    ``directory`` is open until the walk goes on; ``path`` is what to show.
    """

    name: str
    directory: int
    path: str
    status: os.stat_result

    def entry(self) -> FileEntry:
        """The same for those who ask."""
        mode = self.status.st_mode
        kind = _TYPES.get(stat.S_IFMT(mode), "other")
        target = link_target(self.name, self.directory) if kind == "symlink" else None
        return FileEntry(
            name=shown(self.name),
            path=self.path,
            is_dir=kind == "dir",
            size=self.status.st_size,
            type=kind,
            mode=stat.S_IMODE(mode),
            permissions=stat.filemode(mode),
            owner=_user(self.status.st_uid),
            group=_group(self.status.st_gid),
            modified_time=self.status.st_mtime,
            symlink_target=None if target is None else shown(target),
        )


class Budget:
    """How much one call may look at: ``entries``, ``size`` bytes of content, ``seconds`` of time.

    ``what`` names the call's subject in the `FileTooLarge` that ends it.
    """

    def __init__(
        self, what: str, *, entries: int, size: int = 0, seconds: float = float("inf")
    ) -> None:
        self._what = what
        self._entries = self.entries_left = entries
        self._size_left = size
        self._end = time.monotonic() + seconds

    def entry(self) -> None:
        """One more name was looked at."""
        self.entries_left -= 1
        if self.entries_left < 0:
            raise FileTooLarge(f"{self._what} holds more than {self._entries} entries.")
        if time.monotonic() > self._end:
            raise FileTooLarge(f"{self._what} took too long; ask for less of it.")

    def content(self, size: int) -> None:
        """So many bytes are about to be read."""
        self._size_left -= size
        if self._size_left < 0:
            raise FileTooLarge(f"{self._what} holds too many bytes for one call.")


def below(
    directory: int, path: str, depth: int, budget: Budget, mounts: Mounts | None = None
) -> Iterator[Found]:
    """What is in a directory, by name, and in those below it down to ``depth`` levels (1: only it).

    What is mounted there is a directory like others. At most 64 levels. Raises OSError, and `FileTooLarge` when the budget is spent.
    """
    names: list[str] = []
    with os.scandir(directory) as scan:
        for item in scan:
            names.append(item.name)
            if len(names) > budget.entries_left:
                break  # Enough to be too many; a directory may hold millions.
    for name in sorted(names):
        budget.entry()
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            continue  # Gone since it was listed.
        found, inside = _entered(
            Found(name, directory, f"{path}/{shown(name)}", status), mounts, depth
        )
        try:
            yield found
            if inside is not None:
                yield from below(inside, found.path, min(depth, MAX_DEPTH) - 1, budget, mounts)
        finally:
            if inside is not None:
                os.close(inside)


def _entered(found: Found, mounts: Mounts | None, depth: int) -> tuple[Found, int | None]:
    """What to show, and a descriptor of what is in it if that is to be looked at.

    A mount's link is shown as the directory that it stands for, unless that cannot be opened.
    """
    mode = found.status.st_mode
    mount = mounts.at(found.path) if mounts is not None and stat.S_ISLNK(mode) else None
    try:
        if mount is not None and mount.is_at(found.name, found.directory):
            inside = mount.open()
            found = replace(found, status=os.fstat(inside))
            if depth > 1:
                return found, inside
            os.close(inside)
        elif stat.S_ISDIR(mode) and depth > 1:
            return found, os.open(found.name, DIRECTORY, dir_fd=found.directory)
    except OSError:
        pass  # Gone, replaced, or not ours to read.
    return found, None


def open_regular(name: str, directory: int, flags: int) -> int:
    """A descriptor of a regular file. Raises OSError, for links too, and `FileFailed` for all else."""
    descriptor = os.open(name, flags | _FILE, dir_fd=directory)
    try:
        require_regular(name, os.fstat(descriptor).st_mode)
    except FileFailed:
        os.close(descriptor)
        raise
    return descriptor


def require_regular(name: str, mode: int) -> None:
    """Raises `FileFailed` for a directory, a pipe, a socket, a device."""
    if not stat.S_ISREG(mode):
        kind = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise FileFailed(f"{WORKSPACE if name == '.' else shown(name)} is {kind}.")


def change_mode(name: str, directory: int, mode: int) -> None:
    """Set the mode of what is no link. Raises OSError, ELOOP for what has become one."""
    if not hasattr(os, "O_PATH"):  # Off Linux, where this can be had in one call.
        os.chmod(name, mode, dir_fd=directory, follow_symlinks=False)
        return
    # O_PATH, because a file without permissions cannot be opened otherwise; through its descriptor,
    # because what the name leads to may be another one by now.
    file = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        if stat.S_ISLNK(os.fstat(file).st_mode):
            refuse_link()
        Path(f"/proc/self/fd/{file}").chmod(mode)
    finally:
        os.close(file)


def shown(name: str) -> str:
    """A name or path of the file system as text that has a UTF-8."""
    return os.fsencode(name).decode("utf-8", "replace")


@lru_cache(maxsize=1024)
def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


@lru_cache(maxsize=1024)
def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
