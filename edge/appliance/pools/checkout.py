"""What a create gets from the pool it names, and why it may get nothing: rules without any state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edge.appliance.pools.definition import Definition
from edge.appliance.requests import CheckoutMode, Create

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class Checkout:
    """``place`` is the instance that the create was given, None for a cold create; ``view`` is told."""

    place: str | None
    view: Mapping[str, object]


COLD = Checkout(None, {"source": "cold_create", "hit": False})
"""Of a create that names no pool."""


def checked_out(wanted: Create, mode: CheckoutMode, place: str | None) -> Checkout:
    """The outcome for a create that names a pool."""
    pool = wanted.warm_pool
    assert pool is not None
    source = "bypassed" if mode == "bypass" else "cold_create"
    view: Json = {"source": source if place is None else "ready_instance", "hit": place is not None}
    optional: Json = {"id": pool.id, "mode": mode, "wait_ms": pool.wait_ms}
    view |= {key: value for key, value in optional.items() if value is not None}
    return Checkout(place, view)


def unpoolable(wanted: Create) -> list[str]:
    """The fields of a create that no instance could have been made with."""
    network = wanted.network
    said = {
        "envs": wanted.envs,
        "volumes": wanted.volumes,
        "cwd": wanted.cwd,
        "desktop": wanted.desktop is not None,
        "network": network is not None and network.custom,
        "internet_access": wanted.internet_access is False,
        "timeout_action": wanted.action != "destroy",
        "auto_resume": wanted.auto_resume,
        "snapshot_id": wanted.snapshot_id,
    }
    return [field for field, asked in said.items() if asked]


def mismatches(wanted: Create, definition: Definition) -> list[str]:
    """The fields in which a create asks for something else than the pool holds.

    ``disk_mb`` is a minimum that need not be said; whoever says nothing takes the pool's.
    """
    held = definition.resources
    differ = {
        "template": wanted.template != definition.template_ref,
        "vcpus": wanted.vcpus != held.vcpus,
        "memory_mb": wanted.memory_mb != held.memory_mb,
        "disk_mb": wanted.disk_mb is not None and wanted.disk_mb != held.disk_mb,
    }
    return [field for field, different in differ.items() if different]
