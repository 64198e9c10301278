"""The bounded table: never over its limit, and what is used stays."""

from __future__ import annotations

from edge.wake.table import Table


def test_the_limit_holds() -> None:
    """However much is put in, no more than the limit is kept."""
    table: Table[int] = Table(10)
    for i in range(1000):
        table.put(str(i), i)
        assert len(table) <= 10
    assert table.get("999") == 999
    assert table.get("1") is None


def test_what_is_read_survives() -> None:
    """A key read now and then outlives any number of keys that are not."""
    table: Table[str] = Table(10)
    table.put("used", "value")
    for i in range(1000):
        table.put(str(i), "x")
        if i % 4 == 0:
            assert table.get("used") == "value"


def test_what_somebody_waits_on_survives() -> None:
    """Keys named in ``keep`` survive without being read."""
    table: Table[str] = Table(10)
    table.put("kept", "value")
    for i in range(1000):
        table.put(str(i), "x", keep=("kept", "never there"))
    assert table.get("kept") == "value"


def test_a_key_has_one_value() -> None:
    """Putting a key again replaces it, in whichever half it was."""
    table: Table[int] = Table(4)
    table.put("a", 1)
    table.put("b", 1)
    table.put("c", 1)
    table.put("a", 2)
    assert table.get("a") == 2
    assert "a" in table and "never" not in table
    assert len(table) == 3
