"""The operator API: what whoever runs the deployment can do about previews, and look up.

It is no part of the published API, and wants the service token, not the API key: the key is the
tenant's, and a switch that its holder can flip back is none. Edges hold the service token as well;
they gain nothing by it, because an edge lets in whom it wants to anyway.
"""

from __future__ import annotations

from aiohttp import web

from edge.appliance.api.http import answer, moment, one_of, page, parts, query, read, sandbox_id
from edge.appliance.audit import AuditFilter, Deed, Doer
from edge.appliance.requests import Switch
from edge.appliance.views import audit_view, grant_view

PREFIX = "/internal/operator/v1"


async def disable_grant(request: web.Request) -> web.Response:
    """``POST grants/{id}/disable``: nobody gets in by it, and who is in is put out."""
    wanted = await read(request, Switch)
    the_parts = parts(request)
    grant = the_parts.grants.disable(request.match_info["grant"], wanted.reason)
    return answer(grant_view(grant, the_parts.wall()))


async def enable_grant(request: web.Request) -> web.Response:
    """``POST grants/{id}/enable``: take a disable back."""
    wanted = await read(request, Switch)
    the_parts = parts(request)
    grant = the_parts.grants.enable(request.match_info["grant"], wanted.reason)
    return answer(grant_view(grant, the_parts.wall()))


async def disable_previews(request: web.Request) -> web.Response:
    """``POST sandboxes/{id}/previews/disable``: the same for all grants of a sandbox, also new ones."""
    return await _switch_previews(request, Deed.DISABLED)


async def enable_previews(request: web.Request) -> web.Response:
    """``POST sandboxes/{id}/previews/enable``: take it back. Grants disabled one by one stay so."""
    return await _switch_previews(request, Deed.ENABLED)


async def _switch_previews(request: web.Request, deed: Deed) -> web.Response:
    wanted = await read(request, Switch)
    the_parts = parts(request)
    sandbox = the_parts.sandboxes.get(sandbox_id(request))
    if the_parts.sandboxes.switch_previews(sandbox, disabled=deed is Deed.DISABLED):
        the_parts.audit.previews(deed, sandbox.id, reason=wanted.reason)
    return answer({"sandbox_id": sandbox.id, "previews_disabled": sandbox.previews_disabled})


async def audit(request: web.Request) -> web.Response:
    """``GET audit``: the trail, newest first, filtered; also of what exists no more."""
    asked = query(
        request,
        *("offset", "limit", "order", "sandbox_id", "grant_id", "event", "actor", "from", "to"),
    )
    offset, limit, ascending = page(asked)
    wanted = AuditFilter(
        sandbox_id=asked.get("sandbox_id"),
        grant_id=asked.get("grant_id"),
        deed=one_of(Deed, asked, "event"),
        doer=one_of(Doer, asked, "actor"),
        since=moment(asked, "from"),
        until=moment(asked, "to"),
    )
    entries, more = parts(request).audit.select(
        wanted, offset=offset, limit=limit, ascending=ascending
    )
    shown = [audit_view(entry) for entry in entries]
    return answer({"events": shown, "offset": offset, "limit": limit, "has_more": more})


ROUTES = [
    ("POST", f"{PREFIX}/grants/{{grant}}/disable", disable_grant),
    ("POST", f"{PREFIX}/grants/{{grant}}/enable", enable_grant),
    ("POST", f"{PREFIX}/sandboxes/{{sandbox}}/previews/disable", disable_previews),
    ("POST", f"{PREFIX}/sandboxes/{{sandbox}}/previews/enable", enable_previews),
    ("GET", f"{PREFIX}/audit", audit),
]
