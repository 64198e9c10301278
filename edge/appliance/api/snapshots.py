"""Snapshots and forks: copies of sandboxes' files, and the names of pauses."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from aiohttp import web

from edge.appliance.api.http import answer, parts, query, sandbox_id
from edge.appliance.bodies import read_json
from edge.appliance.idempotency import Keep
from edge.appliance.problems import invalid
from edge.appliance.snapshots.snapshot import Copy
from edge.appliance.views import Json, pause_view, sandbox_view, snapshot_view


async def fork(request: web.Request) -> web.Response:
    """``POST S/fork``: 201 with a new sandbox, running, with the same files."""
    the_parts = parts(request)
    source = the_parts.sandboxes.get(sandbox_id(request))

    async def make(keep: Keep[Json]) -> Json:
        made, token = await the_parts.copier.fork(
            source, lambda sandbox: keep(sandbox_view(sandbox))
        )
        return sandbox_view(made, traffic_access_token=token)

    return answer(await _once(request, "fork", make), 201)


async def create(request: web.Request) -> web.Response:
    """``POST S/snapshots``: 201 with a copy of the files as they are now."""
    the_parts = parts(request)
    sandbox = the_parts.sandboxes.get(sandbox_id(request))

    async def make(keep: Keep[Json]) -> Json:
        return _view(await the_parts.copier.snapshot(sandbox, lambda copy: keep(_view(copy))))

    return answer(await _once(request, "snapshot", make), 201)


async def list_all(request: web.Request) -> web.Response:
    """``GET /v1/snapshots``: of both kinds, oldest first."""
    asked = query(request, "sandbox_id", "metadata")
    wanted = _metadata(asked)
    found = [
        view
        for view in sorted(_all(request), key=lambda view: str(view["created_at"]))
        if asked.get("sandbox_id", view["sandbox_id"]) == view["sandbox_id"]
        and _has(view["metadata"], wanted)
    ]
    return answer(found)


async def get(request: web.Request) -> web.Response:
    """``GET /v1/snapshots/{id}``."""
    the_parts = parts(request)
    snapshot_id = request.match_info["snapshot"]
    copy = the_parts.copies.find(snapshot_id)
    if copy is not None:
        return answer(_view(copy))
    sandbox = the_parts.sandboxes.of_snapshot(snapshot_id)
    snapshot = next(one for one in sandbox.snapshots if one.id == snapshot_id)
    return answer(pause_view(sandbox, snapshot))


async def delete(request: web.Request) -> web.Response:
    """``DELETE /v1/snapshots/{id}``: refused for the one that a paused sandbox resumes from."""
    the_parts = parts(request)
    snapshot_id = request.match_info["snapshot"]
    if the_parts.copies.find(snapshot_id) is not None:
        await the_parts.copies.delete(snapshot_id)
    else:
        the_parts.sandboxes.forget_snapshot(snapshot_id)
    return web.Response(status=204)


async def _once(
    request: web.Request, what: str, make: Callable[[Keep[Json]], Coroutine[Any, Any, Json]]
) -> Json:
    """The answer of ``make``; the same one for a request that comes again with its Idempotency-Key."""
    key = request.headers.get("Idempotency-Key", "")
    if not key:
        return await make(lambda _: None)
    if len(key) > 255:
        raise invalid("Idempotency-Key: at most 255 characters")
    meaning = hashlib.sha256(f"{what} {sandbox_id(request)}".encode()).digest()
    return await parts(request).creates.once(key, meaning, make)


def _all(request: web.Request) -> list[Json]:
    the_parts = parts(request)
    pauses = [pause_view(*pause) for pause in the_parts.sandboxes.snapshots()]
    return [*pauses, *(_view(copy) for copy in the_parts.copies.all())]


def _view(copy: Copy) -> Json:
    told = {"created_via": "api", "memory": "not_carried"}
    return snapshot_view(copy.snapshot, {**copy.plan.metadata, **told})


def _metadata(asked: Mapping[str, str]) -> Mapping[str, object]:
    wanted = read_json(asked.get("metadata", "{}"))
    if not isinstance(wanted, dict):
        raise invalid("metadata: must be a JSON object")
    return wanted


def _has(metadata: object, wanted: Mapping[str, object]) -> bool:
    assert isinstance(metadata, dict)
    return all(key in metadata and metadata[key] == value for key, value in wanted.items())


ROUTES = [
    ("POST", "/v1/sandboxes/{sandbox}/fork", fork),
    ("POST", "/v1/sandboxes/{sandbox}/snapshots", create),
    ("GET", "/v1/snapshots", list_all),
    ("GET", "/v1/snapshots/{snapshot}", get),
    ("DELETE", "/v1/snapshots/{snapshot}", delete),
]
