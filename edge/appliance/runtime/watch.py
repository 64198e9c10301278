"""What changed in a directory between two looks at it.

Looks, not the kernel's notices: they need no path to stay what it was, work alike on every system, and
cost nothing while nobody watches. The price: what comes and goes between two looks is not seen, and
several changes of one file are one.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import dataclass

from edge.appliance.runtime.entries import Budget
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.paths import MAX_DEPTH

MAX_WATCHED = 10_000
"""Names that one watch looks at."""


@dataclass(frozen=True, slots=True)
class Change:
    """``event`` is create, write, remove, rename (of the old path; the new one is created) or chmod.

    ``name`` is the path below the watched directory.
    """

    event: str
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What is compared of one name."""

    name: str
    kind: int
    inode: tuple[int, int]
    written: tuple[int, int]
    mode: int


def look(tree: WorkTree, path: str, *, recursive: bool) -> dict[str, Seen]:
    """What is in a directory now, by path. Raises what `WorkTree` raises."""
    seen: dict[str, Seen] = {}
    start = None
    depth = MAX_DEPTH if recursive else 1
    with tree.scan(path, depth, Budget(path, entries=MAX_WATCHED)) as found:
        for one in found:
            if start is None:  # The first is directly below.
                start = one.path.rindex("/") + 1
            status = one.status
            kind = stat.S_IFMT(status.st_mode)
            # A directory is written whenever something in it comes or goes, which is told anyway.
            written = (0, 0) if stat.S_ISDIR(kind) else (status.st_mtime_ns, status.st_size)
            seen[one.path] = Seen(
                name=one.path[start:],
                kind=kind,
                inode=(status.st_dev, status.st_ino),
                written=written,
                mode=stat.S_IMODE(status.st_mode),
            )
    return seen


def changes(before: Mapping[str, Seen], after: Mapping[str, Seen]) -> list[Change]:
    """What made one out of the other: what went, then what came, then what is different."""
    went = [path for path in before if path not in after or after[path].kind != before[path].kind]
    came = [path for path in after if path not in before or after[path].kind != before[path].kind]
    # The time and size as well, because the numbers of removed files are given to new ones.
    moved = {(after[path].inode, after[path].written) for path in came}
    told: list[Change] = []
    for path in went:
        old = before[path]
        event = "rename" if (old.inode, old.written) in moved else "remove"
        told.append(Change(event, old.name, path))
    told += [Change("create", after[path].name, path) for path in came]
    for path, new in after.items():
        old_one = before.get(path)
        if old_one is None or old_one.kind != new.kind:
            continue
        replaced = old_one.inode != new.inode
        if old_one.written != new.written or (replaced and not stat.S_ISDIR(new.kind)):
            told.append(Change("write", new.name, path))
        if old_one.mode != new.mode:
            told.append(Change("chmod", new.name, path))
    return told
