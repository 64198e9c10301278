"""Which creates can have an instance, and what they are told."""

from __future__ import annotations

from typing import Any

import pytest
from warehouse import create, definition

from edge.appliance.pools.checkout import COLD, checked_out, mismatches, unpoolable


@pytest.mark.parametrize(
    ("said", "fields"),
    [
        ({"envs": {"A": "1"}}, ["envs"]),
        ({"volumes": [{"ref": "x", "mount_path": "/workspace/x"}]}, ["volumes"]),
        ({"cwd": "/workspace"}, ["cwd"]),
        ({"desktop": {}}, ["desktop"]),
        ({"network": {"allow_public_traffic": False}}, ["network"]),
        ({"network": {"mask_request_host": "a"}}, ["network"]),
        ({"network": {"deny_out": ["0.0.0.0/0"]}}, ["network"]),
        ({"internet_access": False}, ["internet_access"]),
        ({"timeout_action": "hibernate"}, ["timeout_action"]),
        ({"lifecycle": {"on_timeout": "pause"}}, ["timeout_action"]),
        ({"timeout_action": "hibernate", "auto_resume": True}, ["timeout_action", "auto_resume"]),
        ({"snapshot_id": "snap_1"}, ["snapshot_id"]),
        # What an instance is given only when it is handed out, and what is as it would be anyway:
        ({"metadata": {"a": 1}, "timeout_ms": 1000, "inactivity_timeout_ms": 1000}, []),
        ({"envs": {}, "volumes": [], "cwd": None, "network": None, "desktop": None}, []),
        ({"network": {"allow_public_traffic": True}, "internet_access": True}, []),
        ({"timeout_action": "destroy", "auto_resume": False}, []),
    ],
)
def test_what_is_not_poolable(said: dict[str, Any], fields: list[str]) -> None:
    """Whatever an instance would have to be made with."""
    assert unpoolable(create("p", **said)) == fields


def test_template_and_resources_have_to_be_the_same() -> None:
    """Except that a create need not say how much disk it wants."""
    held = definition(resources={"disk_mb": 100})
    assert mismatches(create("p"), held) == []
    assert mismatches(create("p", disk_mb=100), held) == []
    other = create("p", template="x", vcpus=1, memory_mb=1, disk_mb=1)
    assert mismatches(other, held) == ["template", "vcpus", "memory_mb", "disk_mb"]


def test_what_is_told() -> None:
    """Source, hit, and what was asked for, as far as it was."""
    assert COLD.view == {"source": "cold_create", "hit": False}
    hit = checked_out(create("p", wait_ms=5), "require", "sb_1")
    assert (hit.place, hit.view["source"], hit.view["hit"]) == ("sb_1", "ready_instance", True)
    assert (hit.view["id"], hit.view["mode"], hit.view["wait_ms"]) == ("p", "require", 5)
    assert checked_out(create("p"), "prefer", None).view["source"] == "cold_create"
    assert checked_out(create("p"), "bypass", None).view["source"] == "bypassed"
