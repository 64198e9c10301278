"""Is there an order of what several clients did at once that explains every answer they got?

One sandbox, as the table of ``lifecycle.py`` has it. A call is one or more *steps*, each at one moment
between its begin and its end; a step looks at the sandbox, may change it, and fits the answer or does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from edge.appliance.lifecycle import Event, after, published
from edge.core.records import State

RUNNING, PAUSED, DESTROYED = State.RUNNING, State.PAUSED, State.DESTROYED


@dataclass(frozen=True)
class Sight:
    """The sandbox between two steps."""

    state: State
    incarnation: int
    snapshot: str | None = None

    def by(self, *events: Event, **changes: Any) -> Sight:
        """After these events of the table."""
        state = self.state
        for event in events:
            state = after(state, event)
        return replace(self, state=state, **changes)

    @property
    def resumed(self) -> Sight:
        """In its next incarnation."""
        thawed = self.by(Event.RESUME, Event.THAWED)
        return replace(thawed, incarnation=self.incarnation + 1, snapshot=None)


@dataclass(frozen=True)
class Call:
    """What was asked, when (any clock), and what was answered."""

    kind: str
    begun: float
    ended: float
    status: int
    body: Any = None
    auto_resume: bool = field(default=True, compare=False)

    @property
    def code(self) -> str:
        """Of an error."""
        return str(self.body["code"])

    @property
    def looks(self) -> tuple[object, ...]:
        """All of it that steps look at."""
        body = self.body or {}
        keys = ("id", "status", "snapshot_id", "code", "exit_code")
        return (self.kind, self.status, *map(body.get, keys))

    def __str__(self) -> str:
        said = " ".join(str(one) for one in self.looks if one is not None)
        return f"{self.begun:.4f}-{self.ended:.4f} {said}"


Step = Callable[[Call, Sight], Iterator[Sight]]


def _pause(call: Call, now: Sight) -> Iterator[Sight]:
    if now.state is RUNNING and call.status == 200:
        yield now.by(Event.PAUSE, Event.FROZEN, snapshot=call.body["id"])
    elif (now.state is PAUSED and call.status == 200 and call.body["id"] == now.snapshot) or (
        now.state is DESTROYED and _is(call, 404, "sandbox_not_found")
    ):
        yield now


def _resume(call: Call, now: Sight) -> Iterator[Sight]:
    if now.state is DESTROYED:
        if _is(call, 404, "snapshot_not_found"):
            yield now
    elif call.status == 200 and call.body["status"] == "running":
        yield now.resumed if now.state is PAUSED else now


def _kill(call: Call, now: Sight) -> Iterator[Sight]:
    if now.state is not DESTROYED and call.status == 204:
        yield now.by(Event.DESTROY, snapshot=None)
    elif now.state is DESTROYED and _is(call, 404, "sandbox_not_found"):
        yield now


def _look(call: Call, now: Sight) -> Iterator[Sight]:
    """Also of a timeout that is set: that changes no state."""
    if now.state is DESTROYED:
        if _is(call, 404, "sandbox_not_found"):
            yield now
    elif call.status == 200:
        seen = (call.body["status"], call.body.get("snapshot_id"))
        if seen == (published(now.state), now.snapshot):
            yield now


def _awake(call: Call, now: Sight) -> Iterator[Sight]:
    if now.state is RUNNING:
        yield now
    elif now.state is DESTROYED:
        if _is(call, 404, "sandbox_not_found"):
            yield now
    elif call.auto_resume:
        yield now.resumed
    elif _is(call, 409, "sandbox_not_ready"):
        yield now


def _ran(call: Call, now: Sight) -> Iterator[Sight]:
    """A command that had begun. A pause in between only delays it, unless its time is up before the resume."""
    code = call.body["exit_code"] if call.status == 200 else None
    fits = {
        RUNNING: code == 0,
        PAUSED: _is(call, 409, "sandbox_not_ready") or _is(call, 504, "exec_timeout"),
        # Killed with its sandbox, or there was none any more when it was its turn.
        DESTROYED: code == 137 or _is(call, 404, "sandbox_not_found"),
    }
    if fits[now.state]:
        yield now


def _is(call: Call, status: int, code: str) -> bool:
    return call.status == status and call.code == code


STEPS: dict[str, tuple[Step, ...]] = {
    "pause": (_pause,),
    "resume": (_resume,),
    "kill": (_kill,),
    "timeout": (_look,),
    "get": (_look,),
    "exec": (_awake, _ran),
}


def explained(calls: list[Call], first: Sight, last: Callable[[Sight], bool]) -> bool:
    """Whether some order of the steps explains all answers, and ends as ``last`` says."""
    seen: set[tuple[tuple[int, ...], Sight]] = set()
    start = tuple(0 for _ in calls)
    todo = [(start, first)]
    while todo:
        done, now = todo.pop()
        if (done, now) in seen:
            continue
        seen.add((done, now))
        open_ = [at for at, call in enumerate(calls) if done[at] < len(STEPS[call.kind])]
        if not open_:
            if last(now):
                return True
            continue
        # Nobody takes a step before somebody else's call, all of which was over by then, is done. Of calls that
        # look the same the one that had to end first goes first.
        horizon = min(calls[at].ended for at in open_)
        ready = {
            (calls[at].looks, done[at]): at
            for at in sorted(open_, key=lambda at: -calls[at].ended)
            if calls[at].begun <= horizon
        }
        ways = [
            ((*done[:at], done[at] + 1, *done[at + 1 :]), then, _may_change(calls[at], done[at]))
            for at in ready.values()
            for then in STEPS[calls[at].kind][done[at]](calls[at], now)
        ]
        # A step that fits, and could never change anything, may as well be taken at once.
        idle = [way for way in ways if way[1] == now and not way[2]]
        todo += [(moved, then) for moved, then, _ in idle[:1] or ways]
    return False


def _may_change(call: Call, step: int) -> bool:
    """Whether there is a sandbox that this step of this call would change."""
    if call.kind == "exec":
        return step == 0 and call.auto_resume and call.status != 404
    # A pause that finds its own snapshot there already came second.
    return call.kind == "resume" and call.status == 200
