"""What a command writes: read until the last holder of the pipe is gone, and kept within bounds.

The pipe of an ended command may live on in a process it left in the background, which must not
break by our closing it. So reading goes on to the end of the pipe, and is never what anybody waits for:
what the command itself wrote is in the pipe by the time it has ended (`Pipe.drain`).

Whoever wants the output while it comes listens (`Output.listen`). A listener that has not taken enough
stops the reading, so that the command waits for it as for any slow reader of a pipe. How long it may is
decided where the listener is served; without listeners a command never waits.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import termios
from collections.abc import Callable

from edge.appliance.runtime.listener import Listener

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
        # Cut late, so that cutting costs a few moves a byte and not one of all a read.
        if len(self._data) > self._limit + self._limit // 4:
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
        self._paused = False
        os.set_blocking(self._reading, False)
        self._loop.add_reader(self._reading, self._readable)

    def hold(self, *, paused: bool) -> None:
        """Read no more for now, or again; the pipe fills meanwhile, and its writer waits."""
        if not self.open or paused is self._paused:
            return
        self._paused = paused
        if paused:
            self._loop.remove_reader(self._reading)
        else:
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
        """Read what is in the pipe now, paused or not, and not what somebody still adds to it."""
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
        self._order = Tail()  # Of which stream each byte of `_both` is.
        self._listeners: list[Listener] = []
        self._over = False
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
        mark = bytes([stream])

        def feed(data: bytes) -> None:
            if self.heads is not None:
                self.heads[stream].feed(data)
            self._tails[stream].feed(data)
            self._both.feed(data)
            self._order.feed(mark * len(data))
            for listener in self._listeners:
                listener.feed(stream, data)
            self._pace()

        return feed

    def listen(self) -> Listener:
        """A listener, which begins with the newest MiB of what was written before; then `leave`."""
        listener = Listener(self._both.value(), self._order.value(), self._pace)
        if self._over:
            listener.finish()
        else:
            self._listeners.append(listener)
        return listener

    def leave(self, listener: Listener) -> None:
        """It takes no more: nobody waits for it any longer. Calling it again is harmless."""
        if listener in self._listeners:
            self._listeners.remove(listener)
            self._pace()

    def finish(self) -> None:
        """The command has ended: listeners hear of it, and not of what others still write."""
        self._over = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener.finish()
        self._pace()

    def _pace(self) -> None:
        full = any(listener.full for listener in self._listeners)
        for pipe in self._pipes:
            pipe.hold(paused=full)  # Both, or the streams would change places.

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
