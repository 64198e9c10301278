"""What Redis is asked, as a formula, and whether what was counted obeys it.

With E edges, of which A are asked for one sandbox at the same time, and W wakes a second, a single server carries out
so many commands a second::

    (19 + E) / 0.3     the publisher's heartbeats (16 shards, members, MULTI, EXEC), each read once by each edge
    + E                edges join the members again
    + 1                a look at left usage
    + 0 * requests     to sandboxes and under grants that an edge knows
    + 2 * (edge, sandbox and grant) that is met for the first time
    + W * (2           the lease: taken, left
    +      2 * r * (A - 1)   the others look on: r rounds of a try for the lease and a look at the record
    +      c           changes of a wake (resuming, running), published
    +      2 * t       in t transactions, 1 <= t <= c
    +      E * t)      each of which wakes every edge's reader once

r is 1 or 2 for a resume under 0.1 s, and one more for each further 0.1 s.

The server counts commands inside of scripts, too. That tells the scripts apart, for each has a command that no
other has: only a heartbeat adds to a stream without writing a record, only a look asks for a length, and so on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from edge.state.redis.changes import BLOCK
from edge.state.redis.layout import SHARDS
from edge.state.redis.port import LOOK
from edge.state.redis.publisher import BEAT

CHANGES = 2
"""Changes of one wake: resuming, running."""
SENT = ("eval", "eval_ro", "xread", "multi", "exec")
"""Commands that somebody sends; all others are parts of scripts."""
INSIDE = frozenset(
    """xrevrange xrange xadd get set pttl hget hset hstrlen persist pexpire time type info
    zadd zremrangebyscore zremrangebyrank zrangebyscore""".split()
)
CONNECTING = frozenset({"select", "auth", "hello", "client|setinfo", "ping"})


@dataclass(frozen=True, slots=True)
class Stage:
    """What happened between two looks at the server's counters, as those know it who did it."""

    name: str
    seconds: float
    edges: int
    requests: int = 0
    wakes: int = 0
    asking: int = 1
    """Edges that were asked for each of the sandboxes that were woken."""
    cold: int = 0
    """Records that were met for the first time: once for each edge that met them."""
    resume_calls: int = 0
    """Calls for a resume, counted by the control plane."""
    asked_directly: int = 0
    """Look-ups the control plane was asked for, because Redis could not be believed just then."""
    longest: float = 0.0
    """Seconds of the longest answer."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the server did, by what it was for."""

    sent: int
    beats: int
    joins: int
    publishes: int
    transactions: int
    takes: int
    leaves: int
    keeps: int
    looks: int
    glances: int
    """At who is a member, and at left usage."""
    reads: int


def work_of(calls: Mapping[str, int]) -> Work:
    """Tell scripts apart by the commands inside of them. ``calls``: how often each command was carried out."""
    count = {name: calls.get(name, 0) for name in (*SENT, *INSIDE)}
    beats = count["xadd"] - count["persist"]
    keeps = count["pexpire"]
    # A try for the lease sets, and looks who has it only in vain; leaving it looks, then sets; keeping it looks.
    leaves = beats + count["set"] + keeps - count["get"]
    return Work(
        sent=sum(count[name] for name in SENT),
        beats=beats,
        joins=count["zadd"],
        publishes=count["persist"],
        transactions=count["exec"],
        takes=count["set"] - leaves,
        leaves=leaves,
        keeps=keeps,
        looks=count["hstrlen"],
        glances=count["zrangebyscore"] + count["xrange"],
        reads=count["xread"],
    )


def background(edges: int) -> float:
    """Commands a second that a fleet costs at rest."""
    return (3 + SHARDS + edges) / BEAT + edges + 1


def of_a_wake(edges: int, asking: int, rounds: float = 2.0, transactions: float = CHANGES) -> float:
    """Commands of one wake, look-ups of what was not known apart."""
    return 2 + 2 * rounds * (asking - 1) + CHANGES + transactions * (2 + edges)


def most(stage: Stage) -> float:
    """Commands a stage may take at the very most."""
    rounds = 2 + stage.longest / LOOK
    at_rest = (3 + SHARDS + stage.edges) * (stage.seconds / BEAT + 1)
    unheard = stage.edges * (ceil(stage.seconds / BLOCK) + 1)
    joining = (stage.edges + 1) * (stage.seconds + 1)
    wakes = stage.wakes * of_a_wake(stage.edges, stage.asking, rounds)
    # A lease that is held for longer is kept by one command now and then: that is within a round's.
    return at_rest + unheard + joining + stage.cold + wakes


def broken(stage: Stage, calls: Mapping[str, int]) -> list[str]:
    """The laws that what was counted does not obey; none depends on how fast the machine is."""
    work = work_of(calls)
    strange = {
        name for name, count in calls.items() if count and name not in {*SENT, *INSIDE, *CONNECTING}
    }
    followed = calls.get("xrevrange", 0) - work.beats - work.publishes - work.looks
    scripts = work.beats + work.joins + work.publishes + work.takes + work.leaves + work.keeps
    latest = stage.edges * (work.transactions + ceil(stage.seconds / BLOCK) + 1)
    laws = {
        f"commands the formula does not know: {sorted(strange)}": not strange,
        f"heartbeats come for all shards at once: {work.beats}": work.beats % SHARDS == 0,
        f"every script is known: {calls.get('eval', 0)} sent, {scripts} explained": (
            calls.get("eval", 0) == scripts
        ),
        f"every look-up is known: {calls.get('eval_ro', 0)} sent": (
            calls.get("eval_ro", 0) == work.looks + work.glances
        ),
        f"streams are looked up whole: {followed}": followed >= 0 and followed % SHARDS == 0,
        f"one read per edge and transaction: {work.reads} of at most {latest}": (
            work.reads <= latest
        ),
        # An edge that cannot believe Redis just then asks without a lease, for itself.
        f"leases lead to calls for a resume: {work.leaves}, {stage.resume_calls}": (
            bool(work.leaves) == bool(stage.wakes) and work.leaves <= stage.resume_calls
        ),
        f"a wake takes a call, or one for each edge: {stage.resume_calls} for {stage.wakes}": (
            stage.wakes <= stage.resume_calls <= stage.wakes * stage.asking
        ),
        f"one or {CHANGES} changes a wake: {work.publishes} for {stage.wakes}": (
            stage.wakes <= work.publishes <= CHANGES * stage.wakes
        ),
        f"looks: {work.looks} and {stage.asked_directly}, {stage.cold} at what was not known": (
            work.looks + stage.asked_directly >= stage.cold + work.takes - work.leaves
        ),
        f"commands: {work.sent}, at most {most(stage):.0f}": work.sent <= most(stage),
    }
    if not stage.wakes and not stage.cold:
        laws[f"a request costs nothing: {work.looks} looks, {work.takes} leases"] = not (
            work.looks or work.takes or work.publishes
        )
    return [law for law, held in laws.items() if not held]


def beyond_rest(stage: Stage, calls: Mapping[str, int]) -> int:
    """Commands that are not the fleet's own at rest: exact but for reads, which count by transactions."""
    work = work_of(calls)
    beaten = work.beats // SHARDS
    published = work.transactions - beaten
    own = {"eval": work.publishes + work.takes + work.leaves + work.keeps, "eval_ro": work.looks}
    reads = min(work.reads, stage.edges * published)
    return sum(own.values()) + 2 * published + reads
