"""``GET /openapi.json``: what this control plane offers, for programs that want to know."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from aiohttp import web

from edge.appliance.api.http import answer
from edge.appliance.description.document import describe


class Description:
    """Of one application. Made when somebody asks for it, because most runs are never asked."""

    def __init__(self, app: web.Application) -> None:
        self._app = app

    @cached_property
    def document(self) -> dict[str, Any]:
        """As OpenAPI."""
        return describe(self._app)


DESCRIPTION: web.AppKey[Description] = web.AppKey("description")


async def openapi(request: web.Request) -> web.Response:
    """``GET /openapi.json``: this description."""
    return answer(request.app[DESCRIPTION].document)


ROUTES = [("GET", "/openapi.json", openapi)]
