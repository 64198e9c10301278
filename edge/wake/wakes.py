"""Waking sandboxes: one resume for all who wait, inside a bounded window.

`Wakes.settle` is a loop around one question, "what is the record now?". Every wait in it is *subscribe,
re-check, wait*, and what a wait returns is never believed: the loop reads the catalog again.

==================== ================================================================================
record               what settling it means
==================== ================================================================================
running, gone, error nothing: the caller decides again
paused               join the sandbox's wake, or begin it (auto_resume off: refused at once); after a wait
                     nothing is begun: the caller decides again whether it still may
pausing, resuming    wait for the record to change
creating             the same; past the deadline it is ``sandbox_not_ready``
unknown              look it up
==================== ================================================================================

The wake itself is a task of the scope and belongs to none of its waiters: any of them may leave. What it
asks of the control plane is `edge.wake.resumes`'s business.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from edge.core import errors
from edge.core.errors import EdgeError, Problem
from edge.core.records import IN_BETWEEN, Missing, Record, SandboxRecord, State
from edge.core.reports import Observer, Role
from edge.core.settings import WakeSettings
from edge.state.port import StatePort, Unavailable
from edge.wake.catalog import Catalog
from edge.wake.failures import Failures
from edge.wake.resumes import Resumes
from edge.wake.scope import Scope
from edge.wake.wake import Wake

TELLING = 60.0
"""Seconds after which a wake is reported although the app has not begun to answer."""

GONE = {State.DESTROYED: errors.SANDBOX_NOT_FOUND, State.ERROR: errors.SANDBOX_ERROR}
"""What the waiters are told when the sandbox ends while it is being woken."""


class Wakes:
    """The wakes of one edge.

    ``spend_wake(grant_id)`` is asked once per resume that is begun, for the grant that begins it; False
    means its budget is spent. ``clock`` gives monotonic seconds.
    """

    def __init__(
        self,
        port: StatePort,
        catalog: Catalog,
        settings: WakeSettings,
        *,
        spend_wake: Callable[[str], bool],
        scope: Scope,
        clock: Callable[[], float],
        observer: Observer,
        rng: random.Random | None = None,
    ) -> None:
        self._catalog = catalog
        self._spend_wake = spend_wake
        self._scope = scope
        self._clock = clock
        self._observer = observer
        self._resumes = Resumes(port, catalog, window=settings.window, clock=clock, rng=rng)
        self._settling = 0
        self._wakes: dict[str, Wake] = {}  # under way
        self._told: dict[str, Wake] = {}  # not yet reported
        self._failures = Failures(settings.failure_memory, clock)
        catalog.listen(self._hear)

    def current(self, sandbox_id: str) -> Wake | None:
        """The wake of this sandbox whose phases are still being told."""
        return self._told.get(sandbox_id)

    def waiting(self) -> int:
        """How many exchanges wait in `settle`."""
        return self._settling

    # --- Waiting ----------------------------------------------------------------------------------

    async def settle(
        self, record: SandboxRecord, *, grant_id: str, woken_by: str, deadline: float
    ) -> Role:
        """Wait until the sandbox's record is worth deciding on again, waking it where it is paused.

        ``deadline`` is in clock seconds, ``woken_by`` method and path for the report. Raises `EdgeError`:
        sandbox_resume_timeout, sandbox_resume_failed, control_plane_unavailable,
        sandbox_paused_auto_resume_disabled, preview_overloaded (the grant's wakes are spent),
        sandbox_not_found, sandbox_error, sandbox_not_ready, edge_draining.
        """
        creating = record.state is State.CREATING
        late = errors.SANDBOX_NOT_READY if creating else errors.SANDBOX_RESUME_TIMEOUT
        self._settling += 1
        try:
            async with asyncio.timeout(deadline - self._clock()):
                return await self._settle(record.id, grant_id, woken_by)
        except TimeoutError:
            raise EdgeError(late) from None
        finally:
            self._settling -= 1

    async def _settle(self, sandbox_id: str, grant_id: str, woken_by: str) -> Role:
        role, waited = Role.NONE, False
        while True:
            # Read, not taken from the caller: it decided a while ago.
            match self._catalog.sandbox(sandbox_id):
                case SandboxRecord(state=State.PAUSED) if waited and sandbox_id not in self._wakes:
                    # Its right to begin a wake may have ended meanwhile: that is decided anew first.
                    return role
                case SandboxRecord(state=State.PAUSED) as paused:
                    wake, leads = self._join(paused, grant_id, woken_by)
                    role = Role.LEADER if leads else _at_least_follower(role)
                    await self._wait_for(wake)
                case SandboxRecord() as known if known.state in IN_BETWEEN:
                    if known.state is State.RESUMING:
                        role = _at_least_follower(role)
                    await self._catalog.changes_from(known)
                case SandboxRecord():
                    return role
                case missing:
                    await self._look_up(sandbox_id, missing)
            waited = True

    async def _wait_for(self, wake: Wake) -> None:
        wake.waiting += 1
        wake.joined += 1
        try:
            # Nothing to re-check: we came from `_join` without an await, so the wake is not over.
            await wake.over.wait()
        finally:
            wake.waiting -= 1
        if wake.problem is not None:
            raise EdgeError(wake.problem)

    async def _look_up(self, sandbox_id: str, missing: Missing) -> None:
        if missing is Missing.ABSENT:
            raise EdgeError(errors.SANDBOX_NOT_FOUND)
        if missing is Missing.LOST:
            raise EdgeError(errors.CONTROL_PLANE_UNAVAILABLE)
        try:
            await self._catalog.look_up_sandbox(sandbox_id)
        except Unavailable:
            raise EdgeError(errors.CONTROL_PLANE_UNAVAILABLE) from None

    # --- The wake ---------------------------------------------------------------------------------

    def _join(self, paused: SandboxRecord, grant_id: str, woken_by: str) -> tuple[Wake, bool]:
        """The wake to wait for, and whether it was begun by this."""
        if not paused.auto_resume:
            raise EdgeError(errors.SANDBOX_PAUSED_AUTO_RESUME_DISABLED)
        wake = self._wakes.get(paused.id)
        if wake is not None:
            return wake, False
        problem = self._failures.recall(paused)
        if problem is not None:
            raise EdgeError(problem)
        if self._scope.closed:
            raise EdgeError(errors.EDGE_DRAINING)
        if not self._spend_wake(grant_id):
            raise errors.overloaded("wake.budget_per_hour")
        return self._begin(paused, woken_by), True

    def _begin(self, paused: SandboxRecord, woken_by: str) -> Wake:
        if (untold := self._told.get(paused.id)) is not None:
            self._tell(untold)
        wake = Wake(paused, self._clock(), woken_by, self._tell)
        self._wakes[paused.id] = self._told[paused.id] = wake
        task = self._scope.spawn(self._run(wake), name=f"wake {paused.id}")
        # A callback and not a finally: a task cancelled before its first step never enters its body,
        # and a crash in it must not leave anybody waiting. `_end` ignores a wake that is over.
        task.add_done_callback(
            lambda t: self._end(
                wake, errors.EDGE_DRAINING if t.cancelled() else errors.SANDBOX_RESUME_FAILED
            )
        )
        return wake

    async def _run(self, wake: Wake) -> None:
        self._end(wake, await self._resumes.carry_out(wake))

    def _hear(self, record: Record) -> None:
        """A newer record ends the wake as soon as it is worth deciding on, answer or no answer."""
        if not isinstance(record, SandboxRecord):
            return
        wake = self._wakes.get(record.id)
        if wake is None or record.version <= wake.paused.version:
            return
        moved_on = record.incarnation != wake.paused.incarnation
        if record.state in GONE:
            self._end(wake, GONE[record.state])
        elif record.state is State.RUNNING or (record.state is State.PAUSED and moved_on):
            self._end(wake, None)

    def _end(self, wake: Wake, problem: Problem | None) -> None:
        """Let every waiter go, in this very loop iteration, with one outcome."""
        if wake.over.is_set():
            return
        if self._wakes.get(wake.paused.id) is wake:
            del self._wakes[wake.paused.id]
        wake.over.set()
        if problem is None:
            wake.resumed_at = self._clock()
            asyncio.get_running_loop().call_later(TELLING, self._tell, wake)
        else:
            wake.problem, wake.outcome = problem, problem.code
            self._failures.remember(wake.paused, problem)
            self._tell(wake)

    def _tell(self, wake: Wake) -> None:
        if self._told.get(wake.paused.id) is wake:
            del self._told[wake.paused.id]
            self._observer.wake(wake.report())


def _at_least_follower(role: Role) -> Role:
    return Role.FOLLOWER if role is Role.NONE else role
