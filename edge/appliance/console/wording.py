"""The console's words: states, events, times, and what a sandbox will do next."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from edge.appliance.events import Actor, LifecycleEvent, Operation, Status
from edge.appliance.sandbox import Sandbox
from edge.core.records import State

MAX_METADATA = 4000
"""Characters of a sandbox's metadata that are shown."""

_EVENTS = {
    (Operation.CREATE, Status.SUCCEEDED): "Created",
    (Operation.CREATE, Status.FAILED): "Could not be created",
    (Operation.DESTROY, Status.REQUESTED): "About to end",
    (Operation.DESTROY, Status.SUCCEEDED): "Ended",
    (Operation.TIMEOUT_UPDATED, Status.REQUESTED): "New timeout asked for",
    (Operation.TIMEOUT_UPDATED, Status.SUCCEEDED): "New timeout",
    (Operation.TIMEOUT_EXPIRED, Status.SUCCEEDED): "Timeout passed",
    (Operation.HIBERNATE, Status.REQUESTED): "Pausing",
    (Operation.HIBERNATE, Status.SUCCEEDED): "Paused",
    (Operation.HIBERNATE, Status.FAILED): "Could not be paused",
    (Operation.SNAPSHOT_CREATED, Status.SUCCEEDED): "Snapshot taken",
    (Operation.RESUME_FROM_SNAPSHOT, Status.SUCCEEDED): "Resumed",
    (Operation.RESUME_FROM_SNAPSHOT, Status.FAILED): "Could not be resumed",
    (Operation.RECONCILE, Status.FAILED): "Lost its processes",
}

_REASONS = {
    "api": "by the API",
    "manual": "by the API",
    "console": "from the console",
    "preview": "for a request",
    "restart": "by a restart",
    "timeout": "by timeout",
}

_SPANS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def event_words(event: LifecycleEvent) -> str:
    """What happened."""
    if event.operation is Operation.RESUME_FROM_SNAPSHOT and event.actor is Actor.SYSTEM:
        return "Woken" if event.status is Status.SUCCEEDED else "Could not be woken"
    plain = f"{event.operation.value.replace('_', ' ')}: {event.status.value}"
    return _EVENTS.get((event.operation, event.status), plain)


def reason_words(event: LifecycleEvent) -> str:
    """Who or what did it."""
    return _REASONS.get(event.reason, event.reason)


def outlook(sandbox: Sandbox, now: float) -> str:
    """What will become of it, left alone. ``now`` is Unix time."""
    if sandbox.state is State.PAUSED:
        return "a request wakes it" if sandbox.plan.auto_resume else "sleeps until it is resumed"
    if sandbox.timeout_at is None:
        return ""
    does = "pauses" if sandbox.timeout_action == "hibernate" else "ends"
    return f"{does} in {span(sandbox.timeout_at - now)}"


def span(seconds: float) -> str:
    """A length of time, in the largest unit there is one whole of: ``4 min``."""
    for size, unit in _SPANS:
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return "0 s"


def ago(time: float, now: float) -> str:
    """How long ago a Unix time was."""
    return "just now" if now - time < 1 else f"{span(now - time)} ago"


def clock(time: float) -> str:
    """A Unix time on this machine's clock, which is the reader's: ``2026-01-31 14:03:07``."""
    return datetime.fromtimestamp(time, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def machine_time(time: float) -> str:
    """A Unix time for programs (HTML's ``datetime``)."""
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")


def metadata_text(metadata: object) -> str:
    """Metadata for reading, cut where it gets too long."""
    text = json.dumps(metadata, indent=2, ensure_ascii=False)
    return text if len(text) <= MAX_METADATA else f"{text[:MAX_METADATA]}\n[…]"
