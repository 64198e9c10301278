"""What a worker gets: its part of every limit, and settings that arrive as they were."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge.core.settings import Settings
from edge.ops.handover import handover, share, taken_over
from tests.core.test_settings import settings


def of(**groups: Any) -> Settings:
    """Settings for four workers."""
    return settings(listen={"workers": 4, "port": 0}, **groups)


def test_limits_are_divided_and_rounded_up() -> None:
    """No limit becomes none, and none becomes a limit; everything else stays."""
    whole = of(
        admission={"connections": 10, "waiting": 0, "in_flight_per_sandbox": 1},
        wake={"budget_per_hour": 60, "window": 3.0},
        tokens={"jwks_url": "http://x", "failures_per_minute": 3},
    )
    part = share(whole, 2, 4711)
    admission = part.admission
    assert (admission.connections, admission.waiting, admission.in_flight_per_sandbox) == (3, 0, 1)
    assert (part.wake.budget_per_hour, part.wake.window) == (15, 3.0)
    assert part.tokens.failures_per_minute == 1
    assert part.listen.port == 4711 and part.listen.workers == 4
    assert part.cookie == whole.cookie and part.deadlines == whole.deadlines


def test_every_admission_limit_is_divided() -> None:
    """A limit that is added later cannot be forgotten."""
    names = type(of().admission).model_fields
    part = share(of(admission=dict.fromkeys(names, 400)), 0, 1).admission
    # Memory is a process's own, as its setting says.
    assert part.model_dump() == dict.fromkeys(names, 100) | {"memory_bytes": 400}
    assert share(of(), 0, 1).admission.memory_bytes is None


def test_each_worker_reports_under_a_name_of_its_own() -> None:
    """Usage is numbered per name, so two workers must not share one; no name stays no name."""
    named = of(control_plane={"token": "s" * 32, "edge_id": "edge"})
    assert [share(named, i, 1).control_plane.edge_id for i in (0, 1)] == ["edge-0", "edge-1"]
    assert share(of(), 0, 1).control_plane.edge_id == ""


def test_settings_survive_the_way_to_the_worker(tmp_path: Path) -> None:
    """Every kind of value, secrets included, on one line."""
    whole = of(
        trusted_proxies=["10.0.0.0/8", "::1/128"],
        tokens={"jwks_file": tmp_path / "k", "hs256": [{"kid": "k", "secret": "s" * 32}]},
    )
    line = handover(whole, tmp_path / "0")
    assert line.count(b"\n") == 1
    arrived, admin_socket = taken_over(line)
    assert arrived == whole and admin_socket == tmp_path / "0"
    assert arrived.control_plane.token.get_secret_value() == "s" * 32
