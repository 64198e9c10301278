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

The wake itself is a task of the scope and belongs to none of its waiters: any of them may leave. It names
the incarnation that was seen paused (compare-and-resume), so that however many edges and retries there
are, one new incarnation comes of it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from math import inf

from edge.core.errors import (
    CONTROL_PLANE_UNAVAILABLE,
    EDGE_DRAINING,
    SANDBOX_ERROR,
    SANDBOX_NOT_FOUND,
    SANDBOX_NOT_READY,
    SANDBOX_PAUSED_AUTO_RESUME_DISABLED,
    SANDBOX_RESUME_FAILED,
    SANDBOX_RESUME_TIMEOUT,
    EdgeError,
    Problem,
    overloaded,
)
from edge.core.records import Missing, Record, SandboxRecord, State
from edge.core.reports import Observer, Role
from edge.core.settings import WakeSettings
from edge.state.port import RefusalReason, ResumeRefused, StatePort, Unavailable
from edge.wake.catalog import Catalog
from edge.wake.failures import Failures
from edge.wake.scope import Scope
from edge.wake.wake import Wake

BLIP = 3.0
"""Seconds, from its first failure on, during which a resume that found no control plane is tried again."""
FIRST_DELAY = 0.05
"""Seconds before the first repeated resume; doubled each time."""
LAST_DELAY = 0.5
"""Longest pause between two attempts, in seconds."""
LEAST_TIMEOUT = 0.05
"""With less than these seconds of the window left, no further resume is attempted."""
POLL = 1.0
"""Seconds after which a change that is waited for is asked for: its message may be lost."""
TELLING = 60.0
"""Seconds after which a wake is reported although the app has not begun to answer."""

REFUSALS = {
    RefusalReason.FAILED: SANDBOX_RESUME_FAILED,
    RefusalReason.TIMEOUT: SANDBOX_RESUME_TIMEOUT,
    RefusalReason.NOT_FOUND: SANDBOX_NOT_FOUND,
    RefusalReason.AUTO_RESUME_DISABLED: SANDBOX_PAUSED_AUTO_RESUME_DISABLED,
}
"""What our client is told when the control plane says no."""

GONE = {State.DESTROYED: SANDBOX_NOT_FOUND, State.ERROR: SANDBOX_ERROR}
"""What the waiters are told when the sandbox ends while it is being woken."""

_IN_BETWEEN = frozenset({State.PAUSING, State.RESUMING, State.CREATING})


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
        self._port = port
        self._catalog = catalog
        self._settings = settings
        self._spend_wake = spend_wake
        self._scope = scope
        self._clock = clock
        self._observer = observer
        self._random = rng or random.Random()
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
        late = SANDBOX_NOT_READY if record.state is State.CREATING else SANDBOX_RESUME_TIMEOUT
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
                case SandboxRecord() as known if known.state in _IN_BETWEEN:
                    if known.state is State.RESUMING:
                        role = _at_least_follower(role)
                    await self._wait_for_change(known)
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

    async def _wait_for_change(self, known: SandboxRecord) -> None:
        try:
            # `changed` subscribes before it compares versions: a change since our look is not missed.
            async with asyncio.timeout(POLL):
                await self._catalog.changed(known.id, known.version)
        except TimeoutError:
            await self._ask(known.id)

    async def _look_up(self, sandbox_id: str, missing: Missing) -> None:
        if missing is Missing.ABSENT:
            raise EdgeError(SANDBOX_NOT_FOUND)
        if missing is Missing.LOST or not await self._ask(sandbox_id):
            raise EdgeError(CONTROL_PLANE_UNAVAILABLE)

    async def _ask(self, sandbox_id: str) -> bool:
        try:
            await self._catalog.look_up_sandbox(sandbox_id)
        except Unavailable:
            return False
        return True

    # --- The wake ---------------------------------------------------------------------------------

    def _join(self, paused: SandboxRecord, grant_id: str, woken_by: str) -> tuple[Wake, bool]:
        """The wake to wait for, and whether it was begun by this."""
        if not paused.auto_resume:
            raise EdgeError(SANDBOX_PAUSED_AUTO_RESUME_DISABLED)
        wake = self._wakes.get(paused.id)
        if wake is not None:
            return wake, False
        problem = self._failures.recall(paused)
        if problem is not None:
            raise EdgeError(problem)
        if self._scope.closed:
            raise EdgeError(EDGE_DRAINING)
        if not self._spend_wake(grant_id):
            raise overloaded("wake.budget_per_hour")
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
            lambda t: self._end(wake, EDGE_DRAINING if t.cancelled() else SANDBOX_RESUME_FAILED)
        )
        return wake

    async def _run(self, wake: Wake) -> None:
        try:
            async with asyncio.timeout(self._settings.window):
                problem = await self._resume(wake)
        except TimeoutError:
            problem = SANDBOX_RESUME_TIMEOUT
        self._end(wake, problem)

    async def _resume(self, wake: Wake) -> Problem | None:
        """Ask until there is an answer; None when the record is worth reading again."""
        paused = wake.paused
        ends = wake.started + self._settings.window
        give_up, delay = inf, FIRST_DELAY
        while (left := ends - self._clock()) >= LEAST_TIMEOUT:
            try:
                answer = await self._port.resume(paused.id, paused.incarnation, "preview", left)
            except ResumeRefused as refused:
                return REFUSALS[refused.reason]
            except Unavailable:
                now = self._clock()
                give_up = min(give_up, now + BLIP)
            else:
                return await self._take(wake, answer)
            if ends - now < LEAST_TIMEOUT:
                break
            if now >= give_up or not wake.waiting:
                return CONTROL_PLANE_UNAVAILABLE
            # A resume that was carried out and whose answer was lost ends this wake by its change
            # (`_hear`), or by the next answer: repeating names the same incarnation.
            await asyncio.sleep(delay * self._random.uniform(0.5, 1.0))
            delay = min(LAST_DELAY, delay * 2)
            if wake.over.is_set():
                return None
        return SANDBOX_RESUME_TIMEOUT

    async def _take(self, wake: Wake, answer: SandboxRecord) -> Problem | None:
        """Put the answer into the catalog (which may end the wake, see `_hear`) and judge what is there."""
        paused = wake.paused
        if answer.id != paused.id:
            return SANDBOX_RESUME_FAILED
        self._catalog.apply(answer)
        # Somebody else's resume is under way: this wake is over when that is.
        while (
            isinstance(known := self._catalog.sandbox(paused.id), SandboxRecord)
            and known.state in _IN_BETWEEN
        ):
            await self._wait_for_change(known)
        if (
            isinstance(known, SandboxRecord)
            and known.state is State.PAUSED
            and known.incarnation <= paused.incarnation
        ):
            # Still paused where it was: to read the record again would be to ask again without end.
            return SANDBOX_RESUME_FAILED
        return None

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
