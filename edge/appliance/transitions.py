"""The transitions themselves: runtime, state, record and events change together here.

Call them with the sandbox's lock held. Every change of state is a new version of the record; it goes to
the store and then to the feed, so that edges know before anything happens to the processes.

What a restart must not lose (that there is a sandbox, that there is none any more, what was set) does not
happen while it cannot be written. Whether a sandbox runs or is paused means nothing after a restart, so
that happens all the same.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edge.appliance import lifecycle
from edge.appliance.events import EventLog, Operation, Status
from edge.appliance.executions import Executions
from edge.appliance.feed import Feed
from edge.appliance.lifecycle import Event
from edge.appliance.problems import (
    CREATE_FAILED,
    PAUSE_FAILED,
    RESUME_FAILED,
    VOLUME_MOUNT_CONFLICT,
    VOLUME_UNAVAILABLE,
    ApiError,
    invalid,
)
from edge.appliance.registry import Registry
from edge.appliance.runtime import (
    MountTaken,
    NoSuchDirectory,
    NoSuchSandbox,
    PathEscape,
    SupervisorLost,
    VolumeLost,
)
from edge.appliance.sandbox import API, Cause, Origin, Sandbox, Setup, Snapshot
from edge.appliance.store import StoreError


class Transitions:
    """Carries transitions out. ``wall`` is Unix time, ``clock`` the loop's; both in seconds.

    ``log`` hears of what the runtime or the store could not do.
    """

    def __init__(
        self,
        runtime: Executions,
        registry: Registry,
        *,
        feed: Feed,
        events: EventLog,
        wall: Callable[[], float],
        clock: Callable[[], float],
        log: Callable[..., None],
    ) -> None:
        self._runtime = runtime
        self._registry = registry
        self._feed = feed
        self._events = events
        self._wall = wall
        self._clock = clock
        self._log = log
        self._listeners: list[Callable[[Sandbox], None]] = []
        self.before_thaw: Callable[[Sandbox], Awaitable[None]] = _nothing
        """What has to succeed before a sandbox runs on; raises `ApiError` where it cannot."""

    def listen(self, callback: Callable[[Sandbox], None]) -> None:
        """Hear of every sandbox whose state has changed."""
        self._listeners.append(callback)

    async def start(
        self,
        sandbox: Sandbox,
        envs: dict[str, str],
        cwd: str | None,
        kept: Callable[[Sandbox], None],
        setup: Setup,
        *,
        made: bool = False,
    ) -> None:
        """From creating to running; ``kept`` writes what has to be in the store together with it.

        ``made``: in a place that is there already, and empty. Raises `ApiError` (create_failed,
        invalid_request, volume_unavailable, volume_mount_conflict, and what the setup's ``fill`` raises).
        """
        origin = setup.origin
        try:
            if not made:
                await self._runtime.create(
                    sandbox.id,
                    envs=envs,
                    cwd=cwd,
                    mounts=setup.mounts,
                    fill=origin.fill if origin is not None else None,
                )
            with self.changing(sandbox):
                self._begin(sandbox, Event.STARTED)
                kept(sandbox)
        except Exception as e:
            self.move(sandbox, Event.FAILED)
            self._failed(sandbox, Operation.CREATE, API, "create_failed", e)
            self.move(sandbox, Event.DESTROY)
            await self._clear(sandbox)
            raise _refusal(e) from e
        self._created(sandbox, origin)

    def _created(self, sandbox: Sandbox, origin: Origin | None) -> None:
        told: dict[str, object] = {"timeout_action": sandbox.timeout_action}
        if origin is None:
            self.emit(sandbox, Operation.CREATE, Status.SUCCEEDED, API, metadata=told)
            return
        told |= {"created_via": origin.created_via, "memory": "not_carried"}
        self.emit(
            sandbox,
            Operation.CREATE,
            Status.SUCCEEDED,
            API,
            metadata=told,
            snapshot_id=origin.snapshot_id,
            source_sandbox_id=origin.sandbox_id,
            target_sandbox_id=sandbox.id,
        )

    async def freeze(self, sandbox: Sandbox, cause: Cause) -> Snapshot:
        """From pausing to paused.

        When it fails (`ApiError`, pause_failed), the sandbox runs on, or is in error with its processes
        lost.
        """
        snapshot_id = f"snap_{secrets.token_hex(8)}"

        def emit(operation: Operation, status: Status, **more: Any) -> None:
            self.emit(sandbox, operation, status, cause, snapshot_id=snapshot_id, **more)

        emit(Operation.HIBERNATE, Status.REQUESTED)
        try:
            size = await self._runtime.freeze(sandbox.id)
        except Exception as e:
            self._failed(sandbox, Operation.HIBERNATE, cause, "pause_failed", e)
            await self._unfreeze(sandbox)
            raise ApiError(PAUSE_FAILED) from e
        snapshot = Snapshot(snapshot_id, sandbox.id, size, self._wall())
        self._registry.keep(snapshot)
        sandbox.timeout_at = sandbox.deadline = None
        self.move(sandbox, Event.FROZEN)
        emit(Operation.HIBERNATE, Status.SUCCEEDED)
        told = {"created_via": "hibernate"}
        emit(Operation.SNAPSHOT_CREATED, Status.SUCCEEDED, metadata=told)
        return snapshot

    async def thaw(self, sandbox: Sandbox, cause: Cause) -> None:
        """From paused to running, as the next incarnation.

        Raises `ApiError` (resume_failed, and what `before_thaw` raises).
        """
        snapshot = sandbox.snapshot
        assert snapshot is not None
        self.move(sandbox, Event.RESUME)
        try:
            await self.before_thaw(sandbox)
            await self._runtime.thaw(sandbox.id)
        except ApiError as e:
            self.move(sandbox, Event.REFUSED)
            operation, text = Operation.RESUME_FROM_SNAPSHOT, e.message or e.problem.message
            self._failed(sandbox, operation, cause, e.problem.code, e, text)
            raise
        except Exception as e:
            # With its memory gone there is nothing to try again.
            lost = isinstance(e, SupervisorLost | NoSuchSandbox)
            self.move(sandbox, Event.FAILED if lost else Event.REFUSED)
            self._failed(sandbox, Operation.RESUME_FROM_SNAPSHOT, cause, "resume_failed", e)
            raise ApiError(RESUME_FAILED) from e
        sandbox.snapshot = None
        self._begin(sandbox, Event.THAWED)
        self._advance(sandbox)
        self.emit(
            sandbox,
            Operation.RESUME_FROM_SNAPSHOT,
            Status.SUCCEEDED,
            cause,
            snapshot_id=snapshot.id,
            source_sandbox_id=sandbox.id,
            target_sandbox_id=sandbox.id,
        )

    async def destroy(self, sandbox: Sandbox, cause: Cause) -> None:
        """From anywhere to destroyed. For clients it is gone whatever becomes of the processes.

        Raises `StoreError`: it would be back after a restart, so it stays.
        """
        self.emit(sandbox, Operation.DESTROY, Status.REQUESTED, cause)
        with self.changing(sandbox):
            sandbox.state = lifecycle.after(sandbox.state, Event.DESTROY)
            sandbox.timeout_at = sandbox.deadline = None
        await self._clear(sandbox)
        self.emit(sandbox, Operation.DESTROY, Status.SUCCEEDED, cause)

    def stay(self, sandbox: Sandbox) -> None:
        """From pausing back to running, in the same incarnation; the inactivity timeout starts anew."""
        sandbox.last_activity = self._clock()
        self.move(sandbox, Event.STAY)

    def wind(self, sandbox: Sandbox) -> None:
        """``timeout_ms`` starts anew."""
        sandbox.deadline = self._clock() + sandbox.timeout_ms / 1000
        sandbox.timeout_at = self._wall() + sandbox.timeout_ms / 1000

    def move(self, sandbox: Sandbox, event: Event) -> None:
        """The next state, told to edges."""
        sandbox.state = lifecycle.after(sandbox.state, event)
        self._advance(sandbox)

    @contextmanager
    def changing(self, sandbox: Sandbox) -> Iterator[None]:
        """What is changed in here is written, and then told to edges; or (`StoreError`) it is not changed."""
        with self.keeping(sandbox):
            yield
            sandbox.version += 1
        self._tell(sandbox)

    @contextmanager
    def keeping(self, sandbox: Sandbox) -> Iterator[None]:
        """As `changing`, for what edges do not see."""
        with self._registry.rows.changing(sandbox):
            yield

    def emit(
        self, sandbox: Sandbox, operation: Operation, status: Status, cause: Cause, **more: Any
    ) -> None:
        """A lifecycle event about it; ``more`` as in `EventLog.emit`.

        What has happened has happened, whether or not its event can be written.
        """
        try:
            self._events.emit(
                operation,
                status,
                sandbox_id=sandbox.id,
                actor=cause.actor,
                reason=cause.reason,
                **more,
            )
        except StoreError as e:
            self._log("event_not_written", sandbox=sandbox.id, error=str(e))

    def postpone(self, sandbox: Sandbox) -> None:
        """From pausing back to running; a timeout that could do nothing must not be due again at once."""
        self.wind(sandbox)
        self.stay(sandbox)

    def _begin(self, sandbox: Sandbox, event: Event) -> None:
        """A new incarnation is to run, with its timeouts anew. Told to nobody yet."""
        sandbox.state = lifecycle.after(sandbox.state, event)
        sandbox.incarnation += 1
        sandbox.started_at = self._wall()
        sandbox.last_activity = self._clock()
        self.wind(sandbox)

    def _advance(self, sandbox: Sandbox) -> None:
        """A new version, told to edges whether or not it can be written."""
        sandbox.version += 1
        try:
            self._registry.rows.put(sandbox)
        except StoreError as e:
            self._log("state_not_written", sandbox=sandbox.id, error=str(e))
        self._tell(sandbox)

    def _tell(self, sandbox: Sandbox) -> None:
        self._feed.publish(sandbox.record())
        for callback in self._listeners:
            callback(sandbox)

    async def _unfreeze(self, sandbox: Sandbox) -> None:
        """Some processes may be frozen already: let them run on, as if nothing had been tried."""
        try:
            await self._runtime.thaw(sandbox.id)
        except Exception as e:  # noqa: BLE001 - whatever it was, the sandbox is of no use any more
            self._log("sandbox_lost", sandbox=sandbox.id, error=repr(e))
            self.move(sandbox, Event.FAILED)
        else:
            self.postpone(sandbox)

    async def _clear(self, sandbox: Sandbox) -> None:
        """End the processes of a destroyed sandbox, remove its files, keep its tombstone."""
        try:
            await self._runtime.destroy(sandbox.id)
        except Exception as e:  # noqa: BLE001 - it cannot be undone, only told
            self._log("destroy_incomplete", sandbox=sandbox.id, error=repr(e))
        try:
            self._registry.bury(sandbox)
        except StoreError as e:
            self._log("state_not_written", sandbox=sandbox.id, error=str(e))

    def _failed(
        self,
        sandbox: Sandbox,
        operation: Operation,
        cause: Cause,
        code: str,
        error: Exception,
        text: str = "The sandbox's processes could not be handled.",
    ) -> None:
        # A refusal of ours says all there is to say in its own words.
        what = str(error) if isinstance(error, ApiError) else repr(error)
        self._log(code, sandbox=sandbox.id, error=what)
        # Not any exception's own text: it may name paths of this machine.
        self.emit(sandbox, operation, Status.FAILED, cause, error=(code, text))


async def _nothing(_: Sandbox) -> None:
    """There is nothing to do."""


def _refusal(error: Exception) -> ApiError:
    """Why a sandbox was not created."""
    match error:
        case ApiError():
            return error
        case PathEscape() | NoSuchDirectory():
            return invalid(f"cwd: {error}")
        case VolumeLost():
            return ApiError(VOLUME_UNAVAILABLE, str(error))
        case MountTaken():
            return ApiError(VOLUME_MOUNT_CONFLICT, str(error))
    return ApiError(CREATE_FAILED)
