"""Directories from outside, at their places in a work tree: the volumes of a sandbox.

Without privileges nothing can be mounted, so a mount is a symbolic link that we make, and processes
follow it. The file calls do not: a link that leads out of the tree is refused there, whoever made it. They
know the mounts from a table, and where the link at a mount's place is still the one that we made, they
open the directory by the way that the table has. So processes can make such a link gone or another one, and
then there is no mount for anybody; they cannot make one that leads anywhere else.

A mount that is read-only has a link to the place where the processes of an isolated sandbox see it so
(``readonly.py``), and the file calls refuse to change what is behind it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge.appliance.runtime.interface import (
    FileConflict,
    FileDenied,
    MountMissing,
    MountTaken,
    PathEscape,
    RuntimeFault,
    VolumeLost,
)
from edge.appliance.runtime.paths import DIRECTORY, WORKSPACE, Paths, make_directory


@dataclass(frozen=True, slots=True)
class Mount:
    """``names`` lead from the root of the work tree to it; ``below`` from ``base`` to what is mounted."""

    names: tuple[str, ...]
    base: Path
    below: tuple[str, ...] = ()
    read_only: bool = False

    @property
    def path(self) -> str:
        """Where it is, as the API names it."""
        return "/".join([WORKSPACE, *self.names])

    @property
    def target(self) -> str:
        """What its link says."""
        return str((self.shown if self.read_only else self.base).joinpath(*self.below))

    @property
    def shown(self) -> Path:
        """Where processes see it if it is read-only; empty for everybody else."""
        return self.base.with_name("read-only")

    def open(self, *, create: bool = False) -> int:
        """A descriptor of what is mounted; the caller closes it. ``create`` makes what is missing below.

        Links are followed nowhere: whoever writes to a volume is not to say what its parts are. Raises
        OSError.
        """
        directory = os.open(self.base, DIRECTORY)
        for name in self.below:
            outer = directory
            try:
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=outer)
                directory = os.open(name, DIRECTORY, dir_fd=outer)
            finally:
                os.close(outer)
        return directory

    def is_at(self, name: str, directory: int) -> bool:
        """Whether the link of this name is ours."""
        try:
            return os.readlink(name, dir_fd=directory) == self.target
        except OSError:
            return False


class Mounts:
    """The mounts of one work tree. Used from several threads, changed by one at a time."""

    def __init__(self) -> None:
        # Replaced, never changed: other threads may be reading it.
        self._by_path: dict[str, Mount] = {}

    def at(self, path: str) -> Mount | None:
        """The mount whose place this is; a path as the API shows it."""
        return self._by_path.get(path)

    def over(self, names: Sequence[str]) -> Mount | None:
        """The mount at this place, or above it."""
        every = self._by_path.values()
        return next((one for one in every if one.names == tuple(names[: len(one.names)])), None)

    def below(self, names: Sequence[str]) -> Mount | None:
        """A mount at this place, or anywhere below it."""
        above = tuple(names)
        every = self._by_path.values()
        return next((one for one in every if one.names[: len(above)] == above), None)

    @property
    def shown(self) -> list[tuple[str, str]]:
        """What is to be seen read-only, and where."""
        every = self._by_path.values()
        return sorted({(str(one.base), str(one.shown)) for one in every if one.read_only})

    def know(self, *mounts: Mount) -> None:
        """They are in the tree already."""
        self._by_path = self._by_path | {mount.path: mount for mount in mounts}

    def forget(self, mount: Mount) -> None:
        """It is none any more."""
        self._by_path = {path: one for path, one in self._by_path.items() if path != mount.path}


def make(mount: Mount, mounts: Mounts, paths: Paths) -> None:
    """Make the link, and missing directories above it; in place of nothing, or of an empty directory.

    One that is there is fine. Raises OSError, `VolumeLost`, `MountTaken`.
    """
    os.close(_opened(mount, create=not mount.read_only))
    if mount.read_only:
        mount.shown.mkdir(mode=0o500, exist_ok=True)

    def place(name: str, directory: int) -> None:
        try:
            kind = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
        except FileNotFoundError:
            kind = None
        if kind is not None:
            if mount.is_at(name, directory):
                return
            if not stat.S_ISDIR(kind):
                raise MountTaken(f"{mount.path}: what is there is not an empty directory.")
            os.rmdir(name, dir_fd=directory)
        os.symlink(mount.target, name, dir_fd=directory)

    try:
        _require_straight(mount, paths, create=True)
        paths.walk(mount.path, place, follow=False, mounted=False)
    except (FileExistsError, NotADirectoryError, PathEscape, FileConflict):
        raise MountTaken(f"{mount.path}: something is in the way.") from None
    except OSError as error:
        if error.errno == errno.ENOTEMPTY:
            raise MountTaken(f"{mount.path}: the directory is not empty.") from None
        raise
    mounts.know(mount)


def remove(mount: Mount, mounts: Mounts, paths: Paths) -> None:
    """Remove the link, if it is there. Raises OSError."""

    def take(name: str, directory: int) -> None:
        if mount.is_at(name, directory):
            os.unlink(name, dir_fd=directory)

    mounts.forget(mount)
    try:
        paths.walk(mount.path, take, follow=False, mounted=False)
    except (FileNotFoundError, NotADirectoryError, RuntimeFault):
        pass  # What led to it is gone, and the link with it.


def check(mount: Mount, paths: Paths) -> None:
    """Whether it can be used as it is.

    Raises OSError, `VolumeLost`, `FileDenied` (it cannot be written), `MountMissing`, `MountTaken`.
    """
    directory = _opened(mount)
    try:
        # By the effective user, which is who opens files.
        writable = os.access(".", os.W_OK | os.X_OK, dir_fd=directory, effective_ids=True)
    finally:
        os.close(directory)
    if not writable and not mount.read_only:
        raise FileDenied("The volume cannot be written.")

    def look(name: str, there: int) -> bool:
        os.stat(name, dir_fd=there, follow_symlinks=False)
        return mount.is_at(name, there)

    try:
        _require_straight(mount, paths)
        ours, _ = paths.walk(mount.path, look, follow=False, mounted=False)
    except PathEscape:
        raise MountTaken(f"{mount.path} leads through a symbolic link.") from None
    except (FileNotFoundError, NotADirectoryError):
        raise MountMissing(f"Nothing is at {mount.path}.") from None
    if not ours:
        raise MountTaken(f"{mount.path} is something else now.")


def _opened(mount: Mount, *, create: bool = False) -> int:
    """Raises OSError, `VolumeLost`."""
    try:
        return mount.open(create=create)
    except (FileNotFoundError, NotADirectoryError):
        raise VolumeLost("The volume's directory is not there.") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise VolumeLost("The volume's directory was replaced by a link.") from None
        raise


def _require_straight(mount: Mount, paths: Paths, *, create: bool = False) -> None:
    """Raises OSError, `RuntimeFault`; `MountTaken` where a link leads to the mount's place."""
    above = mount.names[:-1]

    def step(name: str, directory: int) -> None:
        if create and name != ".":
            make_directory(name, directory)
        os.close(os.open(name, DIRECTORY, dir_fd=directory))

    _, names = paths.walk("/".join([WORKSPACE, *above]), step, create=create)
    if tuple(names) != above:
        raise MountTaken(f"{mount.path} leads through a symbolic link.")
