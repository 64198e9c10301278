"""One volume, and where it is attached."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.appliance.runtime.mounts import Mount


@dataclass(slots=True, eq=False)
class Volume:
    """A volume. Times are Unix times; ``used_bytes`` and ``inode_count`` are as of ``measured_at``."""

    id: str
    name: str
    created_at: float
    used_bytes: int = 0
    inode_count: int = 0
    measured_at: float | None = None


@dataclass(frozen=True, slots=True)
class Attachment:
    """A volume's place in a sandbox: ``names`` lead to it from the root of the work tree, ``below`` to the
    part of the volume that is seen there. With ``error_code`` it was found unusable at ``updated_at``.
    """

    id: str
    volume_id: str
    names: tuple[str, ...]
    below: tuple[str, ...]
    created_at: float
    updated_at: float
    error_code: str | None = None
    error_message: str | None = None
    read_only: bool = False

    def mount(self, folder: Path) -> Mount:
        """The same for the runtime; ``folder`` is the volume's."""
        return Mount(self.names, folder, self.below, self.read_only)

    def in_the_way(self, other: Attachment) -> bool:
        """Whether one is at the place of the other, or in it."""
        both = min(len(self.names), len(other.names))
        return self.names[:both] == other.names[:both]


def to_document(volume: Volume) -> dict[str, Any]:
    """A volume as JSON. What was measured is measured anew."""
    return {"id": volume.id, "name": volume.name, "created_at": volume.created_at}


def from_document(document: dict[str, Any]) -> Volume:
    """The volume again. Raises TypeError for what `to_document` never wrote."""
    return Volume(**document)


def attachment_to_document(attachment: Attachment) -> dict[str, Any]:
    """An attachment as JSON."""
    return asdict(attachment)


def attachment_from_document(document: dict[str, Any]) -> Attachment:
    """The attachment again. Raises TypeError or KeyError for what was never written."""
    places = {name: tuple(document[name]) for name in ("names", "below")}
    return Attachment(**(document | places))
