"""States and events: the table is complete, and says no to everything else."""

from __future__ import annotations

import pytest

from edge.appliance.lifecycle import TABLE, Event, after, published
from edge.core.records import State


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("event", Event)
def test_an_event_has_one_outcome_or_none(state: State, event: Event) -> None:
    """What is not in the table is refused with both names."""
    if (state, event) in TABLE:
        assert after(state, event) is TABLE[state, event]
    else:
        with pytest.raises(ValueError, match=rf"{event.value} .* {state.value}"):
            after(state, event)


def test_every_living_state_can_be_destroyed_and_none_left_afterwards() -> None:
    """Destroy is possible everywhere, and destroyed is the end."""
    assert {s for s, e in TABLE if e is Event.DESTROY} == set(State) - {State.DESTROYED}
    assert all(state is not State.DESTROYED for state, _ in TABLE)


def test_inner_states_show_as_published_ones() -> None:
    """Clients see five states; the two in between show as where the sandbox comes from."""
    shown = {published(state) for state in State}
    assert shown == {"creating", "running", "paused", "destroyed", "error"}
    assert published(State.PAUSING) == "running"
    assert published(State.RESUMING) == "paused"
