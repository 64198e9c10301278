"""The store: one SQLite file in the data directory, for what must outlive the process.

Each owner of a kind of data (sandboxes, grants, events, ...) declares its tables and writes to them in
the same call that changes what is in memory, before anybody is told: so what was acknowledged is in the
file. Memory is what is read; the file is read once, at the start.

Writes are small and made on the loop's thread. With a write-ahead log and ``synchronous = NORMAL`` a commit
is a write to the page cache: it outlives ``kill -9`` of the process, not a power cut of the machine, after
which the newest commits may be missing and the file is consistent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VERSION = 1
"""Of the tables, all owners' together; in ``user_version`` of the file."""

Row = Sequence[Any]


class StoreError(Exception):
    """The file cannot be used. The message is one line that says what to do."""


class Store:
    """The file, opened. Not for other threads than the one that opened it.

    ``path`` None keeps everything in memory. Raises `StoreError` for a file that is damaged, or newer
    than this program.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        try:
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA foreign_keys = ON")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise StoreError(
                    f"{path} was written by a newer version; use that, or another directory"
                )
            self._db.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.Error as e:
            raise StoreError(
                f"{path} cannot be used ({e}); move it away, or use another directory"
            ) from None

    def declare(self, *statements: str) -> None:
        """Make an owner's tables and indexes where there are none (``CREATE ... IF NOT EXISTS``)."""
        with self.transaction():
            for statement in statements:
                self._db.execute(statement)

    def write(self, statement: str, values: Row | dict[str, Any] = ()) -> None:
        """Execute one statement that changes something; within `transaction`, as a part of it."""
        self._db.execute(statement, values)

    def read(self, statement: str, values: Row | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        return self._db.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in here is written, or nothing of it. Await nothing in here."""
        if self._db.in_transaction:  # a part of a larger one
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Close the file. Harmless when repeated."""
        self._db.close()
