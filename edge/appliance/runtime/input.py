"""What a command reads: a pipe that is written without ever waiting for the command."""

from __future__ import annotations

import asyncio
import os

from edge.appliance.runtime.interface import InputClosed, InputFull

WAITING_BYTES = 1 << 20
"""Bytes a command may leave unread, besides those in its pipe."""

_WRITE = 1 << 16


class Input:
    """The writing end of a command's standard input. ``reading`` is for the command."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.reading, self._writing = os.pipe()
        self.open = True
        self._waiting = bytearray()
        os.set_blocking(self._writing, False)

    def write(self, data: bytes) -> None:
        """Pass it on, all of it or nothing, now or when the command reads.

        Raises `InputFull` when the command has left too much unread, `InputClosed` when it reads no more.
        """
        if self.open:
            if len(self._waiting) + len(data) > WAITING_BYTES:
                raise InputFull("The process has not read what was sent before.")
            self._waiting += data
            self._pump()
        if not self.open:
            raise InputClosed("The process takes no input any more.")

    def _pump(self) -> None:
        try:
            while self._waiting and self.open:
                sent = os.write(self._writing, bytes(self._waiting[:_WRITE]))
                del self._waiting[:sent]
        except BlockingIOError:
            self._loop.add_writer(self._writing, self._pump)
            return
        except OSError:  # Nobody holds the reading end any more.
            self.close()
            return
        if self.open:
            self._loop.remove_writer(self._writing)

    def close(self) -> None:
        """The end of the input; what was not read by now is lost. Calling it again is harmless."""
        self._waiting.clear()
        if self.open:
            self.open = False
            self._loop.remove_writer(self._writing)
            os.close(self._writing)
