"""The two logs of an edge: where their lines go, from the first one to the last."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edge.core.settings import LogSettings
from edge.ops.events import EventLog
from edge.ops.lines import LineWriter
from edge.ops.process import StartError


class Logs:
    """The event log on standard error, and the access log (None where none is wanted).

    Nothing is written before `open`. ``wall`` is Unix time in seconds.
    """

    def __init__(self, settings: LogSettings, *, wall: Callable[[], float]) -> None:
        self._file = settings.access
        self._stderr = LineWriter(2)
        self.events = EventLog(self._stderr, settings.level, wall=wall)
        self.access: LineWriter | None = None
        if self._file:
            self.access = LineWriter(1 if self._file == "-" else Path(self._file))

    def open(self) -> None:
        """Begin. Raises `StartError`."""
        self._stderr.open()
        if self.access is not None:
            try:
                self.access.open()
            except OSError as e:
                raise StartError(
                    f"log.access: {self._file} cannot be written: {e.strerror}; choose another file"
                ) from None

    def reopen(self) -> None:
        """After logrotate moved the access log away (SIGHUP)."""
        if self.access is not None:
            self.access.reopen()

    def dropped(self) -> dict[str, float]:
        """Lines that could not be written, by log."""
        access = self.access.dropped if self.access is not None else 0
        return {"access": access, "event": self._stderr.dropped}

    def close(self) -> None:
        """Write what is left. Blocks, because it joins threads; for when nobody else wants the loop."""
        for writer in (self.access, self._stderr):
            if writer is not None:
                writer.close()
