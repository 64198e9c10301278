"""Objects in memory and their rows in the store: both change, or neither does.

An object is one JSON document under its id, so that a field that is new gets its default when an older row
is read, and no column has to be added.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from edge.appliance.store import Store, StoreError

Document = dict[str, Any]


class Kept(Protocol):
    """A dataclass with an id."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def id(self) -> str | int:
        """Under which it is kept."""


T = TypeVar("T", bound=Kept)


class Rows(Generic[T]):
    """One table. ``write`` and ``read`` turn an object into a document and back.

    What writes raises `StoreError`, and nothing has changed then.
    """

    def __init__(
        self,
        store: Store,
        table: str,
        *,
        write: Callable[[T], Document],
        read: Callable[[Document], T],
    ) -> None:
        self._store = store
        self._table = table
        self._write = write
        self._read = read
        # The table's name is ours, never input.
        self._select = f"SELECT id, body FROM {table} ORDER BY rowid"  # noqa: S608
        self._upsert = (
            f"INSERT INTO {table} VALUES (?, ?) "  # noqa: S608
            "ON CONFLICT (id) DO UPDATE SET body = excluded.body"
        )
        self._delete = f"DELETE FROM {table} WHERE id = ?"  # noqa: S608
        store.declare(
            f"CREATE TABLE IF NOT EXISTS {table} (id NOT NULL PRIMARY KEY, body TEXT NOT NULL)"
        )

    def load(self) -> list[T]:
        """All of them, in the order in which they came. Raises `StoreError`."""
        found = []
        for name, body in self._store.read(self._select):
            try:
                found.append(self._read(json.loads(body)))
            except (ValueError, TypeError, KeyError) as e:
                raise StoreError(
                    f"the state in the data directory cannot be read: {self._table} {name}: {e!r}; use "
                    "another data directory"
                ) from None
        return found

    def put(self, thing: T) -> None:
        """Write a new one, or one that has changed."""
        body = json.dumps(self._write(thing), separators=(",", ":"))
        self._store.write(self._upsert, (thing.id, body))

    def remove(self, name: str | int) -> None:
        """Take one away; one that is not there is."""
        self._store.write(self._delete, (name,))

    @contextmanager
    def changing(self, *things: T) -> Iterator[None]:
        """What these are at the end is in the file; if it cannot be, they are what they were."""
        before = [(thing, _fields(thing)) for thing in things]

        def undo() -> None:
            for thing, fields in before:
                for name, value in fields.items():
                    setattr(thing, name, value)

        with self._store.transaction():
            self._store.otherwise(undo)
            yield
            for thing in things:
                self.put(thing)


def _fields(thing: Kept) -> dict[str, object]:
    names = [field.name for field in dataclasses.fields(thing)]
    return {name: _copied(getattr(thing, name)) for name in names}


def _copied(value: object) -> object:
    return value.copy() if isinstance(value, dict | list) else value
