"""After a restart: what is told of the sandboxes that an earlier run left.

Their processes, and the memory of the paused ones, ended with that run. Their files did not, so they are kept,
in state ``error``, until somebody kills them; no timeout does, because it was meant for what ran. Only those that
were made as ``ephemeral`` are destroyed: whoever made one has said that nothing of it is worth keeping. Those that
were being created were told to nobody and are not in the store; their directories go, as does everything that
belongs to no sandbox.
"""

from __future__ import annotations

from edge.appliance import lifecycle
from edge.appliance.events import EventLog, Operation, Status
from edge.appliance.lifecycle import Event, published
from edge.appliance.registry import Registry
from edge.appliance.sandbox import RESTART, Sandbox
from edge.appliance.store import Store
from edge.appliance.transitions import Transitions
from edge.core.records import State

LOST = (
    "runtime_lost",
    "The control plane was restarted; the sandbox's processes ended with it. Its files are kept until it is killed.",
)


GONE = (
    "runtime_lost",
    "The control plane was restarted; the sandbox's processes ended with it. It was ephemeral, so its files are gone.",
)


def reconcile(
    registry: Registry, transitions: Transitions, events: EventLog, store: Store, *, floor: int
) -> list[Sandbox]:
    """Put everything that ran or was paused into ``error``; all that are left, oldest first.

    Their records get versions above ``floor``. Call it before anybody is let in. All or nothing: a
    sandbox in error whose event is missing would never get one. Raises `StoreError`.
    """
    left = registry.living()
    with store.transaction():
        for sandbox in left:
            was = sandbox.state
            with transitions.changing(sandbox):
                sandbox.version = max(sandbox.version, floor)
                if was is not State.ERROR:
                    sandbox.state = lifecycle.after(was, Event.LOST)
                    sandbox.timeout_at = None
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
        error=GONE if sandbox.plan.ephemeral else LOST,
        metadata={"previous_status": published(was)},
    )
