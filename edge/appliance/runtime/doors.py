"""The way into a sandbox that has a network of its own: for each of its ports that somebody wants, one here.

An edge sees an ordinary port on 127.0.0.1. It has to be *closed* when the app does not listen, because a refused
connection is what edges go by (they retry it, or show that nobody listens). So a door is a port that is ours from the
beginning, and listens as long as the app does: the kernel's table of the sandbox's network says so, which is looked at
a few times a second, and more often while things change. Nobody tells when somebody begins to listen.

Who is let in while the app has just stopped listening (it restarts, perhaps) waits a second for it.

Connections into the sandbox begin as sockets that its supervisor made in there, and hands over unconnected. A frozen app
listens for the kernel, as it would without a door; that it is frozen is in the sandbox's record, and edges go by that.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from edge.appliance.runtime.door import Door
from edge.appliance.runtime.ends import End, join, reset
from edge.appliance.runtime.interface import RuntimeFault
from edge.appliance.runtime.namespace import listening
from edge.appliance.runtime.ports import Ports
from edge.appliance.tasks import Scope

QUICK, SLOW = 0.05, 0.25
"""Seconds between two looks: for a while after something has changed, and otherwise."""
LIVELY = 30.0
"""Seconds for which that while lasts."""
PATIENCE = 1.0
"""Seconds for which a connection waits for an app that has stopped listening."""
STEP = 0.02
"""Seconds between two attempts to connect while it waits."""
ANSWER = 0.2
"""Seconds for the kernel's answer, which is there at once; the loop waits for it."""

_ENDS = ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1"))

Dial = Callable[[int], Awaitable[socket.socket]]


class Doors:
    """Those of one sandbox, on ``ports``. ``dial(family)`` gives an unconnected TCP socket that was made inside.

    Used from one running loop.
    """

    def __init__(self, dial: Dial, ports: Ports) -> None:
        self._dial = dial
        self._ports = ports
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
            sock = self._ports.take()
            self._doors[port] = Door(sock, lambda outer: self._enter(port, outer))
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
            self._ports.give_back(door.number)
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

    def _enter(self, port: int, outer: socket.socket) -> None:
        """Somebody is at a door."""
        self._scope.spawn(self._let_in(port, outer), name=f"door {port}")

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
            {"message": "a connection into a sandbox failed", "exception": error}
        )
