"""The store: one SQLite file in the data directory, for what must outlive the process.

Each owner of a kind of data (sandboxes, grants, events, ...) declares its tables and writes to them in
the same call that changes what is in memory, before anybody is told: so what was acknowledged is in the
file. Memory is what is read; the file is read once, at the start.

Writes are small and made on the loop's thread. With a write-ahead log and ``synchronous = NORMAL`` a commit
is a write to the page cache: it outlives ``kill -9`` of the process, not a power cut of the machine, after
which the newest commits may be missing and the file is consistent.

What cannot be written (a full disk) has not happened: the transaction is taken back, in the file and, by what
its parts said to undo, in memory.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VERSION = 1
"""Of the tables, all owners' together; in ``user_version`` of the file."""

Row = Sequence[Any]


class StoreError(Exception):
    """The file cannot be used, or not now. The message is one line."""


class Store:
    """The file, opened, for this user only. Not for other threads than the one that opened it.

    ``path`` None keeps everything in memory. Raises `StoreError` for a file that is damaged, or newer
    than this program; so does every call below that the file cannot serve.
    """

    def __init__(self, path: Path | None) -> None:
        self._name = str(path or "the store")
        self._undo: list[Callable[[], None]] = []
        try:
            if path is not None:
                # Its companions (-wal, -shm) get the mode of the file.
                path.touch(mode=0o600)
            self._db = sqlite3.connect(path or ":memory:", isolation_level=None)
        except (OSError, sqlite3.Error) as e:
            raise self._unusable(e) from None
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.execute("PRAGMA foreign_keys = ON")
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
            if version > VERSION:
                raise StoreError(
                    f"{path} was written by a newer version; use that, or another data directory"
                )
            self._db.execute(f"PRAGMA user_version = {VERSION}")
        except sqlite3.Error as e:
            self._db.close()
            raise self._unusable(e) from None
        except StoreError:
            self._db.close()
            raise

    def declare(self, *statements: str) -> None:
        """Make an owner's tables and indexes where there are none (``CREATE ... IF NOT EXISTS``)."""
        with self.transaction():
            for statement in statements:
                self.write(statement)

    def write(self, statement: str, values: Row | dict[str, Any] = ()) -> None:
        """Execute one statement that changes something; within `transaction`, as a part of it."""
        with self._trouble():
            self._db.execute(statement, values)

    def read(self, statement: str, values: Row | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._trouble():
            return self._db.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything in here is written, or nothing of it. Await nothing in here."""
        if self._db.in_transaction:  # a part of a larger one
            yield
            return
        try:
            with self._trouble():
                self._db.execute("BEGIN IMMEDIATE")
            yield
            with self._trouble():
                self._db.execute("COMMIT")
        except BaseException:
            self._take_back()
            raise
        self._undo.clear()

    def otherwise(self, undo: Callable[[], None]) -> None:
        """Within a transaction: call ``undo`` when that is not written after all, the newest one first."""
        assert self._db.in_transaction
        self._undo.append(undo)

    def _take_back(self) -> None:
        # Of a full disk it may have been taken back already.
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        undo, self._undo = self._undo, []
        for callback in reversed(undo):
            callback()

    def close(self) -> None:
        """Close the file. Harmless when repeated."""
        self._db.close()

    @contextmanager
    def _trouble(self) -> Iterator[None]:
        """What the file or its disk does wrong is a `StoreError`; what we do wrong is none."""
        try:
            yield
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError):
            raise
        except sqlite3.DatabaseError as e:
            raise StoreError(f"{self._name}: {e}") from e

    def _unusable(self, error: Exception) -> StoreError:
        return StoreError(
            f"{self._name} cannot be used ({error}); use another data directory, or move this one away"
        )
