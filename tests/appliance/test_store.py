"""The store: what was written is there again, whole, also after kill -9; what cannot be used says so."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edge.appliance.store import VERSION, Store, StoreError

THINGS = "CREATE TABLE IF NOT EXISTS things (id TEXT PRIMARY KEY, size INTEGER)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "state.sqlite"


def opened(path: Path | None) -> Store:
    """A store with one owner."""
    store = Store(path)
    store.declare(THINGS)
    return store


def test_what_is_written_is_there_after_a_restart(path: Path) -> None:
    """With an owner that declares its tables again."""
    first = opened(path)
    first.write("INSERT INTO things VALUES (?, ?)", ("a", 1))
    first.close()
    second = opened(path)
    assert second.read("SELECT id, size FROM things") == [("a", 1)]
    second.close()


def test_a_transaction_is_whole_or_nothing(path: Path) -> None:
    """An error in it takes back what came before, the parts inside of it included."""
    store = opened(path)

    def twice() -> None:
        with store.transaction():
            store.write("INSERT INTO things VALUES ('a', 1)")
            with store.transaction():
                store.write("INSERT INTO things VALUES ('b', 1)")
            store.write("INSERT INTO things VALUES ('a', 2)")

    with pytest.raises(sqlite3.IntegrityError):
        twice()
    assert store.read("SELECT id FROM things") == []
    with store.transaction():
        store.write("INSERT INTO things VALUES ('c', 1)")
    assert store.read("SELECT id FROM things") == [("c",)]
    store.close()


def test_kill_9_loses_nothing_that_was_acknowledged(path: Path) -> None:
    """A process that says "written" and is killed at once."""
    script = (
        "import os, signal, sys, pathlib\n"
        "from tests.appliance.test_store import opened\n"
        f"store = opened(pathlib.Path({str(path)!r}))\n"
        "for n in range(1000):\n"
        "    store.write('INSERT INTO things VALUES (?, ?)', (str(n), n))\n"
        "    print(n, flush=True)\n"
        "    if n == 321: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = opened(path)
    assert store.read("SELECT count(*), max(size) FROM things") == [(322, 321)]
    store.close()


def test_without_a_file_it_is_in_memory() -> None:
    """For a control plane that keeps nothing."""
    store = opened(None)
    store.write("INSERT INTO things VALUES ('a', 1)")
    assert store.read("SELECT id FROM things") == [("a",)]
    store.close()
    store.close()


def test_a_damaged_file_is_told_by_name(path: Path) -> None:
    """And is left as it is."""
    path.write_bytes(b"this is no database, and long enough to be taken for one\n" * 100)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="cannot be used"):
        Store(path)
    assert path.read_bytes() == before


def test_a_newer_file_is_not_touched(path: Path) -> None:
    """Its tables may mean something else."""
    opened(path).close()
    raw = sqlite3.connect(path)
    raw.execute(f"PRAGMA user_version = {VERSION + 1}")
    raw.close()
    with pytest.raises(StoreError, match="newer version"):
        Store(path)


def test_what_is_not_written_is_undone(path: Path) -> None:
    """The newest first, also what a part of the transaction said; not what was written before."""
    store, undone = opened(path), []
    with store.transaction():
        store.otherwise(lambda: undone.append("written"))

    def fail() -> None:
        with store.transaction():
            store.otherwise(lambda: undone.append("first"))
            with store.transaction():
                store.otherwise(lambda: undone.append("second"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert undone == ["second", "first"]
    store.close()


def test_a_full_disk_takes_the_transaction_back(path: Path) -> None:
    """Where the commit fails, too: in the file, in memory, and the next transaction is one of its own."""
    script = (
        "import pathlib, resource, sys\n"
        "from edge.appliance.store import StoreError\n"
        "from tests.appliance.test_store import opened\n"
        f"store = opened(pathlib.Path({str(path)!r}))\n"
        "unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, unlimited[1]))\n"
        "undone = []\n"
        "try:\n"
        "    with store.transaction():\n"
        "        store.otherwise(lambda: undone.append(True))\n"
        "        for n in range(1000):\n"
        "            store.write('INSERT INTO things VALUES (?, ?)', ('x' * 100 + str(n), n))\n"
        "except StoreError as e:\n"
        "    assert undone == [True], undone\n"
        "else:\n"
        "    sys.exit('the disk was not full')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)\n"
        "store.write('INSERT INTO things VALUES (?, ?)', ('later', 1))\n"
        "assert store.read('SELECT id FROM things') == [('later',)]\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    store = opened(path)
    assert store.read("SELECT id FROM things") == [("later",)]
    store.close()


def test_the_file_is_for_this_user_only(path: Path) -> None:
    """Also its companions; whatever the umask."""
    store = opened(path)
    store.write("INSERT INTO things VALUES ('a', 1)")
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    names = (path.name, f"{path.name}-wal", f"{path.name}-shm")
    assert modes == dict.fromkeys(names, 0o600)
    store.close()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    """As what it is: a file that cannot be used."""
    with pytest.raises(StoreError, match="another data directory"):
        Store(tmp_path / "none" / "state.sqlite")
