"""The control plane's end of a supervisor: start it, ask it, hear from it, be rid of it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import edge
from edge.appliance.runtime.cgroup import Cgroup
from edge.appliance.runtime.freezer import Freezer
from edge.appliance.runtime.interface import (
    FreezeFailed,
    NotExecutable,
    RuntimeFault,
    SandboxFrozen,
    SupervisorLost,
    VolumeLost,
)

_READ = 1 << 16
_MAX_DESCRIPTORS = 64
_END_SECONDS = 15.0
# No site packages and nothing from the working directory: standard library and this package only.
_PYTHON = (sys.executable, "-P", "-s", "-S", "-X", "utf8")
_LOST = "The supervisor of this sandbox died, and its processes with it."
_FAULTS: dict[str, type[RuntimeFault]] = {
    "frozen": SandboxFrozen,
    "freeze_failed": FreezeFailed,
    "not_executable": NotExecutable,
    "no_socket": RuntimeFault,
    "not_shown": VolumeLost,
}


class Link:
    """One running supervisor.

    ``exited(number, code)`` hears of every command that ends; ``lost()`` is called once when the
    supervisor is gone, whether it was told to go or not.
    """

    def __init__(
        self,
        mark: str,
        *,
        cgroups: bool,
        isolated: bool = False,
        exited: Callable[[int, int], None],
        lost: Callable[[], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._mark = mark
        self._exited = exited
        self._on_lost = lost
        self._waiting: dict[int, asyncio.Future[object]] = {}
        self._next = 0
        self._outgoing: deque[tuple[bytes, Sequence[int]]] = deque()
        self._incoming = b""
        self._received: list[int] = []
        self._open = True
        self._buried: asyncio.Future[None] | None = None
        self._sock, theirs = socket.socketpair()
        with theirs:
            self._process = _start(theirs, mark, cgroups=cgroups, isolated=isolated)
        self._sock.setblocking(False)
        self._loop.add_reader(self._sock, self._readable)

    @property
    def pid(self) -> int:
        """The supervisor's pid."""
        return self._process.pid

    @property
    def over(self) -> bool:
        """Whether the supervisor, and all that was its, is gone."""
        return self._buried is not None and self._buried.done()

    def tell(
        self, verb: str, descriptors: Sequence[int] = (), **what: object
    ) -> asyncio.Future[object]:
        """Send a request; its future gets the answer, or a `RuntimeFault`. Closes ``descriptors``.

        The answer is the descriptor, where one comes with it; whoever asked closes it.
        """
        self._next += 1
        answer: asyncio.Future[object] = self._loop.create_future()
        if not self._open:
            for descriptor in descriptors:
                os.close(descriptor)
            answer.set_exception(SupervisorLost(_LOST))
            answer.exception()
            return answer
        self._waiting[self._next] = answer
        line = json.dumps({"id": self._next, "do": verb, **what}).encode() + b"\n"
        self._outgoing.append((line, descriptors))
        self._pump()
        return answer

    def _pump(self) -> None:
        while self._outgoing:
            data, descriptors = self._outgoing.popleft()
            try:
                if descriptors:
                    sent = socket.send_fds(self._sock, [data], descriptors)
                else:
                    sent = self._sock.send(data)
            except BlockingIOError:
                self._outgoing.appendleft((data, descriptors))
                self._loop.add_writer(self._sock, self._pump)
                return
            except OSError:
                self._outgoing.appendleft((data, descriptors))
                self._lose()
                return
            for descriptor in descriptors:  # They go with the first byte.
                os.close(descriptor)
            if sent < len(data):
                self._outgoing.appendleft((data[sent:], ()))
        self._loop.remove_writer(self._sock)

    def _readable(self) -> None:
        try:
            data, received, _, _ = socket.recv_fds(self._sock, _READ, _MAX_DESCRIPTORS)
        except BlockingIOError:
            return
        except OSError:
            data, received = b"", []
        self._received += received
        if not data:
            self._lose()
            return
        *lines, self._incoming = (self._incoming + data).split(b"\n")
        for line in lines:
            self._heard(json.loads(line))

    def _heard(self, message: dict[str, object]) -> None:
        if "exited" in message:
            self._exited(cast(int, message["exited"]), cast(int, message["code"]))
            return
        answer = self._waiting.pop(cast(int, message["id"]))
        given = self._received.pop(0) if "given" in message else None
        if answer.done():
            # Whoever asked does not wait any more.
            if given is not None:
                os.close(given)
            return
        if "error" in message:
            answer.set_exception(_FAULTS[str(message["error"])](str(message["message"])))
        else:
            answer.set_result(message["ok"] if given is None else given)

    def _lose(self) -> None:
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._sock.close()
        for _, descriptors in self._outgoing:
            for descriptor in descriptors:
                os.close(descriptor)
        self._outgoing.clear()
        for descriptor in self._received:
            os.close(descriptor)
        self._received.clear()
        waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            if not answer.done():
                answer.set_exception(SupervisorLost(_LOST))
                answer.exception()  # Looked at, because not everybody who asks waits for the answer.
        self._buried = self._loop.run_in_executor(None, self._bury)
        self._on_lost()

    async def end(self) -> None:
        """Kill everything, the supervisor last, and wait until it is gone. Calling it again is harmless.

        Whatever a supervisor that died early has left is swept up by its mark (Linux).
        """
        self._lose()  # The end of its socket is its order to kill.
        assert self._buried is not None
        await asyncio.shield(self._buried)

    def _bury(self) -> None:
        try:
            clean = self._process.wait(_END_SECONDS) == 0
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            clean = False
        if not clean:
            sweep(self._mark)


def _start(
    theirs: socket.socket, mark: str, *, cgroups: bool, isolated: bool
) -> subprocess.Popen[bytes]:
    said = [str(theirs.fileno()), mark, "cgroup" if cgroups else "signals"]
    said += ["own"] if isolated else []
    return subprocess.Popen(
        [*_PYTHON, "-m", "edge.appliance.runtime.supervisor", *said],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(),),
        start_new_session=True,  # Ctrl-C is for the control plane, which then ends us in order.
        cwd="/",
        # Not the control plane's environment, which holds its secrets.
        env={"PATH": os.defpath, "PYTHONPATH": str(Path(edge.__file__).parent.parent)},
    )


def sweep(mark: str) -> None:
    """Kill what carries the mark of a sandbox whose supervisor is gone, and remove its cgroup. Blocks."""
    cgroup = Cgroup.find(mark)
    Freezer(mark, supervisor=None, cgroup=cgroup).kill_all()
    if cgroup is not None:
        cgroup.remove()
