"""What must hold in every history. Each function says what is wrong, one text for each thing that is.

Those of `OF_SERVED` are asked in the moment in which a request goes to its sandbox, those of `AT_THE_END` when
everybody has been answered. `a_lease_is_its_holders` is watched by the server (`servers.py`), `everything_heals` by
`World.heal`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from world import SERVED

from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State
from edge.core.settings import CatalogSettings
from edge.state.redis.changes import PROMPT
from edge.state.redis.port import BELIEVED, MEMBERSHIP
from edge.wake.trust import ASK_INTERVAL

if TYPE_CHECKING:
    from tests.model.fleet.world import FleetEdge, World

CATALOG = CatalogSettings(fresh=1.0, stale_after=5.0, stale_limit=8.0, absent_ttl=0.5)
BOUND = max(CATALOG.fresh + PROMPT, BELIEVED + ASK_INTERVAL)
"""Seconds for which something that has ended may be served while the control plane can be asked: until the last
heartbeat that does not yet tell of it is no longer fresh, and what was read in Redis until then asked for again."""
OF_SANDBOXES = CATALOG.stale_after + PROMPT
"""The same for a sandbox, about which nobody asks while the silence may be a short one."""
WORST = CATALOG.stale_limit + ASK_INTERVAL
"""The same when nobody can be asked."""
REPLACED = 3.0
"""Seconds in which somebody else does what a leader has left undone."""


# --- Of a request that is served ----------------------------------------------------------------------


def what_was_heard_is_believed(
    edge: FleetEdge, grant: GrantRecord, record: SandboxRecord
) -> Iterator[str]:
    """Nobody is served on a version older than one that this edge has heard of."""
    for served in (grant, record):
        if served.version < edge.heard[served.id]:
            yield f"{edge.name}: {served.id} v{served.version} after v{edge.heard[served.id]}"


def what_is_gone_stays_gone(
    edge: FleetEdge, grant: GrantRecord, record: SandboxRecord
) -> Iterator[str]:
    """What the control plane has said does not exist is not brought back by a change from before."""
    gone = edge.control.gone.get(record.id, 0)
    if record.version <= gone:
        yield f"{edge.name}: {record.id} v{record.version} served, gone after v{gone}"


def no_revoked_grant_past_the_bound(
    edge: FleetEdge, grant: GrantRecord, record: SandboxRecord
) -> Iterator[str]:
    """A grant or a sandbox that has ended is served for as long as the trust table says, and no longer."""
    for key in (grant.id, record.id):
        yield from _past_the_bound(edge, key, edge.world.plane.ended_at.get(key))


def no_request_to_a_retired_incarnation(
    edge: FleetEdge, grant: GrantRecord, record: SandboxRecord
) -> Iterator[str]:
    """An incarnation that was frozen gets requests for no longer than that, either."""
    at = edge.world.plane.retired_at.get((record.id, record.incarnation))
    yield from _past_the_bound(edge, f"{record.id}#{record.incarnation}", at)


def _past_the_bound(edge: FleetEdge, what: str, ended: float | None) -> Iterator[str]:
    if ended is None:
        return
    now = edge.world.loop.time()
    late, slack = now - ended, edge.lag + edge.world.network.weather.delay * 4
    if edge.world.network.weather.slow:
        slack += edge.world.network.weather.slowness * 2
    if late > WORST + slack:
        yield f"{edge.name}: {what} served {late:.2f} s after its end, past the stale limit"
    # An answer was missing, so what was known may stand up to the stale limit; that also goes for one who hears nobody.
    asking = edge.control.failed_at < ended and edge.catalog.heartbeat_age() < CATALOG.stale_after
    bound = BOUND if what in edge.world.plane.grants else OF_SANDBOXES
    if asking and WORST + slack >= late > bound + slack:
        yield f"{edge.name}: {what} served {late:.2f} s after its end, with somebody there to ask"


# --- Of a pause that nobody ordered -------------------------------------------------------------------


def a_barrier_cuts_nothing(world: World, sandbox_id: str) -> Iterator[str]:
    """A pause for inactivity finds nothing in flight on any edge that has been well lately."""
    now = world.loop.time()
    for edge in world.edges:
        well_since = max(edge.started_at, edge.actor.disturbed_at)
        lost = edge.actor.dead or edge.actor.stopped or now - well_since < MEMBERSHIP
        if edge.in_flight[sandbox_id] and not lost:
            yield f"{sandbox_id} paused under {edge.in_flight[sandbox_id]} exchanges of {edge.name}"


# --- At the end ---------------------------------------------------------------------------------------


def one_incarnation_per_wake(world: World) -> Iterator[str]:
    """Each paused execution is resumed once at most, and none that was not paused."""
    plane = world.plane
    for (sandbox_id, incarnation), count in plane.launches.items():
        if count != 1:
            yield f"{sandbox_id}: {count} launches from incarnation {incarnation}"
    for sandbox_id, record in plane.sandboxes.items():
        if record.incarnation > 1 + plane.pauses[sandbox_id]:
            yield f"{sandbox_id}: incarnation {record.incarnation} is one too many"


def every_waiter_is_answered(world: World) -> Iterator[str]:
    """Whoever asked an edge that lives has an answer, and no crash is one."""
    for code, count in world.outcomes.items():
        if code == "unanswered" or code.startswith("crashed"):
            yield f"{count} clients: {code}"


def nothing_is_left_over(world: World) -> Iterator[str]:
    """Room is given back, nobody waits, nothing has crashed."""
    for edge in world.edges:
        if edge.actor.dead or not edge.up.is_set():
            continue
        counts = edge.admission.counts()
        if any(counts.values()) or edge.wakes.waiting() or edge.catalog._signals:
            yield f"{edge.name}: {counts}, {edge.wakes.waiting()} waiting"
        if edge.notes.crashes:
            yield f"{edge.name} crashed: {edge.notes.crashes}"


def one_call_per_wake(world: World) -> Iterator[str]:
    """While nothing goes wrong, all edges together ask once for each wake."""
    if world.troubled or world.refusing or world.network.weather.lost:
        return
    for (sandbox_id, incarnation), count in world.plane.resume_calls.items():
        if count > 1:
            yield f"{sandbox_id}: {count} resumes of incarnation {incarnation}"


def followers_go_on_at_once(world: World) -> Iterator[str]:
    """From the record's change to the last of those who waited for it: nothing, in a time without computing."""
    for edge in world.edges:
        if (
            edge.up.is_set()
            and not world.troubled
            and (gaps := [g for g in edge.gaps if g > 0.005])
        ):
            yield f"{edge.name}: {max(gaps):.3f} s"


def expected(world: World, sandbox_id: str) -> str:
    """What a client is to be told once everything is well."""
    plane = world.plane
    grant = plane.grants["g_" + sandbox_id.removeprefix("sb_")]
    if grant.status is not GrantStatus.ACTIVE:
        return "preview_grant_revoked"
    if sandbox_id in plane.forgotten:
        return "sandbox_not_found"
    return "sandbox_not_found" if plane.sandboxes[sandbox_id].state is State.DESTROYED else SERVED


OF_SERVED: tuple[Callable[[FleetEdge, GrantRecord, SandboxRecord], Iterator[str]], ...] = (
    what_was_heard_is_believed,
    what_is_gone_stays_gone,
    no_revoked_grant_past_the_bound,
    no_request_to_a_retired_incarnation,
)
AT_THE_END: tuple[Callable[[World], Iterator[str]], ...] = (
    one_incarnation_per_wake,
    every_waiter_is_answered,
    nothing_is_left_over,
    one_call_per_wake,
    followers_go_on_at_once,
)
