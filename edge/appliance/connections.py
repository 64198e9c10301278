"""The server's side of a connection: also what is no HTTP is refused in our form.

aiohttp answers such bytes before there is a request that the application could see.
"""

from __future__ import annotations

import uuid

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from edge.appliance.app import render
from edge.appliance.problems import INTERNAL_ERROR, ApiError, invalid


class Connection(web.RequestHandler):
    """One connection."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be read, or to what the application let through."""
        if request.writer.output_size > 0 or not isinstance(exc, HttpProcessingError):
            # Logs it; raises where an answer has begun.
            super().handle_error(request, status, exc, message)
            error = ApiError(INTERNAL_ERROR)
        elif isinstance(exc, LineTooLong):
            error = invalid("A line of the request's head is too long.")
        else:
            error = invalid("This is no good HTTP request.")
        response = render(error, uuid.uuid4().hex)
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """An application on connections of this kind."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        # There is no way to hand in the kind of server that an application makes.
        server.__class__ = _Server
        return server
