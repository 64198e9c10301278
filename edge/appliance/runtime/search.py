"""Searching a work tree by content and by name, and replacing in it, with bounded work.

Patterns of content are plain text, not expressions: the published client does not say which of the two
it means, and an expression from outside can keep a processor busy for as long as it likes. Content is
compared as bytes, so it may be in any encoding; binary files (a NUL in the first 8 KiB) and those over
64 MiB are passed over. Links are never followed.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from collections.abc import Iterator

from edge.appliance.runtime.entries import Budget, Found, open_regular
from edge.appliance.runtime.files import WorkTree
from edge.appliance.runtime.interface import (
    FileFailed,
    FileTooLarge,
    Match,
    NoSuchDirectory,
    Replaced,
)
from edge.appliance.runtime.paths import MAX_DEPTH

MAX_MATCHES = 10_000
MAX_VISITED = 200_000
"""Names that one call looks at."""
MAX_CONTENT = 2 << 30
"""Bytes that one call reads."""
MAX_SECONDS = 15.0
"""Time for one call; the published client gives up after 30 s."""
MAX_FILE = 64 << 20
"""Bytes of a file that is searched."""
MAX_REPLACED = 16 << 20
"""Bytes of a file that is replaced in; that is one step during which nothing else of us runs."""
MAX_LINE = 2000
"""Bytes of a line that are shown; of longer ones, those around the match."""
_BINARY = 8192


def find(tree: WorkTree, path: str, pattern: str) -> list[Match]:
    """The lines below a directory, or of a file, that hold the text, in the order of paths.

    Raises what `WorkTree` raises; `FileTooLarge` when there is more than one call may look at or give.
    """
    wanted = _bytes(pattern)
    budget = _budget(path)
    matches: list[Match] = []
    for shown, data in _contents(tree, path, budget):
        for line, content in _lines(data, wanted):
            matches.append(Match(shown, line, content))
            if len(matches) > MAX_MATCHES:
                raise FileTooLarge(f"{path}: more than {MAX_MATCHES} lines match.")
    return matches


def search(tree: WorkTree, path: str, pattern: str) -> list[str]:
    """The paths below a directory whose name matches a shell pattern (``*``, ``?``, ``[…]``).

    A pattern with a slash is compared with the path below the directory; ``*`` matches slashes, too.
    Letters' case counts. Raises as `find`.
    """
    # Made of atomic parts by fnmatch, so matching cannot run away.
    matches = re.compile(fnmatch.translate(pattern)).match
    whole = "/" in pattern
    found: list[str] = []
    with tree.scan(path, MAX_DEPTH, _budget(path)) as scan:
        prefix = None
        for one in scan:
            if prefix is None:  # The first is directly below.
                prefix = len(one.path) - len(one.path.rpartition("/")[2])
            if matches(one.path[prefix:] if whole else one.path.rpartition("/")[2]):
                found.append(one.path)
                if len(found) > MAX_MATCHES:
                    raise FileTooLarge(f"{path}: more than {MAX_MATCHES} names match.")
    return found


def replace(
    tree: WorkTree, files: list[str], pattern: str, replacement: str, *, dry_run: bool = False
) -> Replaced:
    """Replace the text in each of the files, one after another, each in one step.

    Raises as `WorkTree.read`, for all of them before the first is changed.
    """
    old, new = _bytes(pattern), _bytes(replacement)
    budget = _budget("The list of files")
    for path in files:
        file, size = tree.open_file(path)
        os.close(file)
        if size > MAX_REPLACED:
            raise FileTooLarge(f"{path} is larger than {MAX_REPLACED} bytes.")
        budget.entry()
        budget.content(size)
    count = modified = binary = 0
    for path in files:
        data = tree.read(path, MAX_REPLACED)
        if b"\0" in data[:_BINARY]:
            binary += 1
            continue
        if not (here := data.count(old)):
            continue
        if len(data) + here * (len(new) - len(old)) > MAX_REPLACED:
            raise FileTooLarge(f"{path} would be larger than {MAX_REPLACED} bytes.")
        if not dry_run:
            tree.write(path, data.replace(old, new))
        count += here
        modified += 1
    return Replaced(count, modified, len(files) - modified - binary, binary)


def _budget(what: str) -> Budget:
    return Budget(what, entries=MAX_VISITED, size=MAX_CONTENT, seconds=MAX_SECONDS)


def _contents(tree: WorkTree, path: str, budget: Budget) -> Iterator[tuple[str, bytes]]:
    try:
        with tree.scan(path, MAX_DEPTH, budget) as scan:
            for one in scan:
                if stat.S_ISREG(one.status.st_mode) and (data := _read(one, budget)):
                    yield one.path, data
    except NoSuchDirectory:
        yield tree.info(path).path, tree.read(path, MAX_FILE)


def _read(found: Found, budget: Budget) -> bytes:
    """The content, or nothing for what is not searched."""
    if found.status.st_size > MAX_FILE:
        return b""
    try:
        file = open_regular(found.name, found.directory, os.O_RDONLY)
    except (OSError, FileFailed):
        return b""  # Gone, replaced, or not ours to read.
    with os.fdopen(file, "rb") as content:
        head = content.read(_BINARY)
        if b"\0" in head:
            return b""
        data = head + content.read(MAX_FILE - len(head))
    budget.content(len(data))
    return data


def _lines(data: bytes, wanted: bytes) -> Iterator[tuple[int, str]]:
    line, start, at = 1, 0, data.find(wanted)
    while at >= 0:
        line += data.count(b"\n", start, at)
        start = data.rfind(b"\n", 0, at) + 1
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        first = start if end - start <= MAX_LINE else max(start, at - MAX_LINE // 4)
        shown = data[first : min(end, first + MAX_LINE)].removesuffix(b"\r")
        yield line, shown.decode("utf-8", "replace")
        start, line = end + 1, line + 1
        at = data.find(wanted, start)


def _bytes(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise FileFailed("The text holds characters that have no UTF-8.") from None
