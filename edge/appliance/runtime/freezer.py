"""Stop a whole family of processes, let it go on, or end it: complete, whatever it forks meanwhile.

Freezing is one write where the sandbox has a cgroup. Elsewhere, and for whoever left the cgroup,
SIGSTOP goes to everybody found, and the scan is repeated until it finds nobody running, twice in a
row: once is not enough, because a scan can pass over a process that is born behind it by a parent
that is stopped ahead of it.

Parents are stopped before their children and go on after them. A shell that waits for its jobs
(``WUNTRACED``) would otherwise see them stop, and tell its user or act on it; and a parent in vfork(2)
does not stop before its child, were that stopped first, has gone on.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import cast

from edge.appliance.runtime.cgroup import Cgroup
from edge.appliance.runtime.processes import Process, children, look, members, scan

FREEZE_SECONDS = 5.0
KILL_SECONDS = 10.0
ORDER_SECONDS = 1.0
_STEP = 0.0005
"""Seconds between two scans; nobody tells when a process that is no child of ours has stopped."""

_CHASE = 200

Select = Callable[[], list[Process]]


class Freezer:
    """What can be done to the processes of one sandbox. Blocks; made for the supervisor.

    ``reap`` is called while waiting for processes to end, because orphans are the supervisor's to reap.
    """

    def __init__(
        self,
        mark: str,
        *,
        supervisor: int | None,
        cgroup: Cgroup | None = None,
        reap: Callable[[], None] = lambda: None,
    ) -> None:
        self._mark = mark
        self._supervisor = supervisor
        self._cgroup = cgroup
        self._reap = reap
        self._held: dict[int, int] = {}
        self.frozen = False

    def members(self) -> list[Process]:
        """The processes of the sandbox, parents before their children."""
        return members(scan(), self._supervisor, self._mark)

    def freeze(self) -> bool:
        """Stop everybody, or (False) nobody. Freezing the frozen is harmless."""
        if self.frozen:
            return True
        self.frozen = True  # From here on `_still` believes the cgroup.
        if not self._freeze_cgroup() or not self._stop():
            self.thaw()
            return False
        return True

    def _freeze_cgroup(self) -> bool:
        try:
            return self._cgroup is None or self._cgroup.freeze(FREEZE_SECONDS)
        except OSError:
            # A sandbox run by root can remove its cgroup, having left it; then signals must do.
            self._cgroup = None
            return True

    def thaw(self) -> None:
        """Let everybody go on, but for those who had been stopped before the freeze."""
        held, self._held = self._held, {}
        for process in reversed(self.members() if held else []):
            if held.get(process.pid) == process.started:
                _signal(process.pid, signal.SIGCONT)
        if self._cgroup is not None and self.frozen:
            try:
                self._cgroup.thaw()
            except OSError:
                pass  # It was removed, which needs it to be empty.
        self.frozen = False

    def _stop(self) -> bool:
        """Stop everybody until they stay still; notes in ``_held`` (pid, start) whom it stopped.

        For a while a child is left alone until its parent is still. After that everybody is stopped at
        once: a family that breeds faster than we scan has no order to keep.
        """
        began = time.monotonic()
        calm = 0
        orphans: frozenset[int] = frozenset()
        while calm < 2:
            before, orphans = orphans, self._chase()
            running = [process for process in self.members() if not self._still(process)]
            now = time.monotonic()
            first = {process.pid for process in running} if now < began + ORDER_SECONDS else set()
            for process in running:
                if process.parent not in first:
                    self._hold(process)
            calm = calm + 1 if not running and orphans == before else 0
            if calm == 0:
                if now > began + FREEZE_SECONDS:
                    return False
                time.sleep(_STEP)
        return True

    def _chase(self) -> frozenset[int]:
        """Stop the orphans that came to us, as fast as they come; gives all of them, the dead included.

        A family whose every member forks and dies at once is gone from where a scan looks for it. But
        its dead are ours to reap, and nobody reaps meanwhile: as long as their number grows it lives.
        """
        seen: frozenset[int] = frozenset()
        dead: set[int] = set()
        for _ in range(_CHASE if self._supervisor is not None else 0):
            now = children(cast(int, self._supervisor))
            rows = [row for pid in now - dead if (row := look(pid)) is not None]
            dead |= {row.pid for row in rows if row.dead}
            running = [row for row in rows if not self._still(row)]
            for process in running:
                self._hold(process)
            if not running and now == seen:
                break
            seen = now
        return seen

    def _hold(self, process: Process) -> None:
        self._held[process.pid] = process.started
        _signal(process.pid, signal.SIGSTOP)

    def _still(self, process: Process) -> bool:
        if process.stopped:
            return True
        # A process in a frozen cgroup shows as sleeping; the cgroup has said that it is frozen.
        return self.frozen and self._cgroup is not None and self._cgroup.holds(process.pid)

    def kill(self, select: Select) -> bool:
        """Kill what ``select`` finds and wait until it is gone; False if some would not go.

        All is frozen meanwhile: a family cannot grow while it dies, and who belongs to it only by a
        parent is found before that dies. What cannot be frozen is killed as it is found.
        """
        deadline = time.monotonic() + KILL_SECONDS
        thaw = not self.frozen
        self.freeze()
        try:
            while True:
                victims = {one.pid: one.started for one in select() if not one.dead}
                if not victims:
                    return True
                for pid in victims:
                    _signal(pid, signal.SIGKILL)
                if not self._gone(victims, deadline) or time.monotonic() > deadline:
                    return False
        finally:
            if thaw:
                self.thaw()

    def kill_all(self) -> bool:
        """Kill every process of the sandbox; see `kill`."""
        if self._cgroup is not None:
            self._cgroup.kill()
        self._reap()
        return self.kill(self.members)

    def _gone(self, victims: dict[int, int], deadline: float) -> bool:
        while True:
            self._reap()
            table = scan()
            left = [
                process
                for pid, started in victims.items()
                if (process := table.get(pid)) is not None and process.started == started
            ]
            if all(process.dead for process in left):
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(_STEP)


def _signal(pid: int, number: signal.Signals) -> None:
    # Between the scan and this call a pid cannot come back as somebody else's: pids are given out in
    # turn, and a whole turn takes seconds.
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass
    except PermissionError:
        pass  # A set-user-id program: not ours to signal (`_stop` will report that it runs on).
