"""Sandboxes: get, list, pause, resume, destroy, timeout."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from aiohttp import web

from edge.appliance.api.http import (
    answer,
    fields_of,
    number,
    only,
    parts,
    query,
    read,
    sandbox_id,
    whole,
)
from edge.appliance.bodies import read_json
from edge.appliance.lifecycle import published
from edge.appliance.problems import (
    INCOMPATIBLE_SNAPSHOT,
    ApiError,
    invalid,
)
from edge.appliance.requests import SetTimeout
from edge.appliance.sandbox import Sandbox
from edge.appliance.views import SANDBOX_FIELDS, Json, pause_view, sandbox_view
from edge.core.records import State

MAX_PAGE = 1000
DEFAULT_PAGE = 100


async def get(request: web.Request) -> web.Response:
    """``GET S``: the sandbox, or the fields asked for."""
    fields = fields_of(query(request, "fields"), SANDBOX_FIELDS)
    sandbox = parts(request).sandboxes.get(sandbox_id(request))
    return answer(only(sandbox_view(sandbox), fields))


async def list_all(request: web.Request) -> web.Response:
    """``GET /v1/sandboxes``: without a query all of them, with one a page of those asked for."""
    living = parts(request).sandboxes.living()
    if not request.query_string:
        return answer([sandbox_view(sandbox) for sandbox in living])
    asked = query(request, "state", "template", "metadata", "limit", "next_token", "fields")
    fields = fields_of(asked, SANDBOX_FIELDS)
    states, wanted = _states(asked), _metadata(asked)
    limit = whole(asked, "limit", default=DEFAULT_PAGE, low=1, high=MAX_PAGE)
    after = _position(asked.get("next_token"))
    found = [
        sandbox
        for sandbox in living
        if sandbox.number > after
        and (states is None or published(sandbox.state) in states)
        and asked.get("template", sandbox.plan.template) == sandbox.plan.template
        and all(
            key in sandbox.plan.metadata and sandbox.plan.metadata[key] == value
            for key, value in wanted.items()
        )
    ]
    page = found[:limit]
    result: Json = {
        "items": [only(sandbox_view(sandbox), fields) for sandbox in page],
        "has_next": len(found) > limit,
    }
    if len(found) > limit:
        result["next_token"] = _token(page[-1])
    return answer(result)


async def hibernate(request: web.Request) -> web.Response:
    """``POST S/hibernate``: pause now; answers the snapshot."""
    sandboxes = parts(request).sandboxes
    sandbox = sandboxes.get(sandbox_id(request))
    return answer(pause_view(sandbox, await sandboxes.pause(sandbox)))


async def resume(request: web.Request) -> web.Response:
    """``POST /v1/sandboxes/{snapshot_id}/resume``: the sandbox of that snapshot, running."""
    view: Json = {}
    # The same place in the path as everywhere; here it names a snapshot.
    snapshot = sandbox_id(request)
    if parts(request).copies.find(snapshot) is not None:
        raise ApiError(
            INCOMPATIBLE_SNAPSHOT, "The snapshot has files and no memory: create a sandbox from it."
        )
    await parts(request).sandboxes.resume(
        snapshot, seen=lambda sandbox: view.update(sandbox_view(sandbox))
    )
    return answer(view)


async def destroy(request: web.Request) -> web.Response:
    """``DELETE S``: end it."""
    sandboxes = parts(request).sandboxes
    await sandboxes.destroy(sandboxes.get(sandbox_id(request)))
    return web.Response(status=204)


async def set_timeout(request: web.Request) -> web.Response:
    """``POST S/timeout``: start the timeout anew."""
    wanted = await read(request, SetTimeout)
    sandboxes = parts(request).sandboxes
    sandbox = sandboxes.get(sandbox_id(request))
    sandboxes.set_timeout(sandbox, wanted)
    return answer(sandbox_view(sandbox))


def _states(asked: Mapping[str, str]) -> set[str] | None:
    if "state" not in asked:
        return None
    states = set(asked["state"].split(","))
    known = {published(state) for state in State}
    if not states <= known:
        raise invalid(f"state: must be of {', '.join(sorted(known))}")
    return states


def _metadata(asked: Mapping[str, str]) -> dict[str, object]:
    if "metadata" not in asked:
        return {}
    wanted = read_json(asked["metadata"])
    if not isinstance(wanted, dict):
        raise invalid("metadata: must be a JSON object")
    return wanted


def _token(last: Sandbox) -> str:
    return base64.urlsafe_b64encode(f"after:{last.number}".encode()).decode()


def _position(token: str | None) -> int:
    """The number behind which a page begins."""
    if token is None:
        return 0
    try:
        name, _, text = base64.urlsafe_b64decode(token).decode("ascii").partition(":")
    except (binascii.Error, ValueError):
        name, text = "", ""
    position = number(text)
    if name != "after" or not isinstance(position, int):
        raise invalid("next_token: must be one that a list answered")
    return position


ROUTES = [
    ("GET", "/v1/sandboxes", list_all),
    ("GET", "/v1/sandboxes/{sandbox}", get),
    ("DELETE", "/v1/sandboxes/{sandbox}", destroy),
    ("POST", "/v1/sandboxes/{sandbox}/hibernate", hibernate),
    ("POST", "/v1/sandboxes/{sandbox}/resume", resume),
    ("POST", "/v1/sandboxes/{sandbox}/timeout", set_timeout),
]
