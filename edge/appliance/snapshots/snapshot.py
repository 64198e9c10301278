"""One snapshot that is a copy of files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from edge.appliance.sandbox import Plan, Snapshot
from edge.appliance.volumes.volume import (
    Attachment,
    attachment_from_document,
    attachment_to_document,
)


@dataclass(frozen=True, slots=True)
class Copy:
    """``plan`` and ``attachments`` are those that the sandbox had then, ``roots`` its directory's real paths."""

    id: str
    sandbox_id: str
    size_bytes: int
    created_at: float
    plan: Plan
    attachments: tuple[Attachment, ...]
    roots: tuple[str, ...]

    @property
    def snapshot(self) -> Snapshot:
        """What clients see of it."""
        return Snapshot(self.id, self.sandbox_id, self.size_bytes, self.created_at)


def to_document(copy: Copy) -> dict[str, Any]:
    """A copy as JSON."""
    return {
        **{name: getattr(copy, name) for name in ("id", "sandbox_id", "size_bytes", "created_at")},
        "plan": {**asdict(copy.plan)},
        "attachments": [attachment_to_document(one) for one in copy.attachments],
        "roots": copy.roots,
    }


def from_document(document: dict[str, Any]) -> Copy:
    """The copy again. Raises TypeError or KeyError for what `to_document` never wrote."""
    places = tuple(attachment_from_document(one) for one in document["attachments"])
    plan, roots = Plan(**document["plan"]), tuple(document["roots"])
    return Copy(**(document | {"plan": plan, "attachments": places, "roots": roots}))
