"""What needs no key: health, and the public keys."""

from __future__ import annotations

from aiohttp import web

from edge import __version__
from edge.appliance.api.http import answer, parts


async def healthz(_: web.Request) -> web.Response:
    """``GET /healthz``: the process is alive and answers."""
    return answer({"status": "ok", "version": __version__})


async def jwks(request: web.Request) -> web.Response:
    """``GET /.well-known/jwks.json``: the public keys of preview tokens."""
    return answer(parts(request).keys.jwks)


ROUTES = [
    ("GET", "/healthz", healthz),
    ("GET", "/.well-known/jwks.json", jwks),
]
