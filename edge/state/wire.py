"""The wire format of the HTTP state port: JSON to records and back, for both ends of the wire.

Unknown keys are ignored (a newer control plane may say more than we understand); everything else is
checked by type, and what does not fit raises `WireError`: a control plane that answers nonsense is as
good as one that does not answer.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from edge.core.records import GrantRecord, SandboxRecord
from edge.state.port import Change, Heartbeat, Resync, UsageBatch, WatchEvent

PREFIX = "/internal/edge/v1"
"""Where the internal API lives on the control plane."""

MAX_EDGE_NAME = 255
"""Characters in the name of an edge."""
MOST = (1 << 63) - 1
"""Of anything that is counted: a store can keep no more."""


class WireError(ValueError):
    """What came over the wire is not in the wire format."""


def _possible_sandbox(record: SandboxRecord) -> SandboxRecord:
    ports = (record.upstream and record.upstream.ports) or {}
    if not all(0 < port < 65536 for pair in ports.items() for port in pair):
        raise ValueError("upstream.ports: a port is a number from 1 to 65535")
    if not math.isfinite(record.running_since or 0.0):
        raise ValueError("running_since: not a time")
    return record


def _possible_grant(record: GrantRecord) -> GrantRecord:
    if not 0 < record.port < 65536:
        raise ValueError("port: a port is a number from 1 to 65535")
    # Pydantic reads NaN, and a grant that ends at NaN would never have ended.
    if not math.isfinite(record.expires_at):
        raise ValueError("expires_at: not a time")
    return record


def _possible_usage(batch: UsageBatch) -> UsageBatch:
    if len(batch.edge) > MAX_EDGE_NAME:
        raise ValueError(f"edge: a name has at most {MAX_EDGE_NAME} characters")
    if not 0 <= batch.sequence <= MOST:
        raise ValueError(f"sequence: a number from 0 to {MOST}")
    for item in batch.items:
        counts = (item.requests, item.websockets, item.bytes_in, item.bytes_out)
        if min(counts) < 0:
            raise ValueError("items: a count is never negative")
        if max(counts) > MOST:
            raise ValueError("items: a count has at most 63 bits")
    return batch


WireSandbox = Annotated[SandboxRecord, AfterValidator(_possible_sandbox)]
WireGrant = Annotated[GrantRecord, AfterValidator(_possible_grant)]
WireUsage = Annotated[UsageBatch, AfterValidator(_possible_usage)]


class SandboxChange(BaseModel):
    """A newer sandbox record."""

    type: Literal["sandbox"] = "sandbox"
    cursor: int
    record: WireSandbox


class GrantChange(BaseModel):
    """A newer grant record."""

    type: Literal["grant"] = "grant"
    cursor: int
    record: WireGrant


class HeartbeatFrame(BaseModel):
    """Everything up to ``cursor`` has been sent."""

    type: Literal["heartbeat"] = "heartbeat"
    cursor: int


class ResyncFrame(BaseModel):
    """Changes after the cursor asked for are no longer kept."""

    type: Literal["resync"] = "resync"
    cursor: int


class ResumeCall(BaseModel):
    """Body of ``POST sandboxes/{id}/resume``. ``timeout`` in seconds."""

    model_config = ConfigDict(extra="ignore")
    paused_incarnation: int
    reason: str = "preview"
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 20.0


class AckCall(BaseModel):
    """Body of ``POST acks``."""

    edge: str
    sandbox_id: str
    version: int
    in_flight: Annotated[int, Field(ge=0)]


Frame = Annotated[
    SandboxChange | GrantChange | HeartbeatFrame | ResyncFrame, Field(discriminator="type")
]

_sandbox: TypeAdapter[SandboxRecord] = TypeAdapter(WireSandbox)
_grant: TypeAdapter[GrantRecord] = TypeAdapter(WireGrant)
_usage: TypeAdapter[UsageBatch] = TypeAdapter(WireUsage)
_frame: TypeAdapter[Any] = TypeAdapter(Frame)


T = TypeVar("T")


def _parse(adapter: TypeAdapter[T], data: bytes | str) -> T:
    try:
        # Strict: "1", true and 1.0 are no integers, whatever Python thinks.
        return adapter.validate_json(data, strict=True)
    except ValidationError as e:
        first = e.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "body"
        raise WireError(f"{where}: {first['msg']}") from None


def sandbox_from_json(data: bytes | str) -> SandboxRecord:
    """Raises `WireError`."""
    return _parse(_sandbox, data)


def sandbox_to_json(record: SandboxRecord) -> bytes:
    """One JSON object, keys as in `SandboxRecord`."""
    return _sandbox.dump_json(record)


def grant_from_json(data: bytes | str) -> GrantRecord:
    """Raises `WireError`."""
    return _parse(_grant, data)


def grant_to_json(record: GrantRecord) -> bytes:
    """One JSON object, keys as in `GrantRecord`."""
    return _grant.dump_json(record)


def usage_from_json(data: bytes | str) -> UsageBatch:
    """Raises `WireError`."""
    return _parse(_usage, data)


def usage_to_json(batch: UsageBatch) -> bytes:
    """One JSON object, keys as in `UsageBatch`."""
    return _usage.dump_json(batch)


def event_from_json(data: bytes | str) -> WatchEvent:
    """One text frame of ``GET events``. Raises `WireError`."""
    frame = _parse(_frame, data)
    match frame:
        case SandboxChange() | GrantChange():
            return Change(frame.cursor, frame.record)
        case HeartbeatFrame():
            return Heartbeat(frame.cursor)
        case _:
            return Resync(frame.cursor)


def event_to_json(event: WatchEvent) -> str:
    """One text frame of ``GET events``."""
    match event:
        case Change(cursor, SandboxRecord() as record):
            return SandboxChange(cursor=cursor, record=record).model_dump_json()
        case Change(cursor, GrantRecord() as grant):
            return GrantChange(cursor=cursor, record=grant).model_dump_json()
        case Heartbeat(cursor):
            return HeartbeatFrame(cursor=cursor).model_dump_json()
        case Resync(cursor):
            return ResyncFrame(cursor=cursor).model_dump_json()
    raise TypeError(f"not a watch event: {event!r}")


def resume_from_json(data: bytes | str) -> ResumeCall:
    """Raises `WireError`."""
    return _parse(TypeAdapter(ResumeCall), data)


def ack_from_json(data: bytes | str) -> AckCall:
    """Raises `WireError`."""
    return _parse(TypeAdapter(AckCall), data)
