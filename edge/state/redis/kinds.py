"""The kinds of records, what they are called in Redis, and how they are written there.

The names stand in keys and changes; `layout` and ``config/redis.acl`` have them too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from edge.core.records import GrantRecord, Record, SandboxRecord
from edge.state import wire

R = TypeVar("R", SandboxRecord, GrantRecord)


@dataclass(frozen=True, slots=True)
class Kind(Generic[R]):
    """One kind. ``from_json`` raises `wire.WireError`."""

    name: str
    to_json: Callable[[R], bytes]
    from_json: Callable[[bytes], R]


SANDBOX = Kind("sandbox", wire.sandbox_to_json, wire.sandbox_from_json)
GRANT = Kind("grant", wire.grant_to_json, wire.grant_from_json)

KINDS: dict[str, Kind[Any]] = {kind.name: kind for kind in (SANDBOX, GRANT)}


def kind_of(record: Record) -> Kind[Any]:
    """What kind of record this is."""
    return SANDBOX if isinstance(record, SandboxRecord) else GRANT
