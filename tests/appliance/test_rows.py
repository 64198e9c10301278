"""Objects and their rows: what is in memory is in the file, and what could not be written has not happened."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import pytest

from edge.appliance.rows import Rows
from edge.appliance.store import Store, StoreError


@dataclass
class Thing:
    """Something with an id and what may change of it."""

    id: str
    size: int
    marks: list[str] = field(default_factory=list)
    new: str = "default"


def rows(store: Store) -> Rows[Thing]:
    """The table of things, as an owner declares it."""
    return Rows(store, "things", write=asdict, read=lambda document: Thing(**document))


def test_what_was_put_is_loaded_in_the_order_in_which_it_came(store: Store) -> None:
    """A change keeps its place; what was removed is gone, and removing it again is nothing."""
    things = rows(store)
    for name in ("b", "a", "c"):
        things.put(Thing(name, 1))
    things.put(Thing("b", 2, ["\ud800 and \0"]))
    things.remove("a")
    things.remove("a")
    assert rows(store).load() == [Thing("b", 2, ["\ud800 and \0"]), Thing("c", 1)]


def test_an_older_row_gets_the_default_of_a_newer_field(store: Store) -> None:
    """A field that is added needs no change of the table."""
    things = rows(store)
    store.write('INSERT INTO things VALUES (\'old\', \'{"id": "old", "size": 3}\')')
    assert things.load() == [Thing("old", 3, [], "default")]


@pytest.mark.parametrize("body", ["{", "[]", "{}", '{"id": "x", "size": 1, "colour": "red"}'])
def test_a_row_that_cannot_be_read_is_named(store: Store, body: str) -> None:
    """It is not passed over in silence."""
    things = rows(store)
    store.write("INSERT INTO things VALUES ('x', ?)", (body,))
    with pytest.raises(StoreError, match="things x"):
        things.load()


def test_a_change_is_written_at_its_end(store: Store) -> None:
    """Of several things at once."""
    things, first, second = rows(store), Thing("a", 1), Thing("b", 1)
    with things.changing(first, second):
        first.size = 5
        second.marks.append("x")
    assert rows(store).load() == [Thing("a", 5), Thing("b", 1, ["x"])]


def test_what_cannot_be_written_is_taken_back_in_memory(store: Store) -> None:
    """Lists that were changed in place included; also when a larger transaction fails only later."""
    things, thing = rows(store), Thing("a", 1, ["x"])
    things.put(thing)

    def change() -> None:
        with things.changing(thing):
            thing.size = 5
            thing.marks.append("y")

    store.write("PRAGMA query_only = ON")
    with pytest.raises(StoreError):
        change()
    assert thing == Thing("a", 1, ["x"])
    store.write("PRAGMA query_only = OFF")

    def larger() -> None:
        with store.transaction():
            change()
            change()
            assert thing.size == 5
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        larger()
    assert thing == Thing("a", 1, ["x"])
    change()
    assert rows(store).load() == [Thing("a", 5, ["x", "y"])]
