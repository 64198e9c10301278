"""One grant: what its status is when, and what edges see of it."""

from __future__ import annotations

import dataclasses
import json

import pytest

from edge.appliance.grant import AuthMode, Grant, from_document, to_document
from edge.core.records import GrantStatus, Transport


@pytest.mark.parametrize(
    ("revoked", "disabled", "now", "status", "ended"),
    [
        (None, None, 19.9, GrantStatus.ACTIVE, False),
        (None, 12.0, 19.9, GrantStatus.DISABLED, False),
        (None, None, 20.0, GrantStatus.EXPIRED, True),
        (None, 12.0, 20.0, GrantStatus.EXPIRED, True),
        (15.0, None, 19.9, GrantStatus.REVOKED, True),
        (15.0, 12.0, 99.0, GrantStatus.REVOKED, True),
    ],
)
def test_status(
    revoked: float | None, disabled: float | None, now: float, status: GrantStatus, ended: bool
) -> None:
    """What is for good outweighs what can be taken back."""
    grant = Grant("pvg_1", "sb_1", 80, 10.0, 20.0, 10.0, revoked_at=revoked, disabled_at=disabled)
    assert (grant.status(now), grant.ended(now)) == (status, ended)
    assert grant.record(now).status is status


def test_the_record_says_what_the_grant_is_for() -> None:
    """Edges hold a token to the transports of its grant."""
    grant = Grant("pvg_1", "sb_1", 80, 1.0, 2.0, 1.0, AuthMode.PROXY, (Transport.HTTP,), 7)
    record = grant.record(1.5)
    assert (record.id, record.sandbox_id, record.port) == ("pvg_1", "sb_1", 80)
    assert (record.kinds, record.expires_at, record.version) == ({Transport.HTTP}, 2.0, 7)
    assert (AuthMode.PROXY.transport, AuthMode.DIRECT.transport) == ("header", "query")


def test_a_grant_is_the_same_after_it_was_written() -> None:
    """Every field and counter: nobody forgets to write a new one."""
    grant = Grant(
        *("pvg_1", "sb_1", 80, 1.5, 2.5, 3.5, AuthMode.PROXY, (Transport.HTTP,), 7),
        *(4.5, 5.5, 6.5, 7.5, 8, 9, 10, 2**70, "code", 11.5),
    )
    again = from_document(json.loads(json.dumps(to_document(grant))))
    for field in dataclasses.fields(Grant):
        if field.name != "told":
            assert getattr(again, field.name) == getattr(grant, field.name), field.name
            assert getattr(grant, field.name) != field.default
