"""Records: routes, the words of the published states, and that records are values."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from edge.core.records import (
    GrantRecord,
    GrantStatus,
    SandboxRecord,
    State,
    Transport,
    Upstream,
)


@pytest.mark.parametrize(
    ("ports", "port", "address"),
    [
        (None, 3000, ("10.0.0.1", 3000)),
        ({}, 3000, ("10.0.0.1", 3000)),
        ({3000: 41000}, 3000, ("10.0.0.1", 41000)),
        ({3000: 41000}, 3001, ("10.0.0.1", 3001)),
        ({3000: 3001, 3001: 3000}, 3001, ("10.0.0.1", 3000)),
    ],
)
def test_addresses_of_ports(ports, port, address):
    """A named port is mapped once, any other keeps its number."""
    assert Upstream("10.0.0.1", ports).address(port) == address


def test_ports_that_are_not_named_may_be_closed():
    """With ``only_ports`` they lead where nobody can listen, and never to somebody else's port of that number."""
    upstream = Upstream("10.0.0.1", {3000: 41000}, only_ports=True)
    assert upstream.address(3000) == ("10.0.0.1", 41000)
    assert upstream.address(41000) == Upstream("10.0.0.1", only_ports=True).address(80)
    assert upstream.address(80) == ("10.0.0.1", 0)


def test_published_words():
    """The words of the contract, which go over the wire, never change."""
    assert [str(state) for state in State] == [
        "creating", "running", "pausing", "paused", "resuming", "destroyed", "error",
    ]  # fmt: skip
    assert [str(kind) for kind in Transport] == ["http_port", "websocket_port"]
    assert [str(status) for status in GrantStatus] == ["active", "disabled", "expired", "revoked"]


def test_what_is_not_said_is_the_safe_half():
    """A record that says only the required things does not wake and leads nowhere."""
    record = SandboxRecord("sb_aaaaaaaa", State.PAUSED, version=1, incarnation=1)
    assert not record.auto_resume
    assert record.upstream is None
    assert record.running_since is None


def test_records_are_values():
    """Equal facts are equal records, and nobody edits a record that others hold."""
    record = SandboxRecord("sb_aaaaaaaa", State.RUNNING, 2, 1, upstream=Upstream("h", {1: 2}))
    assert record == replace(record)
    assert record != replace(record, version=3)
    grant = GrantRecord(
        "g", "sb_aaaaaaaa", 3000, frozenset({Transport.HTTP}), GrantStatus.ACTIVE, 1.0, 1
    )
    for frozen in (record, grant, Upstream("h")):
        with pytest.raises((FrozenInstanceError, TypeError)):
            frozen.id = "other"
    assert len({grant, replace(grant)}) == 1
