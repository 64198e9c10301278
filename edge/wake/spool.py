"""Usage on disk: what is not acknowledged outlives this process.

A directory, and in it one file per process, because old and new ones live side by side during a restart, and workers
always do. Who owns a file holds a lock on its companion (flock, which ends with the process however it ends). Who
starts takes over every file that nobody holds any more.

A file has nothing but numbered batches, so it does no harm that it may be older than what happened last, nor that a
batch is taken over twice: the control plane counts each number of an edge once. It is written anew as a whole and
renamed into place.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from edge.state import wire
from edge.state.port import UsageBatch

MAX_FILE = 256 << 20
"""Bytes of a file that are read. One has about 300 for each pair of sandbox and grant."""


class Spool:
    """The directory as one process sees it. For any thread; does I/O, and raises no `OSError`."""

    def __init__(self, folder: Path) -> None:
        self.troubles: deque[tuple[str, dict[str, str]]] = deque(maxlen=100)
        """What went wrong: events, for whoever may tell them."""
        self._folder = folder
        self._file = folder / f"{secrets.token_hex(8)}.usage"
        self._lock: int | None = None
        self._turn = threading.Lock()
        self.failing = False
        """Whether the latest writing failed."""

    def take_over(self) -> list[UsageBatch]:
        """What processes have left that are no more, oldest file first. It is in this process's file now."""
        found: list[UsageBatch] = []
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            files = [file for file in self._folder.glob("*.usage") if file != self._file]
            files.sort(key=lambda file: file.stat().st_mtime)
        except OSError as e:
            self._failed(e)
            return []
        for file in files:
            try:
                lock = _locked(file.with_suffix(".lock"))
                if lock is None:
                    continue  # its owner lives
                try:
                    found += _read(file)
                    if self.write(found):
                        file.unlink(missing_ok=True)
                        file.with_suffix(".lock").unlink(missing_ok=True)
                finally:
                    os.close(lock)
            except (OSError, ValueError) as e:
                self.troubles.append(("usage_unreadable", {"file": str(file), "reason": str(e)}))
        return found

    def write(self, batches: Iterable[UsageBatch]) -> bool:
        """This is what is not acknowledged now (nothing: no file). Whether that is on the disk."""
        with self._turn:
            try:
                text = b"".join(wire.usage_to_json(batch) + b"\n" for batch in batches)
                if self._lock is None:
                    if not text:
                        return True
                    self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    self._lock = _locked(self._file.with_suffix(".lock"))
                if text:
                    new = self._file.with_suffix(".new")
                    new.write_bytes(text)
                    new.rename(self._file)
                else:
                    self._file.unlink(missing_ok=True)
            except OSError as e:
                self._failed(e)
                return False
            self.failing = False
            return True

    def close(self) -> None:
        """Let go of the file; it stays if there is something in it."""
        with self._turn:
            if self._lock is not None:
                if not self._file.exists():
                    self._file.with_suffix(".lock").unlink(missing_ok=True)
                os.close(self._lock)
                self._lock = None

    def _failed(self, e: OSError) -> None:
        if not self.failing:
            why = {"folder": str(self._folder), "reason": e.strerror or type(e).__name__}
            self.troubles.append(("usage_not_kept", why))
        self.failing = True


def _read(file: Path) -> list[UsageBatch]:
    with file.open("rb") as lines:
        text = lines.read(MAX_FILE + 1)
    if len(text) > MAX_FILE:
        raise ValueError(f"more than {MAX_FILE} bytes")
    return [wire.usage_from_json(line) for line in text.splitlines()]


def _locked(file: Path) -> int | None:
    """A descriptor that holds the lock; None when another process does."""
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    # Its owner may have removed it between the two calls: then this is a lock on nothing.
    try:
        same = os.fstat(descriptor).st_ino == file.stat().st_ino
    except FileNotFoundError:
        same = False
    if not same:
        os.close(descriptor)
        return None
    return descriptor
