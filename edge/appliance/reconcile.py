"""After a restart: what is told of the sandboxes that an earlier run left.

Their processes, and the memory of the paused ones, ended with that run. Their files did not, so they are kept,
in state ``error``, until somebody kills them; no timeout does, because it was meant for what ran. Those that
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


def reconcile(
    registry: Registry, transitions: Transitions, events: EventLog, store: Store, *, floor: int
) -> list[Sandbox]:
    """Put everything that ran or was paused into ``error``; all that are not destroyed, oldest first.

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
            if was is not State.ERROR:
                _tell(events, sandbox, was)
    return left


def _tell(events: EventLog, sandbox: Sandbox, was: State) -> None:
    events.emit(
        Operation.RECONCILE,
        Status.FAILED,
        sandbox_id=sandbox.id,
        actor=RESTART.actor,
        reason=RESTART.reason,
        snapshot_id=sandbox.snapshot.id if sandbox.snapshot is not None else None,
        error=LOST,
        metadata={"previous_status": published(was)},
    )
