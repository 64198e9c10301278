"""What a command writes: read until the last holder of the pipe is gone, and kept within bounds.

The pipe of an ended command may live on in a process it left in the background, which must not
break by our closing it. So reading goes on to the end of the pipe, and is never what anybody waits for:
what the command itself wrote is in the pipe by the time it has ended (`Pipe.drain`).
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import termios
from collections.abc import Callable

TAIL_BYTES = 1 << 20
HEAD_BYTES = 8 << 20
_READ = 1 << 16


class Head:
    """The first ``limit`` bytes of what is fed to it, and whether there was more."""

    def __init__(self, limit: int = HEAD_BYTES) -> None:
        self._limit = limit
        self._data = bytearray()
        self.truncated = False

    def feed(self, data: bytes) -> None:
        """Keep what there is room for."""
        room = self._limit - len(self._data)
        self._data += data[:room]
        self.truncated = self.truncated or len(data) > room

    def value(self) -> bytes:
        """What was kept."""
        return bytes(self._data)


class Tail:
    """The newest ``limit`` bytes of what is fed to it."""

    def __init__(self, limit: int = TAIL_BYTES) -> None:
        self._limit = limit
        self._data = bytearray()

    def feed(self, data: bytes) -> None:
        """Keep it, at the cost of the oldest."""
        self._data += data
        # Cut late, so that cutting costs each byte one move and not one move a read.
        if len(self._data) > 2 * self._limit:
            del self._data[: -self._limit]

    def value(self) -> bytes:
        """What was kept."""
        return bytes(self._data[-self._limit :])


class Pipe:
    """The reading end of one pipe, read by the running loop; ``feed`` gets what comes, until `close`."""

    def __init__(self, feed: Callable[[bytes], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._feed = feed
        self._reading, self.writing = os.pipe()
        self.open = True
        os.set_blocking(self._reading, False)
        self._loop.add_reader(self._reading, self._readable)

    def _readable(self) -> None:
        self._take(_READ)

    def _take(self, most: int) -> int:
        try:
            data = os.read(self._reading, most)
        except BlockingIOError:
            return 0
        if not data:
            self.close()
        else:
            self._feed(data)
        return len(data)

    def drain(self) -> None:
        """Read what is in the pipe now, and not what somebody still adds to it."""
        waiting = array.array("i", [0])
        if self.open:
            fcntl.ioctl(self._reading, termios.FIONREAD, waiting)
        while waiting[0] > 0 and (taken := self._take(waiting[0])) > 0:
            waiting[0] -= taken

    def close(self) -> None:
        """Stop reading; the writer then gets a broken pipe. Calling it again is harmless."""
        if self.open:
            self.open = False
            self._loop.remove_reader(self._reading)
            os.close(self._reading)


class Output:
    """Both streams of one command. ``head`` keeps the beginnings too, for a caller who waits for the end."""

    def __init__(self, *, head: bool) -> None:
        self.heads = (Head(), Head()) if head else None
        self._tails = (Tail(), Tail())
        self._both = Tail()
        self._pipes: list[Pipe] = []
        try:
            for stream in (0, 1):
                self._pipes.append(Pipe(self._feeder(stream)))
        except OSError:  # Out of descriptors.
            for pipe in self._pipes:
                os.close(pipe.writing)
            self.close()
            raise

    def _feeder(self, stream: int) -> Callable[[bytes], None]:
        def feed(data: bytes) -> None:
            if self.heads is not None:
                self.heads[stream].feed(data)
            self._tails[stream].feed(data)
            self._both.feed(data)

        return feed

    @property
    def writing(self) -> tuple[int, int]:
        """The ends for the command's stdout and stderr; whoever passes them on closes them."""
        return self._pipes[0].writing, self._pipes[1].writing

    def logs(self) -> tuple[bytes, bytes, bytes]:
        """The newest of stdout, of stderr, and of both in the order they were read."""
        return self._tails[0].value(), self._tails[1].value(), self._both.value()

    @property
    def reading(self) -> bool:
        """Whether somebody may still write."""
        return any(pipe.open for pipe in self._pipes)

    def drain(self) -> None:
        """Read what has been written by now."""
        for pipe in self._pipes:
            pipe.drain()

    def close(self) -> None:
        """Stop reading."""
        for pipe in self._pipes:
            pipe.close()
