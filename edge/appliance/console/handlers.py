"""What can be seen and done: each handler is a page, or one call of the API and the way back to a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from edge.appliance.api.http import number
from edge.appliance.console import live
from edge.appliance.console.pages import page
from edge.appliance.console.visit import PREFIX, Room, Visit, see_other
from edge.appliance.events import EventFilter, LifecycleEvent, Operation, Status
from edge.appliance.grant import AuthMode, Grant
from edge.appliance.minter import Preview
from edge.appliance.parts import Parts
from edge.appliance.problems import SANDBOX_NOT_FOUND, SANDBOX_NOT_READY, ApiError, invalid
from edge.appliance.sandbox import CONSOLE, Sandbox
from edge.core.records import State

MAX_SANDBOXES = 200
MAX_WAKES = 10
MAX_EVENTS = 50
MAX_GRANTS = 50
"""Of each, the newest are shown."""

LIFETIMES: Final = {900: "15 minutes", 3600: "1 hour", 86_400: "1 day"}
"""Lifetimes of a new link that can be chosen, in seconds."""

_WAKES = EventFilter(operation=Operation.RESUME_FROM_SNAPSHOT)


@dataclass(frozen=True, slots=True)
class Line:
    """One grant as it is shown: where it leads, and whether it can still be revoked."""

    grant: Grant
    url: str
    status: str
    standing: bool


# --- Looking: nothing here wakes a sandbox ------------------------------------------------------------


async def sandboxes(visit: Visit) -> web.Response:
    """``GET /console``: all sandboxes, and the newest wakes."""
    parts = visit.parts
    living = parts.sandboxes.living()
    newest = living[: -MAX_SANDBOXES - 1 : -1]
    uses = {
        sandbox.id: sum(g.requests + g.websockets for g in parts.grants.of(sandbox.id))
        for sandbox in newest
    }
    wakes, _ = parts.events.select(_WAKES, offset=0, limit=MAX_WAKES, ascending=False)
    values = {
        "sandboxes": newest,
        "uses": uses,
        "more": len(living) - len(newest),
        "wakes": wakes,
    }
    return page("sandboxes", _frame(visit, PREFIX) | values)


async def sandbox(visit: Visit) -> web.Response:
    """``GET /console/sandboxes/{id}``: one of them, also after it has ended."""
    return _sandbox(visit)


async def events(visit: Visit) -> web.Response:
    """``GET /console/events``: the newest lifecycle events of all sandboxes."""
    shown, more = _events(visit.parts, EventFilter())
    return page("events", _frame(visit, f"{PREFIX}/events") | {"events": shown, "more": more})


async def stream(visit: Visit) -> web.StreamResponse:
    """``GET /console/stream``: server-sent events that say when to look again."""
    console = visit.console
    return await live.follow(
        visit.request,
        visit.parts,
        console.streams,
        visit.session,
        lambda: console.sessions.left(visit.session),
    )


# --- Changing -----------------------------------------------------------------------------------------


async def pause(visit: Visit) -> web.Response:
    """``POST .../pause``: now, whatever is in flight."""
    sandboxes = visit.parts.sandboxes
    await sandboxes.pause(sandboxes.get(visit.sandbox_id), CONSOLE)
    return _back(visit)


async def resume(visit: Visit) -> web.Response:
    """``POST .../resume``: from the snapshot it has; one that runs already stays as it is."""
    sandboxes = visit.parts.sandboxes
    sandbox = sandboxes.get(visit.sandbox_id)
    if sandbox.snapshot is not None:
        await sandboxes.resume(sandbox.snapshot.id, CONSOLE)
    elif sandbox.state not in (State.RUNNING, State.PAUSING):
        raise ApiError(SANDBOX_NOT_READY)
    return _back(visit)


async def ask_kill(visit: Visit) -> web.Response:
    """``GET .../kill``: the question."""
    sandbox = visit.parts.sandboxes.get(visit.sandbox_id)
    return page("kill", _frame(visit) | {"sandbox": sandbox})


async def kill(visit: Visit) -> web.Response:
    """``POST .../kill``: end it; back to the list."""
    sandboxes = visit.parts.sandboxes
    await sandboxes.destroy(sandboxes.get(visit.sandbox_id), CONSOLE)
    return see_other(PREFIX)


async def new_link(visit: Visit) -> web.Response:
    """``POST .../links``: a link for a port. Shown in this answer and never again: grants keep no tokens."""
    parts, form = visit.parts, visit.form
    sandbox = parts.sandboxes.get(visit.sandbox_id)
    seconds = number(form.get("seconds", ""))
    if seconds not in LIFETIMES or not isinstance(seconds, int):
        raise invalid("seconds: must be one of the lifetimes offered")
    preview = parts.grants.issue(sandbox.id, number(form.get("port", "").strip()), seconds)
    return _sandbox(visit, preview, seconds)


async def revoke(visit: Visit) -> web.Response:
    """``POST .../links/{grant}/revoke``: end a grant, with both of its URLs."""
    parts = visit.parts
    parts.grants.revoke(parts.sandboxes.get(visit.sandbox_id).id, visit.request.match_info["grant"])
    return _back(visit)


# --- Parts of pages -----------------------------------------------------------------------------------


def _sandbox(visit: Visit, made: Preview | None = None, seconds: int = 900) -> web.Response:
    parts, sandbox_id = visit.parts, visit.sandbox_id
    sandbox = _living(parts, sandbox_id)
    shown, more = _events(parts, EventFilter(sandbox_id=sandbox_id))
    if sandbox is None and not shown:
        raise ApiError(SANDBOX_NOT_FOUND)
    grants = parts.grants.of(sandbox_id)[::-1] if sandbox is not None else []
    here = f"{PREFIX}/sandboxes/{sandbox_id}"
    values = {
        "here": here,
        "sandbox_id": sandbox_id,
        "sandbox": sandbox,
        "state": sandbox.state if sandbox is not None else State.DESTROYED,
        "uses": sum(g.requests + g.websockets for g in grants),
        "links": [_line(parts, grant) for grant in grants[:MAX_GRANTS]],
        "more_links": max(0, len(grants) - MAX_GRANTS),
        "made": made,
        "port": grants[0].port if grants else "",
        "seconds": seconds,
        "lifetimes": LIFETIMES,
        "events": shown,
        "more_events": more,
    }
    return page("sandbox", _frame(visit, here) | values)


def _living(parts: Parts, sandbox_id: str) -> Sandbox | None:
    try:
        return parts.sandboxes.get(sandbox_id)
    except ApiError:
        return None


def _line(parts: Parts, grant: Grant) -> Line:
    secret = "?edge_token=<redacted>" if grant.mode is AuthMode.DIRECT else ""
    now = parts.wall()
    return Line(
        grant,
        parts.minter.place(grant) + secret,
        grant.status(now).value,
        standing=not grant.ended(now),
    )


def _events(parts: Parts, wanted: EventFilter) -> tuple[list[LifecycleEvent], bool]:
    return parts.events.select(wanted, offset=0, limit=MAX_EVENTS, ascending=False)


def _frame(visit: Visit, live_at: str = "") -> dict[str, object]:
    """What every page is given: ``live_at`` is where a script asks for it again; empty = not live."""
    return {
        "prefix": PREFIX,
        "token": visit.session.token,
        "now": visit.parts.wall(),
        "live_at": live_at,
        "Status": Status,
    }


def _back(visit: Visit) -> web.Response:
    return see_other(f"{PREFIX}/sandboxes/{visit.sandbox_id}")


_SANDBOX = "/sandboxes/{sandbox:sb_[a-z0-9]{8,40}}"
ROUTES: list[tuple[str, str, Room]] = [
    ("GET", "", sandboxes),
    ("GET", "/events", events),
    ("GET", "/stream", stream),
    ("GET", _SANDBOX, sandbox),
    ("POST", f"{_SANDBOX}/pause", pause),
    ("POST", f"{_SANDBOX}/resume", resume),
    ("GET", f"{_SANDBOX}/kill", ask_kill),
    ("POST", f"{_SANDBOX}/kill", kill),
    ("POST", f"{_SANDBOX}/links", new_link),
    ("POST", f"{_SANDBOX}/links/{{grant}}/revoke", revoke),
]
