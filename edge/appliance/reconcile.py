"""After a restart: what is told of the sandboxes that an earlier run left.

Their processes, and the memory of the paused ones, ended with that run. Their files did not, so they are kept,
in state ``error``, until they are killed. One that ran, with a timeout that destroys, has that timeout still: it would
be gone by then without a restart, too, and whoever made it may not be there any more to kill it (the client's
``run_once``, for one, whose call has failed). It has a day at least, though, for somebody who wants the files. What was
paused, or would have been, stays. Only those that were made as ``ephemeral`` are destroyed at once: whoever made one
has said that nothing of it is worth keeping. Those that were being created were told to nobody and are not in the
store; their directories go, as does everything that belongs to no sandbox.
"""

from __future__ import annotations

from collections.abc import Callable

from edge.appliance import lifecycle
from edge.appliance.events import EventLog, Operation, Status
from edge.appliance.lifecycle import Event, published
from edge.appliance.registry import Registry
from edge.appliance.sandbox import RESTART, Sandbox
from edge.appliance.store import Store
from edge.appliance.transitions import Transitions
from edge.core.records import State

KEPT = 24 * 3600.0
"""Seconds after a restart for which at least nothing is destroyed that can be kept."""
KEPT_AGAIN = 60.0
"""The same after each restart that follows."""

LOST = "The control plane was restarted; the sandbox's processes ended with it. "
KILLED = LOST + "Its files are kept until it is killed."
TIMED = LOST + "Its files are kept until it is killed, at the latest by its timeout (timeout_at)."
GONE = LOST + "It was ephemeral, so its files are gone."

_PAUSED = (State.PAUSED, State.RESUMING)


def reconcile(
    registry: Registry,
    transitions: Transitions,
    events: EventLog,
    store: Store,
    *,
    floor: int,
    wall: Callable[[], float],
) -> list[Sandbox]:
    """Put everything that ran or was paused into ``error``; all that are left, oldest first.

    Their records get versions above ``floor``. Call it before anybody is let in. All or nothing: a
    sandbox in error whose event is missing would never get one. ``wall`` is Unix time. Raises `StoreError`.
    """
    left = registry.living()
    with store.transaction():
        for sandbox in left:
            was = sandbox.state
            with transitions.changing(sandbox):
                sandbox.version = max(sandbox.version, floor)
                seconds = _left(sandbox, wall())
                if seconds is None:
                    transitions.unwind(sandbox)
                else:
                    transitions.wind(sandbox, seconds)
                if was is not State.ERROR:
                    sandbox.state = lifecycle.after(was, Event.LOST)
                if sandbox.plan.ephemeral:
                    sandbox.state = lifecycle.after(sandbox.state, Event.DESTROY)
            if was is not State.ERROR:
                _tell(events, sandbox, was)
            if not sandbox.alive:
                _bury(events, sandbox)
    for sandbox in left:
        if not sandbox.alive:
            registry.bury(sandbox)
    return [sandbox for sandbox in left if sandbox.alive]


def _left(sandbox: Sandbox, now: float) -> float | None:
    """The seconds for which it is kept; None = until somebody kills it. Its state is that of before."""
    if sandbox.state is State.ERROR:
        return None if sandbox.timeout_at is None else max(sandbox.timeout_at - now, KEPT_AGAIN)
    if sandbox.state in _PAUSED or sandbox.timeout_action != "destroy":
        return None
    return max(sandbox.timeout_ms / 1000, KEPT)


def _why(sandbox: Sandbox) -> str:
    if sandbox.plan.ephemeral:
        return GONE
    return KILLED if sandbox.timeout_at is None else TIMED


def _bury(events: EventLog, sandbox: Sandbox) -> None:
    events.emit(
        Operation.DESTROY,
        Status.SUCCEEDED,
        sandbox_id=sandbox.id,
        actor=RESTART.actor,
        reason=RESTART.reason,
    )


def _tell(events: EventLog, sandbox: Sandbox, was: State) -> None:
    events.emit(
        Operation.RECONCILE,
        Status.FAILED,
        sandbox_id=sandbox.id,
        actor=RESTART.actor,
        reason=RESTART.reason,
        snapshot_id=sandbox.snapshot.id if sandbox.snapshot is not None else None,
        error=("runtime_lost", _why(sandbox)),
        metadata={"previous_status": published(was)},
    )
