"""The kinds of records: whatever is written of one is read as the same."""

from __future__ import annotations

from typing import get_args

import pytest

from edge.core.records import GrantRecord, GrantStatus, Record, SandboxRecord, State, Transport
from edge.state import wire
from edge.state.redis.kinds import GRANT, KINDS, SANDBOX, kind_of

BOX = SandboxRecord("sb_aaaaaaaa", State.PAUSED, 3, 2, auto_resume=True)
LINK = GrantRecord("pvg_1", BOX.id, 80, frozenset(Transport), GrantStatus.ACTIVE, 9.5, 4)


@pytest.mark.parametrize("record", [BOX, LINK], ids=["sandbox", "grant"])
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    """By the name of its kind, which is all that a change carries; and as no other kind."""
    kind = kind_of(record)
    assert KINDS[kind.name] is kind
    text = kind.to_json(record)
    assert kind.from_json(text) == record
    for other in KINDS.values():
        if other is not kind:
            with pytest.raises(wire.WireError):
                other.from_json(text)


def test_names_stay() -> None:
    """They stand in keys, in changes and in the rights of config/redis.acl."""
    assert KINDS == {"sandbox": SANDBOX, "grant": GRANT}
    assert len(KINDS) == len(get_args(Record))
