"""``WS S/ws``: which conversation a socket is for."""

from __future__ import annotations

from aiohttp import web

from edge.appliance.api import streams, watch
from edge.appliance.problems import NOT_IMPLEMENTED, ApiError


async def connect(request: web.Request) -> web.StreamResponse:
    """``GET S/ws``: by ``channel``; the client watches directories without one."""
    match request.query.get("channel"):
        case None:
            return await watch.watch(request)
        case "exec":
            return await streams.connect(request)
        case _:
            raise ApiError(NOT_IMPLEMENTED)


ROUTES = [("GET", "/v1/sandboxes/{sandbox}/ws", connect)]
