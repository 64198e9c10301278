"""The life of a sandbox: states and events as one table.

``sandboxes.py`` carries transitions out; which of them exist is decided here alone. The states are
those of the record that edges see; clients of the public API see fewer (`published`)::

    creating -> running <-> pausing -> paused <-> resuming -> running
    every state -> destroyed;  creating, pausing, resuming -> error
    all but error and destroyed -> error, when the control plane has ended meanwhile
"""

from __future__ import annotations

from enum import StrEnum

from edge.core.records import State


class Event(StrEnum):
    """What happens to a sandbox."""

    STARTED = "started"
    PAUSE = "pause"
    STAY = "stay"
    FROZEN = "frozen"
    RESUME = "resume"
    THAWED = "thawed"
    REFUSED = "refused"
    FAILED = "failed"
    LOST = "lost"
    DESTROY = "destroy"


TABLE: dict[tuple[State, Event], State] = {
    (State.CREATING, Event.STARTED): State.RUNNING,
    (State.CREATING, Event.FAILED): State.ERROR,
    (State.RUNNING, Event.PAUSE): State.PAUSING,
    (State.PAUSING, Event.STAY): State.RUNNING,
    (State.PAUSING, Event.FROZEN): State.PAUSED,
    (State.PAUSING, Event.FAILED): State.ERROR,
    (State.PAUSED, Event.RESUME): State.RESUMING,
    (State.RESUMING, Event.THAWED): State.RUNNING,
    # The memory is still there: the next attempt may do better.
    (State.RESUMING, Event.REFUSED): State.PAUSED,
    (State.RESUMING, Event.FAILED): State.ERROR,
    (State.CREATING, Event.LOST): State.ERROR,
    (State.RUNNING, Event.LOST): State.ERROR,
    (State.PAUSING, Event.LOST): State.ERROR,
    (State.PAUSED, Event.LOST): State.ERROR,
    (State.RESUMING, Event.LOST): State.ERROR,
    (State.CREATING, Event.DESTROY): State.DESTROYED,
    (State.RUNNING, Event.DESTROY): State.DESTROYED,
    (State.PAUSING, Event.DESTROY): State.DESTROYED,
    (State.PAUSED, Event.DESTROY): State.DESTROYED,
    (State.RESUMING, Event.DESTROY): State.DESTROYED,
    (State.ERROR, Event.DESTROY): State.DESTROYED,
}

_PUBLISHED = {State.PAUSING: "running", State.RESUMING: "paused"}


def after(state: State, event: Event) -> State:
    """The next state. Raises ValueError for an event that cannot happen in this state."""
    try:
        return TABLE[state, event]
    except KeyError:
        raise ValueError(
            f"{event.value} cannot happen to a sandbox that is {state.value}"
        ) from None


def published(state: State) -> str:
    """The state as the public API names it: creating, running, paused, destroyed or error."""
    return _PUBLISHED.get(state, state.value)
