"""Lists of lifecycle events."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web

from edge.appliance.api.http import answer, moment, one_of, page, parts, query, sandbox_id
from edge.appliance.events import EventFilter, Operation, Status
from edge.appliance.problems import SANDBOX_NOT_FOUND, SNAPSHOT_NOT_FOUND, ApiError, invalid
from edge.appliance.views import event_view

_PAGE = ("offset", "limit", "order", "operation", "status", "from", "to", "audience")
_IDS = ("sandbox_id", "snapshot_id", "source_sandbox_id", "target_sandbox_id")


async def all_events(request: web.Request) -> web.Response:
    """``GET /v1/lifecycle/events``: of all sandboxes, filtered by any id."""
    return _page(request, query(request, *_PAGE, *_IDS))


async def sandbox_events(request: web.Request) -> web.Response:
    """``GET S/lifecycle``: of one sandbox, also after it was destroyed."""
    asked = {**query(request, *_PAGE), "sandbox_id": known_sandbox(request)}
    return _page(request, asked)


async def snapshot_events(request: web.Request) -> web.Response:
    """``GET /v1/snapshots/{id}/lifecycle``: of one snapshot, also after its sandbox is gone."""
    asked = {**query(request, *_PAGE), "snapshot_id": request.match_info["snapshot"]}
    if not _any(request, EventFilter(snapshot_id=asked["snapshot_id"])):
        raise ApiError(SNAPSHOT_NOT_FOUND)
    return _page(request, asked)


def known_sandbox(request: web.Request) -> str:
    """The sandbox the path names, which there is or was. Raises `ApiError` (sandbox_not_found)."""
    sandbox = sandbox_id(request)
    known = parts(request).sandboxes.known(sandbox)
    if not known and not _any(request, EventFilter(sandbox_id=sandbox)):
        raise ApiError(SANDBOX_NOT_FOUND)
    return sandbox


def _any(request: web.Request, wanted: EventFilter) -> bool:
    found, _ = parts(request).events.select(wanted, offset=0, limit=1, ascending=True)
    return bool(found)


def _page(request: web.Request, asked: Mapping[str, str]) -> web.Response:
    offset, limit, ascending = page(asked)
    if asked.get("audience", "customer") != "customer":
        raise invalid("audience: must be customer")
    wanted = EventFilter(
        sandbox_id=asked.get("sandbox_id"),
        snapshot_id=asked.get("snapshot_id"),
        source_sandbox_id=asked.get("source_sandbox_id"),
        target_sandbox_id=asked.get("target_sandbox_id"),
        operation=one_of(Operation, asked, "operation"),
        status=one_of(Status, asked, "status"),
        since=moment(asked, "from"),
        until=moment(asked, "to"),
    )
    events, more = parts(request).events.select(
        wanted, offset=offset, limit=limit, ascending=ascending
    )
    shown = [event_view(event) for event in events]
    return answer({"events": shown, "offset": offset, "limit": limit, "has_more": more})


ROUTES = [
    ("GET", "/v1/lifecycle/events", all_events),
    ("GET", "/v1/sandboxes/{sandbox}/lifecycle", sandbox_events),
    ("GET", "/v1/snapshots/{snapshot}/lifecycle", snapshot_events),
]
