"""Who lives in the fleet's world, and what the edges are told."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from bench.fleet.plane import HANGS, LATE
from bench.world import LIVE, RUNNING, World, host_of
from edge.core.records import State, Transport

HANGING = 20
"""Sandboxes that never come back, for many to wait for."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything."""

    sandboxes: int = 100_000
    edges: int = 20
    processes: int = 2
    requests: int = 6000
    burst: int = 1000
    shared: int = 100
    asking: int = 3
    waited_for: int = 50
    rate: float = 50.0
    seconds: float = 20.0
    known: int = 10_000
    waiters: int = 2000
    tunnels: int = 2000

    @property
    def paced(self) -> int:
        """Wakes at the steady rate."""
        return round(self.rate * self.seconds)


SMALL = Sizes(
    sandboxes=400, edges=4, processes=1, requests=80, burst=12, shared=4, asking=3, waited_for=3, rate=10.0, seconds=1.0,
    known=100, waiters=40, tunnels=40,
)  # fmt: skip
"""Enough to see that everything works."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that a preview's cookie, or a token, authorises."""

    sandbox_id: str
    target: str
    fields: dict[str, str]


@dataclass
class FleetWorld:
    """Everything there is, and the requests that may be made."""

    world: World
    known: list[str]
    running: Visit
    socket: Visit
    sleeping: list[Visit]
    late: list[Visit]
    refused: list[Visit]
    hanging: list[Visit]


def build(app_port: int, sizes: Sizes) -> FleetWorld:
    """A world of these sizes; all sandboxes share the one app."""
    world = World(fast_port=app_port, live_port=app_port)
    world.add_sandbox(RUNNING, State.RUNNING)
    running = _visit(world, RUNNING)
    token = world.token(RUNNING, LIVE, Transport.WEBSOCKET)
    socket = replace(running, target=f"/live/ws?edge_token={token}")
    sleepers = [
        f"sb_sleeper{number:06d}" for number in range(sizes.burst + sizes.shared + sizes.paced)
    ]
    hangs = [f"{HANGS}{number:06d}" for number in range(HANGING)]
    late = [f"{LATE}{number:06d}" for number in range(sizes.waited_for)]
    for sandbox_id in (*sleepers, *hangs, *late):
        world.add_sandbox(sandbox_id, State.PAUSED)
    known = [f"sb_known{n:07d}" for n in range(sizes.sandboxes - len(world.sandboxes))]
    for sandbox_id in known:
        world.add_sandbox(sandbox_id, State.PAUSED)
        # Answered by what is known of them, at once and without an app.
        world.sandboxes[-1] = replace(world.sandboxes[-1], auto_resume=False)
    return FleetWorld(
        world=world,
        known=known,
        running=running,
        socket=socket,
        sleeping=[_visit(world, one) for one in sleepers],
        late=[_visit(world, one) for one in late],
        refused=[_visit(world, one) for one in known[: sizes.known]],
        hanging=[_visit(world, one) for one in hangs],
    )


def _visit(world: World, sandbox_id: str) -> Visit:
    fields = {"Host": host_of(sandbox_id, LIVE), "Cookie": world.cookie(sandbox_id, LIVE)}
    return Visit(sandbox_id, "/live/now", fields)


def settings(world: World, control_plane_port: int, redis_url: str, log: Path) -> str:
    """Production's settings, but for patience: all edges of a fleet share this machine's few cores, and one that
    waits for its turn shall not look like a Redis or a control plane in trouble.
    """
    base = world.edge_settings(control_plane_port, log)
    base = base.replace("[control_plane]", "[control_plane]\ntimeout = 30.0")
    return f"""{base}
[redis]
url = {json.dumps(redis_url)}
timeout = 30.0
lease = 60.0
[catalog]
fresh = 60.0
stale_after = 60.0
[wake]
window = 120.0
[admission]
in_flight_per_sandbox = 0
[drain]
timeout = 0.0
waiters = 0.0
tunnels = 0.0
"""
