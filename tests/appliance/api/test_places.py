"""Where files are: the same calls for both kinds of places."""

from __future__ import annotations

from edge.appliance.api import files, transfer
from edge.appliance.api.places import FOR_SANDBOXES, FOR_VOLUMES

ONLY_SANDBOXES = {("POST", "files/batch-write")}
"""What the published client asks of sandboxes only."""


def test_a_volume_has_the_calls_of_a_sandbox() -> None:
    """One that is added for sandboxes is there for volumes."""
    calls: dict[str, set[tuple[str, str]]] = {FOR_SANDBOXES: set(), FOR_VOLUMES: set()}
    for method, path, _ in (*files.ROUTES, *transfer.ROUTES):
        for place, found in calls.items():
            if path.startswith(place):
                found.add((method, path.removeprefix(place)))
    assert calls[FOR_SANDBOXES] - calls[FOR_VOLUMES] == ONLY_SANDBOXES
    assert calls[FOR_VOLUMES] < calls[FOR_SANDBOXES]
