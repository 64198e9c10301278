"""A request of somebody who is logged in: who that is, and what the form says."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl

from aiohttp import hdrs, web

from edge.appliance.api.http import read_body
from edge.appliance.console.guard import cookie_name
from edge.appliance.console.live import Streams
from edge.appliance.console.sessions import Attempts, Session, Sessions
from edge.appliance.parts import Parts
from edge.appliance.problems import FORM_OUTDATED, ApiError, invalid

PREFIX: Final = "/console"
"""Below this path everything is the console's, its cookie included."""

MAX_FORM = 8192
"""Bytes of a form."""

MAX_FIELDS = 16
"""Fields of a form."""


@dataclass(frozen=True, slots=True)
class Console:
    """What the console keeps besides the control plane's parts."""

    parts: Parts
    sessions: Sessions
    attempts: Attempts
    streams: Streams


CONSOLE: web.AppKey[Console] = web.AppKey("console")


@dataclass(frozen=True, slots=True)
class Visit:
    """One request within a session; ``form`` is empty unless it is a POST."""

    request: web.Request
    console: Console
    session: Session
    form: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> Parts:
        """The control plane."""
        return self.console.parts

    @property
    def sandbox_id(self) -> str:
        """The sandbox the path names."""
        return self.request.match_info["sandbox"]


Room = Callable[[Visit], Awaitable[web.StreamResponse]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def inside(room: Room) -> Handler:
    """A handler that lets in whoever is logged in, to change something with a form of the session only.

    Others are sent to the log-in page, or, where they asked for no page, refused.
    """

    async def handler(request: web.Request) -> web.StreamResponse:
        console = request.app[CONSOLE]
        session = console.sessions.find(request.cookies.get(cookie_name(request), ""))
        if session is None:
            return see_other(f"{PREFIX}/login")
        if request.method != hdrs.METH_POST:
            return await room(Visit(request, console, session))
        form = await read_form(request)
        # Looked at again, because reading takes time.
        if session.ended.is_set() or not _same(form.get("token", ""), session.token):
            raise ApiError(FORM_OUTDATED)
        return await room(Visit(request, console, session, form))

    return handler


async def read_form(request: web.Request) -> Mapping[str, str]:
    """The form that was sent. Raises `ApiError` (payload_too_large, invalid_request)."""
    if request.content_type != "application/x-www-form-urlencoded":
        raise invalid("The body must be a form.")
    body = await read_body(request, MAX_FORM)
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise invalid("The form cannot be read.") from None
    return dict(pairs)


def see_other(path: str) -> web.Response:
    """Go there, with a GET (RFC 9110 section 15.4.4)."""
    return web.Response(status=303, headers={hdrs.LOCATION: path})


def _same(given: str, wanted: str) -> bool:
    return secrets.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())
