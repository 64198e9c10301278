"""What a worker gets from its supervisor: its part of the settings, and how they reach it.

They travel over standard input, because arguments and the environment are seen by others on the machine.
"""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path

from pydantic import SecretStr

from edge.core.settings import Settings


def share(settings: Settings, index: int, port: int) -> Settings:
    """The settings of worker ``index``: the limits divided, everything else as given.

    Limits are per process, so each worker gets its part, rounded up; 0 stays 0 (no limit). Memory is said
    per process already. A named edge needs one name per worker, because usage reports are numbered per name.
    """
    workers = settings.listen.workers

    def part(limit: int) -> int:
        return ceil(limit / workers)

    limits = settings.admission.model_dump(exclude={"memory_bytes"})
    edge_id = settings.control_plane.edge_id
    return settings.model_copy(
        update={
            "listen": settings.listen.model_copy(update={"port": port}),
            "admission": settings.admission.model_copy(
                update={name: part(limit) for name, limit in limits.items()}
            ),
            "wake": settings.wake.model_copy(
                update={"budget_per_hour": part(settings.wake.budget_per_hour)}
            ),
            "tokens": settings.tokens.model_copy(
                update={"failures_per_minute": part(settings.tokens.failures_per_minute)}
            ),
            "control_plane": settings.control_plane.model_copy(
                update={"edge_id": f"{edge_id}-{index}" if edge_id else ""}
            ),
        }
    )


def handover(settings: Settings, admin_socket: Path) -> bytes:
    """What a worker reads from its standard input: one JSON line, secrets included."""

    def plain(value: object) -> str:
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

    body = {"settings": settings.model_dump(), "admin_socket": admin_socket}
    return json.dumps(body, default=plain).encode() + b"\n"


def taken_over(line: bytes) -> tuple[Settings, Path]:
    """The other end of `handover`."""
    body = json.loads(line)
    return Settings.model_validate(body["settings"]), Path(body["admin_socket"])
