"""Directories that a sandbox's processes can read and not write, in a mount namespace of the sandbox's own (Linux).

Each has a second place, which is an empty directory for everybody else. In the sandbox the first is mounted on the
second, read-only (mount_namespaces(7)), and that is where processes are sent. It keeps them from writing by mistake: the
first place is the same user's still, for whoever looks for it. Standard library only, as ``namespace.py``, whose
`enter` makes the namespace.
"""

from __future__ import annotations

import ctypes
import os

_MS_RDONLY, _MS_REMOUNT, _MS_BIND, _MS_RELATIME = 1, 32, 4096, 1 << 21
_ST_RDONLY, _ST_RELATIME = 1, 4096
_SAME = 2 | 4 | 8 | 1024 | 2048
"""nosuid, nodev, noexec, noatime and nodiratime have the same numbers in statvfs(3) and mount(2)."""


def show(directory: str, at: str) -> None:
    """Mount it there, read-only; once is enough. Raises OSError."""
    if not os.path.samefile(directory, at):  # noqa: PTH121 - pathlib is a start-up cost of each supervisor.
        _mount(directory, at, _MS_BIND)
    had = os.statvfs(at).f_flag
    if had & _ST_RDONLY:
        return
    # What the mount below has may be taken away only in the user namespace that gave it: it has to be said again.
    kept = had & _SAME | (_MS_RELATIME if had & _ST_RELATIME else 0)
    _mount(None, at, _MS_BIND | _MS_REMOUNT | _MS_RDONLY | kept)


def _mount(source: str | None, target: str, flags: int) -> None:
    made = ctypes.CDLL(None, use_errno=True).mount(
        None if source is None else os.fsencode(source),
        os.fsencode(target),
        None,
        ctypes.c_ulong(flags),
        None,
    )
    if made != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)
