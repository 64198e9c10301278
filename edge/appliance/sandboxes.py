"""What can be done with sandboxes: the door to their states for handlers and edges.

Every transition of a sandbox runs under its lock and in the server's scope, so that transitions never
overlap and a caller who leaves disturbs nobody. Whoever waited for the lock looks at the state again:
of any number of concurrent resumes the first one does it, the others find it done.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, TypeVar

from edge.appliance.barrier import Edges
from edge.appliance.events import EventLog, Operation, Status
from edge.appliance.executions import Executions
from edge.appliance.expiry import Expiry
from edge.appliance.feed import Feed
from edge.appliance.lifecycle import Event, published
from edge.appliance.problems import (
    AUTO_RESUME_DISABLED,
    QUOTA_EXCEEDED,
    RESUME_FAILED,
    RESUME_TIMEOUT,
    RUNTIME_LOST,
    SANDBOX_NOT_FOUND,
    SANDBOX_NOT_READY,
    SNAPSHOT_IN_USE,
    SNAPSHOT_NOT_FOUND,
    VOLUME_UNAVAILABLE,
    ApiError,
    invalid,
)
from edge.appliance.reconcile import reconcile
from edge.appliance.registry import Registry
from edge.appliance.requests import SetTimeout, TimeoutAction
from edge.appliance.sandbox import API, MANUAL, Cause, Plan, Sandbox, Setup, Snapshot
from edge.appliance.store import Store
from edge.appliance.tasks import Scope
from edge.appliance.transitions import Transitions
from edge.core.records import SandboxRecord, State

T = TypeVar("T")

IMPLICIT_RESUME = 25.0
"""Seconds an exec or file call may wait for a resume; clients give up after 30."""


EMPTY = Setup()


def _nothing(_: Sandbox) -> None:
    """Nothing else has to be kept."""


def new_id() -> str:
    """An id that no sandbox has."""
    return f"sb_{secrets.token_hex(8)}"


class Sandboxes:
    """All sandboxes. ``wall`` is Unix time in seconds; timeouts run by the running loop's clock.

    ``log`` hears of what runtime or store could not do, ``on_forgotten`` of ids that nobody may name any
    more. Raises `StoreError`, as does everything that changes what the store has to keep.
    """

    def __init__(
        self,
        runtime: Executions,
        store: Store,
        *,
        feed: Feed,
        edges: Edges,
        events: EventLog,
        scope: Scope,
        wall: Callable[[], float],
        log: Callable[..., None],
        on_forgotten: Callable[[str], None],
    ) -> None:
        self._runtime = runtime
        self._scope = scope
        self._store = store
        self._feed = feed
        self._events = events
        self._wall = wall
        self._clock = asyncio.get_running_loop().time
        self._registry = Registry(store, on_forgotten)
        self._transitions = Transitions(
            runtime,
            self._registry,
            feed=feed,
            events=events,
            wall=wall,
            clock=self._clock,
            log=log,
        )
        self._expiry = Expiry(
            self._registry, self._transitions, edges=edges, scope=scope, clock=self._clock
        )
        self._created = self._registry.last_number

    def reconcile(self, floor: int) -> list[Sandbox]:
        """Once, at the start: see ``reconcile.py``."""
        return reconcile(self._registry, self._transitions, self._events, self._store, floor=floor)

    # --- Reading: never wakes ------------------------------------------------------------------------

    def get(self, sandbox_id: str) -> Sandbox:
        """A sandbox that is not destroyed. Raises `ApiError` (sandbox_not_found)."""
        return self._registry.get(sandbox_id)

    def known(self, sandbox_id: str) -> bool:
        """Whether there is or (as far as remembered) was a sandbox of this id."""
        return self._registry.find(sandbox_id) is not None

    def record(self, sandbox_id: str) -> SandboxRecord | None:
        """What edges see; destroyed sandboxes have a record too."""
        sandbox = self._registry.find(sandbox_id)
        return sandbox.record() if sandbox is not None else None

    def records(self) -> list[SandboxRecord]:
        """All records that edges may ask for."""
        return [sandbox.record() for sandbox in self._registry.all()]

    def snapshots(self) -> list[tuple[Sandbox, Snapshot]]:
        """All snapshots of pauses that are remembered, with their sandboxes."""
        return self._registry.snapshots()

    def of_snapshot(self, snapshot_id: str) -> Sandbox:
        """The sandbox of a pause's snapshot. Raises `ApiError` (snapshot_not_found)."""
        return self._registry.of_snapshot(snapshot_id)

    def living(self) -> list[Sandbox]:
        """All that are not destroyed, oldest first."""
        return self._registry.living()

    # --- Changing: what was begun is finished although its caller leaves -----------------------------

    async def create(
        self,
        plan: Plan,
        *,
        envs: dict[str, str],
        cwd: str | None,
        timeout_ms: int,
        timeout_action: TimeoutAction,
        place: str | None = None,
        kept: Callable[[Sandbox], None] = _nothing,
        setup: Setup = EMPTY,
    ) -> Sandbox:
        """A new sandbox, running. ``kept`` is called with it, once, to write to the store what has to be
        there together with the sandbox or not at all.

        ``place``: an id whose place in the runtime is made already (by a warm pool) and now is this
        sandbox's. It is taken over before anything is awaited.

        Raises `ApiError` (create_failed, invalid_request; see `Transitions.start`).
        """
        self._created += 1
        sandbox = Sandbox(
            id=place or new_id(),
            number=self._created,
            plan=plan,
            created_at=self._wall(),
            timeout_ms=timeout_ms,
            timeout_action=timeout_action,
            previews_disabled=setup.previews_disabled,
            attachments=list(setup.attachments),
            ports={} if self._runtime.isolated else None,
        )
        self._registry.add(sandbox)
        self._feed.publish(sandbox.record())

        async def start() -> None:
            async with sandbox.lock:
                made = place is not None
                await self._transitions.start(sandbox, envs, cwd, kept, setup, made=made)

        await self._scope.shared(start(), name=f"create {sandbox.id}")
        return sandbox

    async def pause(self, sandbox: Sandbox, cause: Cause = API) -> Snapshot:
        """Freeze it now, whatever is in flight; a paused one stays as it is.

        Raises `ApiError` (pause_failed, sandbox_not_ready, sandbox_not_found).
        """

        async def pause() -> Snapshot:
            async with sandbox.lock:
                if sandbox.state is State.PAUSED and sandbox.snapshot is not None:
                    return sandbox.snapshot
                _require_running(sandbox)
                self._transitions.move(sandbox, Event.PAUSE)
                return await self._transitions.freeze(sandbox, cause)

        return await self._scope.shared(pause(), name=f"pause {sandbox.id}")

    async def resume(
        self, snapshot_id: str, cause: Cause = API, seen: Callable[[Sandbox], None] = _nothing
    ) -> Sandbox:
        """The sandbox of this snapshot, running again; one that runs already stays as it is.

        ``seen`` is called with it while it surely runs: whoever is next for the lock may pause or destroy it
        before our caller has its turn. Raises `ApiError` (snapshot_not_found, resume_failed, sandbox_not_ready).
        """
        sandbox = self._registry.of_snapshot(snapshot_id)

        async def resume() -> None:
            async with sandbox.lock:
                if not sandbox.alive:
                    raise ApiError(SNAPSHOT_NOT_FOUND)
                if sandbox.state is State.PAUSED:
                    await self._transitions.thaw(sandbox, cause)
                _require_running(sandbox)
                seen(sandbox)

        await self._scope.shared(resume(), name=f"resume {sandbox.id}")
        return sandbox

    async def wake(
        self, sandbox_id: str, *, paused_incarnation: int, cause: Cause, timeout: float
    ) -> SandboxRecord | None:
        """Compare-and-resume for edges; None for a sandbox there never was.

        ``timeout`` is in seconds. Raises `ApiError` (auto_resume_disabled, resume_failed,
        resume_timeout).
        """
        sandbox = self._registry.find(sandbox_id)
        if sandbox is None:
            return None

        async def wake() -> None:
            async with sandbox.lock:
                if sandbox.state is not State.PAUSED or sandbox.incarnation != paused_incarnation:
                    return
                if not sandbox.plan.auto_resume:
                    raise ApiError(AUTO_RESUME_DISABLED)
                try:
                    await self._transitions.thaw(sandbox, cause)
                except ApiError as e:
                    if e.problem is VOLUME_UNAVAILABLE:
                        # Edges know that a resume may fail, and not the many reasons.
                        raise ApiError(RESUME_FAILED, e.message) from e
                    raise

        try:
            async with asyncio.timeout(timeout):
                await self._scope.shared(wake(), name=f"wake {sandbox.id}")
        except TimeoutError:
            raise ApiError(RESUME_TIMEOUT) from None
        return sandbox.record()

    @asynccontextmanager
    async def use(self, sandbox_id: str, *, reading: bool = False) -> AsyncIterator[Sandbox]:
        """The sandbox, running, and kept from pausing for inactivity while in here.

        Resumes a paused one that resumes by itself. For ``reading`` its files, one in error will do: they
        are what is left of it. Raises `ApiError` (sandbox_not_found, sandbox_not_ready, resume_failed,
        resume_timeout).
        """
        sandbox = self._registry.get(sandbox_id)
        # Counted before the state is looked at: a pause that is just being decided sees it.
        sandbox.calls += 1
        try:
            left = reading and sandbox.state is State.ERROR
            if sandbox.state is not State.RUNNING and not left:
                await self._awake(sandbox)
            yield sandbox
        except ApiError as e:
            if e.problem is RUNTIME_LOST and not sandbox.alive:
                # Its supervisor was ended before the call came to an end: there is nothing to try again.
                raise ApiError(SANDBOX_NOT_FOUND) from None
            raise
        finally:
            sandbox.calls -= 1
            self.touch(sandbox.id)
            self._expiry.arm(sandbox)

    async def destroy(self, sandbox: Sandbox, cause: Cause = MANUAL) -> None:
        """End it. Raises `ApiError` (sandbox_not_found) when somebody else was first."""

        async def destroy() -> None:
            async with sandbox.lock:
                if not sandbox.alive:
                    raise ApiError(SANDBOX_NOT_FOUND)
                await self._transitions.destroy(sandbox, cause)

        await self._scope.shared(destroy(), name=f"destroy {sandbox.id}")

    async def exclusively(
        self, sandbox: Sandbox, work: Callable[[], Awaitable[T]], *, name: str
    ) -> T:
        """What ``work`` gives, while no transition of the sandbox is under way.

        Raises `ApiError` (sandbox_not_found).
        """

        async def run() -> T:
            async with sandbox.lock:
                if not sandbox.alive:
                    raise ApiError(SANDBOX_NOT_FOUND)
                return await work()

        return await self._scope.shared(run(), name=f"{name} {sandbox.id}")

    def keeping(self, sandbox: Sandbox) -> AbstractContextManager[None]:
        """What is changed in here is written, or (`StoreError`) not changed; edges do not see it."""
        return self._transitions.keeping(sandbox)

    def emit(self, sandbox: Sandbox, operation: Operation, status: Status, **more: Any) -> None:
        """A lifecycle event of what the API was asked for; ``more`` as in `EventLog.emit`."""
        self._transitions.emit(sandbox, operation, status, API, **more)

    def before_resume(self, check: Callable[[Sandbox], Awaitable[None]]) -> None:
        """``check`` has to succeed before any sandbox runs on; it raises `ApiError` where it must not."""
        self._transitions.before_thaw = check

    def forget_snapshot(self, snapshot_id: str) -> None:
        """Raises `ApiError` (snapshot_not_found, snapshot_in_use)."""
        sandbox = self._registry.of_snapshot(snapshot_id)
        current = sandbox.snapshot is not None and sandbox.snapshot.id == snapshot_id
        if current and sandbox.state in (State.PAUSED, State.RESUMING):
            raise ApiError(SNAPSHOT_IN_USE)
        self._registry.forget(snapshot_id)

    def set_timeout(self, sandbox: Sandbox, wanted: SetTimeout) -> None:
        """Start the timeout anew (for a paused sandbox: with its next resume).

        Raises `ApiError` (invalid_request).
        """
        runs = sandbox.state in (State.RUNNING, State.PAUSING)
        action = wanted.timeout_action or sandbox.timeout_action
        if action == "destroy" and sandbox.plan.auto_resume:
            raise invalid("timeout_action: a sandbox with auto_resume cannot be set to destroy")
        told: dict[str, object] = {"timeout_ms": wanted.timeout_ms, "timeout_action": action}
        with self._transitions.keeping(sandbox):
            sandbox.timeout_ms = wanted.timeout_ms
            sandbox.timeout_action = action
            if runs:
                self._transitions.wind(sandbox)
        for status in (Status.REQUESTED, Status.SUCCEEDED):
            self._transitions.emit(sandbox, Operation.TIMEOUT_UPDATED, status, API, metadata=told)
        if runs:
            self._expiry.arm(sandbox)

    def reach(self, sandbox_id: str, port: int) -> None:
        """See to it that edges can reach this port of a sandbox; edges are told before we return.

        Raises `ApiError` (sandbox_not_found, sandbox_not_ready, quota_exceeded).
        """
        sandbox = self._registry.get(sandbox_id)
        if sandbox.ports is None or port in sandbox.ports:
            return
        if sandbox.state is State.CREATING:
            raise ApiError(SANDBOX_NOT_READY, details={"status": published(sandbox.state)})
        try:
            outside = self._runtime.publish(sandbox_id, port)
        except OSError as e:
            raise ApiError(QUOTA_EXCEEDED, "This machine has no port left to reach it by.") from e
        with self._transitions.changing(sandbox):
            sandbox.ports[port] = outside

    def switch_previews(self, sandbox: Sandbox, *, disabled: bool) -> bool:
        """Shut all its previews, or open them again; False when that was so already.

        Not under the lock: it changes no state, and an operator does not wait for a resume to end.
        """
        if sandbox.previews_disabled is disabled:
            return False
        with self._transitions.changing(sandbox):
            sandbox.previews_disabled = disabled
        return True

    def touch(self, sandbox_id: str) -> None:
        """There was activity: the inactivity timeout starts anew."""
        sandbox = self._registry.find(sandbox_id)
        if sandbox is not None:
            sandbox.last_activity = self._clock()

    def close(self) -> None:
        """Nothing is due any more. The runtime ends the processes."""
        self._expiry.close()

    async def _awake(self, sandbox: Sandbox) -> None:
        async def awake() -> None:
            async with sandbox.lock:
                if sandbox.state is State.PAUSED and sandbox.plan.auto_resume:
                    await self._transitions.thaw(sandbox, API)
                _require_running(sandbox)

        try:
            async with asyncio.timeout(IMPLICIT_RESUME):
                await self._scope.shared(awake(), name=f"resume {sandbox.id}")
        except TimeoutError:
            raise ApiError(RESUME_TIMEOUT) from None


def _require_running(sandbox: Sandbox) -> None:
    """Raises `ApiError` (sandbox_not_found, sandbox_not_ready)."""
    if sandbox.state is State.RUNNING:
        return
    if not sandbox.alive:
        raise ApiError(SANDBOX_NOT_FOUND)
    raise ApiError(SANDBOX_NOT_READY, details={"status": published(sandbox.state)})
