"""Entries: which records can never change again."""

from __future__ import annotations

import pytest
from scriptedport import grant, sandbox

from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State
from edge.wake.entries import Entry


@pytest.mark.parametrize("state", State)
def test_only_a_destroyed_sandbox_is_final(state: State) -> None:
    """Every other state may still change, error included."""
    entry: Entry[SandboxRecord] = Entry(sandbox(1, state), 1, 0, 0.0, 0.0)
    assert entry.final is (state is State.DESTROYED)


@pytest.mark.parametrize("status", GrantStatus)
def test_only_ended_grants_are_final(status: GrantStatus) -> None:
    """A disabled grant may be enabled again."""
    entry: Entry[GrantRecord] = Entry(grant(1, status), 1, 0, 0.0, 0.0)
    assert entry.final is (status in (GrantStatus.REVOKED, GrantStatus.EXPIRED))


def test_an_absence_is_not_final() -> None:
    """What does not exist may be created."""
    absent: Entry[GrantRecord] = Entry(None, 0, 0, 0.0, 0.0)
    assert not absent.final
