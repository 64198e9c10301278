"""The supervisor of one sandbox: ``python -m edge.appliance.runtime.supervisor SOCKET MARK FREEZER [own]``.

SOCKET is the number of an inherited, connected Unix stream socket, MARK the sandbox's mark, FREEZER
``cgroup`` or ``signals``; ``own``: with a network of its own (``namespace.py``), or not at all. Standard library only, one
thread, no buffering of anybody's output: the pipes of a command come as descriptors with the request, and end at the control
plane.

Requests and answers are lines of JSON. Every request has an ``id``, its answer has the same one and
either ``ok`` or ``error`` (with ``message``). The requests (``do``):

========= ============================================================================================
spawn     ``argv, env, number``, with four descriptors: working directory, stdin, stdout, stderr; ``cwd``: its path, if it
          is to be entered as it is seen in here; first as ``show``, if there are ``shown``. ok: pid
show      ``shown``: pairs of directories, each to be seen read-only at the other (``readonly.py``). ok: true
freeze    ok: true, once every process of the sandbox is still
thaw      ok: true
kill      ``number`` of a command, ``pid`` (0: unknown): it and all it started. ok: whether there was anything to kill
kill_all  ok: true once nobody is left
memory    ok: resident bytes of all processes
cpu       ok: seconds of processor time that all processes have used so far, those that have ended included
socket    ``family``. ok: true, with one descriptor: an unconnected TCP socket, made in the sandbox's network
table     ok: true, with one descriptor: a socket that tells who listens in there (``namespace.py``)
========= ============================================================================================

An answer that comes with a descriptor has ``given: 1``. Unasked, ``{"exited": number, "code": n}`` tells that a command has ended.

When the other end of the socket closes, however that came about, everything is killed. The same
happens on SIGTERM, which the kernel also sends if the control plane dies (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Sequence

from edge.appliance.runtime.birth import Births, NotBorn
from edge.appliance.runtime.cgroup import Cgroup
from edge.appliance.runtime.freezer import Freezer
from edge.appliance.runtime.namespace import NoNamespace, enter, table
from edge.appliance.runtime.processes import MARK, Process, of_command
from edge.appliance.runtime.readonly import show

_READ = 1 << 16
_MAX_DESCRIPTORS = 64

Request = dict[str, object]


LEAST_MEMORY = 4096
"""Bytes that any process holds."""


class Refused(Exception):
    """The request cannot be met; ``error`` names why in one word, the text says it."""

    def __init__(self, error: str, message: str) -> None:
        super().__init__(message)
        self.error = error


class Supervisor:
    """The loop and its state: the commands that run, by pid, each with its number."""

    def __init__(
        self, sock: socket.socket, mark: str, cgroup: Cgroup | None, *, own: bool = False
    ) -> None:
        self._sock = sock
        self._mark = mark
        self._cgroup = cgroup
        self._births = Births(cgroup, own=own)
        self._running: dict[int, int] = {}
        self._descriptors: list[int] = []
        self._given: list[socket.socket] = []
        self._freezer = Freezer(mark, supervisor=os.getpid(), cgroup=cgroup, reap=self._reap)
        self._ending = False
        self._verbs: dict[str, Callable[[Request], object]] = {
            "spawn": self._spawn,
            "show": self._show,
            "freeze": self._freeze,
            "thaw": self._thaw,
            "kill": self._kill,
            "kill_all": self._kill_all,
            "memory": self._memory,
            "cpu": self._cpu,
            "socket": self._socket,
            "table": self._table,
        }

    def run(self) -> bool:
        """Serve until the control plane is gone, then end everything; whether that was complete."""
        wakeup, woken = os.pipe()
        for end in (wakeup, woken):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
        # Handlers, not SIG_IGN: what is ignored here would be ignored in the sandbox's processes too.
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGTERM, self._end)
        self._births.adopt()
        try:
            self._serve(wakeup)
        finally:
            complete = self._freezer.kill_all()
            if self._cgroup is not None:
                self._cgroup.remove()
        return complete

    def _end(self, *_: object) -> None:
        self._ending = True

    def _serve(self, wakeup: int) -> None:
        pending = b""
        own = self._sock.fileno()
        while not self._ending:
            ready, _, _ = select.select([own, wakeup], [], [])
            if wakeup in ready:
                os.read(wakeup, 4096)
                self._reap()
            if own in ready:
                try:
                    data, received, _, _ = socket.recv_fds(self._sock, _READ, _MAX_DESCRIPTORS)
                except ConnectionError:
                    return
                if not data:
                    return
                self._descriptors += received
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    self._answer(json.loads(line))

    def _answer(self, request: Request) -> None:
        reply: dict[str, object] = {"id": request["id"]}
        try:
            reply["ok"] = self._verbs[str(request["do"])](request)
        except Refused as refusal:
            reply |= {"error": refusal.error, "message": str(refusal)}
        given, self._given = self._given, []
        if given:
            reply["given"] = len(given)
        self._tell(reply, given)
        for sock in given:
            sock.close()

    def _tell(self, message: dict[str, object], given: Sequence[socket.socket] = ()) -> None:
        data = json.dumps(message).encode() + b"\n"
        try:
            if given:  # They go with the first byte.
                data = data[socket.send_fds(self._sock, [data], [one.fileno() for one in given]) :]
            self._sock.sendall(data)
        except OSError:
            self._ending = True  # The control plane is gone.

    def _spawn(self, request: Request) -> int:
        given, self._descriptors = self._descriptors[:4], self._descriptors[4:]
        try:
            if self._freezer.frozen:
                # A child would freeze on its way into the cgroup, and we would wait for it.
                raise Refused("frozen", "The sandbox is frozen.")
            self._show(request)
            return self._start(request, given)
        finally:
            for descriptor in given:
                os.close(descriptor)

    def _start(self, request: Request, descriptors: Sequence[int]) -> int:
        argv, env, number = request["argv"], request["env"], request["number"]
        seen = request.get("cwd")
        assert isinstance(argv, list) and isinstance(env, dict) and isinstance(number, int)
        assert seen is None or isinstance(seen, str)
        marked = {**env, MARK: f"{self._mark}.{number}"}
        try:
            pid = self._births.start(argv, marked, descriptors, seen)
        except NotBorn as error:
            raise Refused("not_executable", str(error)) from None
        self._running[pid] = number
        return pid

    def _show(self, request: Request) -> bool:
        shown = request.get("shown", ())
        assert isinstance(shown, list | tuple)
        for directory, at in shown:
            try:
                show(directory, at)
            except OSError as error:
                text = f"A volume cannot be mounted read-only: {error.strerror}."
                raise Refused("not_shown", text) from None
        return True

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self._running.pop(pid, None)
            if number is not None:
                code = os.waitstatus_to_exitcode(status)
                self._tell({"exited": number, "code": code if code >= 0 else 128 - code})

    def _freeze(self, _: Request) -> bool:
        if not self._freezer.freeze():
            raise Refused("freeze_failed", "Not every process of the sandbox could be stopped.")
        return True

    def _thaw(self, _: Request) -> bool:
        self._freezer.thaw()
        return True

    def _kill(self, request: Request) -> bool:
        pid, number = request["pid"], request["number"]
        assert isinstance(pid, int) and isinstance(number, int)
        mark = f"{self._mark}.{number}"

        def select() -> list[Process]:
            leader = next((one for one, its in self._running.items() if its == number), None)
            return of_command(self._freezer.members(), leader, pid, mark)

        found = any(not process.dead for process in select())
        return self._freezer.kill(select) and found

    def _kill_all(self, _: Request) -> bool:
        return self._freezer.kill_all()

    def _memory(self, _: Request) -> int:
        # The kernel's counts lag behind and may be 0 for a small process, which still holds a page at least.
        living = (process for process in self._freezer.members() if not process.dead)
        return sum(max(process.memory, LEAST_MEMORY) for process in living)

    def _cpu(self, _: Request) -> float:
        # Whoever is reaped leaves its time to its parent, and orphans are ours: nothing is lost, or counted twice.
        reaped = os.times()
        ticks = sum(process.ticks for process in self._freezer.members())
        return reaped.children_user + reaped.children_system + ticks / os.sysconf("SC_CLK_TCK")

    def _socket(self, request: Request) -> bool:
        family = request["family"]
        assert isinstance(family, int)
        try:
            self._given.append(socket.socket(family, socket.SOCK_STREAM))
        except OSError as error:
            raise Refused("no_socket", f"There is no such socket: {error.strerror}.") from None
        return True

    def _table(self, _: Request) -> bool:
        try:
            self._given.append(table())
        except OSError as error:
            raise Refused("no_socket", f"There is no such socket: {error.strerror}.") from None
        return True


def main() -> None:
    """Take over the socket named on the command line, and serve it."""
    descriptor, mark, freezer, *network = sys.argv[1:]
    sock = socket.socket(fileno=int(descriptor))
    sock.set_inheritable(False)
    if network == ["own"]:
        try:
            enter()
        except NoNamespace as e:
            sys.exit(f"no network of its own: {e}")  # Nothing starts in the wrong one.
    cgroup = Cgroup.make(mark) if freezer == "cgroup" else None
    if not Supervisor(sock, mark, cgroup, own=network == ["own"]).run():
        sys.exit(1)  # The control plane, if it still lives, sweeps up.


if __name__ == "__main__":
    main()
