"""The way into a sandbox that has a network of its own: for each of its ports that somebody wants, one here.

An edge sees an ordinary port on 127.0.0.1. It has to be *closed* when the app does not listen, because a refused
connection is what edges go by (they retry it, or show that nobody listens). So a door is a port that is ours from the
beginning, and listens as long as the app does: the kernel's table of the sandbox's network says so, which is looked at
a few times a second, and more often while things change. Nobody tells when somebody begins to listen.

Who is let in while the app has just stopped listening (it restarts, perhaps) waits a second for it.

Connections into the sandbox begin as sockets that its supervisor made in there, and hands over unconnected. A frozen app
listens for the kernel, as it would without a relay; that it is frozen is in the sandbox's record, and edges go by that.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable

from edge.appliance.runtime.ends import End, join, reset
from edge.appliance.runtime.interface import RuntimeFault
from edge.appliance.runtime.namespace import listening
from edge.appliance.tasks import Scope

QUICK, SLOW = 0.05, 0.25
"""Seconds between two looks: for a while after something has changed, and otherwise."""
LIVELY = 30.0
"""Seconds for which that while lasts."""
PATIENCE = 1.0
"""Seconds for which a connection waits for an app that has stopped listening."""
STEP = 0.02
ANSWER = 0.2
"""Seconds for the kernel's answer, which is there at once; the loop waits for it."""

# Below the ports that the kernel gives to outgoing connections (Linux: 32768 and up).
_PORTS = range(20_000, 32_000)
_BACKLOG = 512
_BUSY = 64
"""Connections taken from a door at once."""
_ENDS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))

Dial = Callable[[int], Awaitable[socket.socket]]


class Relay:
    """The doors of one sandbox. ``dial(family)`` gives an unconnected TCP socket that was made inside.

    Used from one running loop.
    """

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        self._doors: dict[int, Door] = {}
        self._ends: set[End] = set()
        self._table: socket.socket | None = None
        self._frozen = False
        self._timer: asyncio.TimerHandle | None = None
        self._lively = 0.0
        self._closed = False
        self._scope = Scope(lambda _, error: self._crashed(error))

    def publish(self, port: int) -> int:
        """The port on 127.0.0.1 that leads to this one inside, from now on. Raises OSError."""
        if port not in self._doors:
            self._doors[port] = Door(self, port)
            self._stir()
        return self._doors[port].number

    def follow(self, table: socket.socket) -> None:
        """There is somebody inside now; this tells who listens (`namespace.table`). It is ours from now on."""
        self._forget()
        table.settimeout(ANSWER)
        self._table = table
        self._stir()

    def lose(self) -> None:
        """Nobody is inside any more."""
        self._forget()
        self._look()

    def freeze(self) -> None:
        """Nothing changes inside until `thaw`."""
        self._frozen = True
        self._rest()

    def thaw(self) -> None:
        """Things change again."""
        self._frozen = False
        self._stir()

    async def close(self) -> None:
        """Cut all connections, give all ports back. Harmless when repeated."""
        self._closed = True
        self._rest()
        self._forget()
        for door in self._doors.values():
            door.close()
        self._doors.clear()
        await self._scope.close()
        for end in tuple(self._ends):
            end.cut()

    # --- Who listens inside ---------------------------------------------------------------------------

    def _stir(self) -> None:
        """Something has changed, or is about to."""
        self._lively = asyncio.get_running_loop().time() + LIVELY
        self._look()

    def _forget(self) -> None:
        if self._table is not None:
            self._table.close()
            self._table = None

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        """Open and shut doors as the app does, and look again later."""
        self._rest()
        if self._closed or not self._doors:
            return
        loop = asyncio.get_running_loop()
        open_inside = self._listening()
        for port, door in self._doors.items():
            if door.open is not (port in open_inside):
                self._lively = loop.time() + LIVELY
                door.set(open_=port in open_inside)
        if self._table is not None and not self._frozen:
            later = QUICK if loop.time() < self._lively else SLOW
            self._timer = loop.call_later(later, self._look)

    def _listening(self) -> frozenset[int]:
        if self._table is None:
            return frozenset()
        try:
            return listening(self._table)
        except OSError:
            # It did not answer in time, say: what was so is taken to be so still.
            return frozenset(port for port, door in self._doors.items() if door.open)

    # --- Connections ----------------------------------------------------------------------------------

    def enter(self, port: int, outer: socket.socket) -> None:
        """Somebody is at a door."""
        self._scope.spawn(self._let_in(port, outer), name=f"relay {port}")

    async def _let_in(self, port: int, outer: socket.socket) -> None:
        try:
            inner = await self._connect(port)
        except (OSError, RuntimeFault):
            reset(outer)
            return
        except BaseException:
            reset(outer)
            raise
        await join(inner, outer, self._ends)

    async def _connect(self, port: int) -> socket.socket:
        """A connection inside. Raises OSError, `RuntimeFault`."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + PATIENCE
        while True:
            try:
                return await self._attempt(port)
            except OSError:
                self._look()
                if clock() > deadline:
                    raise
            await asyncio.sleep(STEP)

    async def _attempt(self, port: int) -> socket.socket:
        refusal: OSError | None = None
        for family, address in _ENDS:
            try:
                sock = await self._dial(family)
            except RuntimeFault:
                if refusal is not None:
                    break  # There is no such family.
                raise
            try:
                sock.setblocking(False)
                await asyncio.get_running_loop().sock_connect(sock, (address, port))
            except OSError as e:
                sock.close()
                refusal = refusal or e
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        assert refusal is not None
        raise refusal

    def _crashed(self, error: BaseException) -> None:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a relay failed", "exception": error}
        )


class Door:
    """One port of ours, for one inside. It is bound all the time, and listens now and then."""

    def __init__(self, relay: Relay, port: int) -> None:
        self._relay = relay
        self._port = port
        self.open = False
        self._sock = _bound()
        self.number: int = self._sock.getsockname()[1]

    def set(self, *, open_: bool) -> None:
        """Begin to listen, or stop."""
        loop = asyncio.get_running_loop()
        if open_:
            # To listen again while connections are open. Only while it listens, which keeps everybody out: whoever else
            # asks for the same could have the port of a closed door, and would be taken for the app.
            self._reusable(1)
            try:
                self._sock.listen(_BACKLOG)
            except OSError:
                self._reusable(0)
                return  # The next look tries again.
            loop.add_reader(self._sock, self._knock)
        else:
            loop.remove_reader(self._sock)
            # Linux takes a listening socket back to a bound one; those who wait to be accepted are reset.
            self._sock.shutdown(socket.SHUT_RDWR)
            self._reusable(0)
        self.open = open_

    def _reusable(self, yes: int) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, yes)

    def close(self) -> None:
        """Give the port back."""
        if self.open:
            asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    def _knock(self) -> None:
        for _ in range(_BUSY):
            try:
                outer, _ = self._sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:
                # No descriptors are left, say. The next look opens again: until then nobody knocks in vain for us.
                self.set(open_=False)
                return
            outer.setblocking(False)
            self._relay.enter(self._port, outer)


def _bound() -> socket.socket:
    """A socket on a free port of loopback that does not listen. Raises OSError."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        for port in random.sample(_PORTS, 100):
            try:
                # By number: a port that the kernel has chosen would be lost with the first shutdown.
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return sock
    except BaseException:
        sock.close()
        raise
    sock.close()
    raise OSError("no free port was found")
