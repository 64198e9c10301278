"""One sandbox: what was asked for, where it stands, and the record that edges see of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge.appliance.events import Actor
from edge.appliance.requests import TimeoutAction
from edge.appliance.runtime.mounts import Mount
from edge.appliance.volumes.volume import (
    Attachment,
    attachment_from_document,
    attachment_to_document,
)
from edge.core.records import SandboxRecord, State, Upstream

HERE = "127.0.0.1"
"""Where edges reach sandboxes."""


@dataclass(frozen=True, slots=True)
class Cause:
    """Who changes a sandbox, and why; both end up in its lifecycle events."""

    actor: Actor
    reason: str


API = Cause(Actor.USER, "api")
MANUAL = Cause(Actor.USER, "manual")
CONSOLE = Cause(Actor.USER, "console")
TIMEOUT = Cause(Actor.SYSTEM, "timeout")
RESTART = Cause(Actor.RECONCILE, "restart")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A paused execution. Its memory stays in the frozen processes; ``size_bytes`` says how much."""

    id: str
    sandbox_id: str
    size_bytes: int
    created_at: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for at create and never changes."""

    template: str
    vcpus: int
    memory_mb: int
    cwd: str
    metadata: Mapping[str, object]
    auto_resume: bool
    inactivity_timeout: float | None
    checkout: Mapping[str, object]
    mask_request_host: str | None
    traffic_token_sha256: str | None
    ephemeral: bool = False


@dataclass(frozen=True, slots=True)
class Origin:
    """What is in a new sandbox before it runs: files that ``fill`` puts into the directory it is given.

    ``created_via`` (``fork`` or ``snapshot``) and the ids end up in its lifecycle events.
    """

    created_via: str
    fill: Callable[[Path], Awaitable[object]]
    sandbox_id: str
    snapshot_id: str | None = None


@dataclass(frozen=True, slots=True)
class Setup:
    """How a new sandbox differs from an empty one."""

    attachments: tuple[Attachment, ...] = ()
    mounts: tuple[Mount, ...] = ()
    origin: Origin | None = None
    previews_disabled: bool = False


@dataclass(slots=True, eq=False)
class Sandbox:
    """A sandbox. Only ``sandboxes.py`` changes one.

    ``created_at``, ``started_at`` and ``timeout_at`` are Unix times; ``deadline`` and
    ``last_activity`` are of the event loop's clock, so that a change of the wall clock pauses nothing.
    ``calls`` counts API calls under way in the sandbox, which keep it awake as traffic does. ``ports`` is
    set for one with a network of its own: the ports here that lead to those in there.
    """

    id: str
    number: int
    plan: Plan
    created_at: float
    timeout_ms: int
    timeout_action: TimeoutAction
    state: State = State.CREATING
    version: int = 1
    incarnation: int = 0
    started_at: float | None = None
    timeout_at: float | None = None
    deadline: float | None = None
    last_activity: float = 0.0
    calls: int = 0
    previews_disabled: bool = False
    snapshot: Snapshot | None = None
    snapshots: list[Snapshot] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    ports: dict[int, int] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def alive(self) -> bool:
        """Whether clients still see it."""
        return self.state is not State.DESTROYED

    @property
    def idle_at(self) -> float | None:
        """When it will have been inactive for too long; None = never."""
        limit = self.plan.inactivity_timeout
        return None if limit is None else self.last_activity + limit

    @property
    def upstream(self) -> Upstream:
        """Where its apps are reached while it runs."""
        if self.ports is None:
            return Upstream(
                HERE
            )  # This machine's network is its own: an app's port is its port here.
        return Upstream(HERE, dict(self.ports), only_ports=True)

    def record(self) -> SandboxRecord:
        """What edges see."""
        running = self.state in (State.RUNNING, State.PAUSING)
        return SandboxRecord(
            id=self.id,
            state=self.state,
            version=self.version,
            incarnation=self.incarnation,
            auto_resume=self.plan.auto_resume,
            running_since=self.started_at if running else None,
            upstream=self.upstream if running else None,
            traffic_token_sha256=self.plan.traffic_token_sha256,
            mask_request_host=self.plan.mask_request_host,
            previews_disabled=self.previews_disabled,
        )


_WRITTEN = (
    *("id", "number", "created_at", "timeout_ms", "timeout_action", "version", "incarnation"),
    *("started_at", "timeout_at", "previews_disabled"),
)
"""What is written as it is. Times of the loop's clock, calls and the lock mean nothing to another process."""


def to_document(sandbox: Sandbox) -> dict[str, Any]:
    """A sandbox as JSON."""
    return {
        **{name: getattr(sandbox, name) for name in _WRITTEN},
        "state": sandbox.state.value,
        "plan": {**asdict(sandbox.plan)},
        "snapshot": None if sandbox.snapshot is None else asdict(sandbox.snapshot),
        "snapshots": [asdict(snapshot) for snapshot in sandbox.snapshots],
        "attachments": [attachment_to_document(one) for one in sandbox.attachments],
    }


def from_document(document: dict[str, Any]) -> Sandbox:
    """The sandbox again. Raises ValueError, TypeError or KeyError for what `to_document` never wrote."""
    snapshot = document["snapshot"]
    return Sandbox(
        **{name: document[name] for name in _WRITTEN if name in document},
        state=State(document["state"]),
        plan=Plan(**document["plan"]),
        snapshot=None if snapshot is None else Snapshot(**snapshot),
        # Names only, in older files: of those that are over there was nothing but the name.
        snapshots=[Snapshot(**one) for one in document["snapshots"] if isinstance(one, dict)],
        attachments=[attachment_from_document(one) for one in document.get("attachments", ())],
    )
