"""Writing lines to a file without ever making the event loop wait.

The loop appends to a list; a thread of its own writes what has gathered, in one call. Between the two
there is a bound in bytes. Beyond it, or when the file cannot be written, lines are dropped and counted:
a full disk or a reader that stopped reading must not stop traffic.
"""

from __future__ import annotations

import os
import queue
import select
import stat
import threading
from collections.abc import Iterable
from pathlib import Path

BATCH = 64 * 1024
"""Bytes that are handed to the thread without waiting for `LineWriter.flush`."""

MAX_PENDING = 8 * 1024 * 1024
"""Bytes that may wait for the file."""

CLOSE_TIMEOUT = 2.0
"""Seconds `LineWriter.close` waits for the file to take what is left."""


class LineWriter:
    """Lines for one file. ``target`` is a path (appended to) or a file descriptor (never closed).

    Nothing is written before `open`. `add`, `flush` and `reopen` belong to one thread, the loop's, and
    do not block.
    """

    def __init__(self, target: Path | int, *, max_pending: int = MAX_PENDING) -> None:
        self._target = target
        self._fd = -1
        self._max_pending = max_pending
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._queue: queue.SimpleQueue[list[bytes] | None] = queue.SimpleQueue()
        self._reopen = threading.Event()
        # Two counters with one writer each instead of one with a lock on the hot path.
        self._handed = 0
        self._settled = 0
        self._refused = 0
        self._failed = 0
        self._thread = threading.Thread(target=self._write, name="lines", daemon=True)

    def open(self) -> None:
        """Open the file and begin. Raises OSError."""
        self._fd = _open(self._target)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines lost so far."""
        return self._refused + self._failed

    def add(self, line: bytes) -> None:
        """Take one line, its newline included."""
        size = len(line)
        if self._handed - self._settled + self._batch_bytes + size > self._max_pending:
            self._refused += 1
            return
        self._batch.append(line)
        self._batch_bytes += size
        if self._batch_bytes >= BATCH:
            self.flush()

    def flush(self) -> None:
        """Hand over what has gathered."""
        if self._batch:
            self._handed += self._batch_bytes
            self._queue.put(self._batch)
            self._batch, self._batch_bytes = [], 0

    def reopen(self) -> None:
        """Open the path anew before the next write: somebody has moved the file away (logrotate)."""
        self.flush()
        self._reopen.set()
        self._queue.put([])

    def close(self) -> None:
        """Write what is left, wait for it at most `CLOSE_TIMEOUT` seconds. Blocks."""
        if self._thread.is_alive():
            self.flush()
            self._queue.put(None)
            self._thread.join(CLOSE_TIMEOUT)

    def _write(self) -> None:
        while (batch := self._queue.get()) is not None:
            try:
                if self._reopen.is_set():
                    self._reopen.clear()
                    self._renew()
                for chunk in _chunks(self._fd, batch):
                    _write_all(self._fd, chunk)
            except OSError:
                self._failed += len(batch)
            self._settled += sum(map(len, batch))
        self._shut()

    def _renew(self) -> None:
        if isinstance(self._target, Path):
            fresh = _open(self._target)  # When this fails, the old file is better than none.
            self._shut()
            self._fd = fresh

    def _shut(self) -> None:
        if isinstance(self._target, Path):
            os.close(self._fd)


def _open(target: Path | int) -> int:
    if isinstance(target, int):
        return target
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    # Addresses of people stand in it: not for everybody to read.
    return os.open(target, flags, 0o640)


def _chunks(fd: int, batch: list[bytes]) -> Iterable[bytes]:
    """What goes into one write. Workers may share a pipe, where only PIPE_BUF bytes stay together."""
    if not stat.S_ISFIFO(os.fstat(fd).st_mode):
        return [b"".join(batch)]
    chunks = [b""]
    for line in batch:
        if len(chunks[-1]) + len(line) > select.PIPE_BUF:
            chunks.append(b"")
        chunks[-1] += line
    return chunks


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
