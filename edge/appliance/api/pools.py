"""Template warm pools: define, list, change, switch."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from edge.appliance.api.http import answer, one_of, parts, query, read_json_body, whole
from edge.appliance.pools.definition import defined, label_filter, updated
from edge.appliance.pools.pool import Pool, PoolState, PoolStatus
from edge.appliance.pools.pools import MOST_POOLS, Pools
from edge.appliance.pools.view import pool_view

PATH = "/v1/template-warm-pools"


async def create(request: web.Request) -> web.Response:
    """``POST``: 201 with the pool, which begins to fill."""
    definition = defined(await read_json_body(request))
    return answer(pool_view(parts(request).pools.create(definition)), 201)


async def list_all(request: web.Request) -> web.Response:
    """``GET``: those that fit what is asked for, oldest first. ``label`` may be there several times."""
    labels = label_filter(request.query.getall("label", []))
    asked = query(request, "template", "state", "status", "limit", repeated=("label",))
    state = one_of(PoolState, asked, "state")
    status = one_of(PoolStatus, asked, "status")
    limit = whole(asked, "limit", default=MOST_POOLS, low=1, high=1000)
    found = [
        pool
        for pool in parts(request).pools.all()
        if asked.get("template") in (None, pool.standing.definition.template_ref)
        and state in (None, pool.standing.state)
        and status in (None, pool.status)
        and labels.items() <= pool.standing.definition.labels.items()
    ]
    return answer({"items": [pool_view(pool) for pool in found[:limit]]})


async def get(request: web.Request) -> web.Response:
    """``GET {id}``, and ``GET {id}/status``: the pool, with its counts."""
    return answer(pool_view(_pool(request)))


async def update(request: web.Request) -> web.Response:
    """``PATCH {id}``: change what is named; the pool."""
    body = await read_json_body(request)
    pool = _pool(request)
    parts(request).pools.redefine(pool, updated(pool.standing.definition, body))
    return answer(pool_view(pool))


async def delete(request: web.Request) -> web.Response:
    """``DELETE {id}``: end it; the pool as it was last."""
    pool = _pool(request)
    parts(request).pools.delete(pool)
    return answer(pool_view(pool))


async def enable(request: web.Request) -> web.Response:
    """``POST {id}/enable``: instances are made again."""
    return _switched(request, Pools.enable)


async def disable(request: web.Request) -> web.Response:
    """``POST {id}/disable``: its instances end, and none are made."""
    return _switched(request, Pools.disable)


async def drain(request: web.Request) -> web.Response:
    """``POST {id}/drain``: the same; disabled once the last one has ended."""
    return _switched(request, Pools.drain)


async def reconcile(request: web.Request) -> web.Response:
    """``POST {id}/reconcile``: try at once what has failed."""
    return _switched(request, Pools.reconcile)


def _pool(request: web.Request) -> Pool:
    return parts(request).pools.get(request.match_info["pool"])


def _switched(request: web.Request, switch: Callable[[Pools, Pool], None]) -> web.Response:
    pool = _pool(request)
    switch(parts(request).pools, pool)
    return answer(pool_view(pool))


ROUTES = [
    ("POST", PATH, create),
    ("GET", PATH, list_all),
    ("GET", f"{PATH}/{{pool}}", get),
    ("PATCH", f"{PATH}/{{pool}}", update),
    ("DELETE", f"{PATH}/{{pool}}", delete),
    ("POST", f"{PATH}/{{pool}}/enable", enable),
    ("POST", f"{PATH}/{{pool}}/disable", disable),
    ("POST", f"{PATH}/{{pool}}/drain", drain),
    ("POST", f"{PATH}/{{pool}}/reconcile", reconcile),
    ("GET", f"{PATH}/{{pool}}/status", get),
]
