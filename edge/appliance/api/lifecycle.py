"""Lists of lifecycle events."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import TypeVar

from aiohttp import web

from edge.appliance.api.http import answer, parts, query, sandbox_id, whole
from edge.appliance.events import EventFilter, Operation, Status
from edge.appliance.problems import SANDBOX_NOT_FOUND, SNAPSHOT_NOT_FOUND, ApiError, invalid
from edge.appliance.views import event_view

DEFAULT_LIMIT = 50
MAX_LIMIT = 1000

_PAGE = ("offset", "limit", "order", "operation", "status", "from", "to", "audience")
_IDS = ("sandbox_id", "snapshot_id", "source_sandbox_id", "target_sandbox_id")

E = TypeVar("E", bound=StrEnum)


async def all_events(request: web.Request) -> web.Response:
    """``GET /v1/lifecycle/events``: of all sandboxes, filtered by any id."""
    return _page(request, query(request, *_PAGE, *_IDS))


async def sandbox_events(request: web.Request) -> web.Response:
    """``GET S/lifecycle``: of one sandbox, also after it was destroyed."""
    sandbox = sandbox_id(request)
    if not parts(request).sandboxes.known(sandbox):
        raise ApiError(SANDBOX_NOT_FOUND)
    return _page(request, {**query(request, *_PAGE), "sandbox_id": sandbox})


async def snapshot_events(request: web.Request) -> web.Response:
    """``GET /v1/snapshots/{id}/lifecycle``: of one snapshot, also after its sandbox is gone."""
    asked = {**query(request, *_PAGE), "snapshot_id": request.match_info["snapshot"]}
    known = EventFilter(snapshot_id=asked["snapshot_id"])
    if not parts(request).events.select(known, offset=0, limit=1, ascending=True)[0]:
        raise ApiError(SNAPSHOT_NOT_FOUND)
    return _page(request, asked)


def _page(request: web.Request, asked: Mapping[str, str]) -> web.Response:
    offset = whole(asked, "offset", default=0, low=0, high=1_000_000)
    limit = whole(asked, "limit", default=DEFAULT_LIMIT, low=1, high=MAX_LIMIT)
    order = asked.get("order", "desc")
    if order not in ("asc", "desc"):
        raise invalid("order: must be asc or desc")
    if asked.get("audience", "customer") != "customer":
        raise invalid("audience: must be customer")
    wanted = EventFilter(
        sandbox_id=asked.get("sandbox_id"),
        snapshot_id=asked.get("snapshot_id"),
        source_sandbox_id=asked.get("source_sandbox_id"),
        target_sandbox_id=asked.get("target_sandbox_id"),
        operation=_one_of(Operation, asked, "operation"),
        status=_one_of(Status, asked, "status"),
        since=_time(asked, "from"),
        until=_time(asked, "to"),
    )
    events, more = parts(request).events.select(
        wanted, offset=offset, limit=limit, ascending=order == "asc"
    )
    shown = [event_view(event) for event in events]
    return answer({"events": shown, "offset": offset, "limit": limit, "has_more": more})


def _one_of(kind: type[E], asked: Mapping[str, str], name: str) -> E | None:
    if name not in asked:
        return None
    try:
        return kind(asked[name])
    except ValueError:
        raise invalid(f"{name}: must be one of {', '.join(kind)}") from None


def _time(asked: Mapping[str, str], name: str) -> float | None:
    """RFC 3339 as Unix time."""
    if name not in asked:
        return None
    try:
        # A + that was not percent-encoded arrives as a blank.
        time = datetime.fromisoformat(asked[name].replace(" ", "+"))
    except ValueError:
        raise invalid(f"{name}: must be a time such as 2026-01-31T12:00:00Z") from None
    return (time if time.tzinfo is not None else time.replace(tzinfo=UTC)).timestamp()


ROUTES = [
    ("GET", "/v1/lifecycle/events", all_events),
    ("GET", "/v1/sandboxes/{sandbox}/lifecycle", sandbox_events),
    ("GET", "/v1/snapshots/{snapshot}/lifecycle", snapshot_events),
]
