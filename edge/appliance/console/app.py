"""The console's application: its routes, the guard around them, logging in and out."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable

from aiohttp import hdrs, web

from edge.appliance.api.http import same_secret
from edge.appliance.console import guard, handlers
from edge.appliance.console.live import Streams
from edge.appliance.console.pages import FILES, file, page
from edge.appliance.console.sessions import Attempts, Sessions
from edge.appliance.console.visit import (
    CONSOLE,
    PREFIX,
    Console,
    Visit,
    inside,
    read_form,
    see_other,
)
from edge.appliance.parts import PARTS, Parts
from edge.appliance.problems import METHOD_NOT_ALLOWED, NOT_FOUND, STATE_UNWRITABLE, ApiError
from edge.appliance.store import StoreError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build_console(parts: Parts) -> web.Application:
    """The application that serves everything below `PREFIX`."""
    app = web.Application(middlewares=[_guarded])
    clock = asyncio.get_running_loop().time
    app[PARTS] = parts
    app[CONSOLE] = Console(parts, Sessions(clock), Attempts(clock), Streams())
    for name in FILES:
        app.router.add_route("GET", f"/{name}", _serve(name))
    app.router.add_route("GET", "/login", show_login)
    app.router.add_route("POST", "/login", log_in)
    app.router.add_route("POST", "/logout", inside(log_out))
    for method, path, room in handlers.ROUTES:
        app.router.add_route(method, path, inside(room))
    return app


@web.middleware
async def _guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Look at the request before anybody else does; show a refusal as a page."""
    try:
        guard.check(request, request.app[CONSOLE].parts.config)
        response = await handler(request)
    except ApiError as e:
        response = _refusal(e)
    except StoreError as e:
        request.app[CONSOLE].parts.log("state_not_written", error=str(e))
        response = _refusal(ApiError(STATE_UNWRITABLE))
    except web.HTTPException as e:
        allow = e.headers.get(hdrs.ALLOW, "")
        known = e.status == 405
        headers = {str(hdrs.ALLOW): allow} if known else {}
        response = _refusal(ApiError(METHOD_NOT_ALLOWED if known else NOT_FOUND, headers=headers))
    if not response.prepared:
        response.headers.update(guard.FIELDS)
    return response


def _refusal(error: ApiError) -> web.Response:
    problem = error.problem
    values = {
        "prefix": PREFIX,
        "message": error.message or problem.message,
        "action": error.action or problem.action,
        "code": problem.code,
        "port": error.details.get("port"),
    }
    answer = page("problem", values, problem.status)
    answer.headers.update(error.headers)
    return answer


def _serve(name: str) -> Handler:
    async def serve(_: web.Request) -> web.Response:
        return file(name)

    return serve


async def show_login(request: web.Request) -> web.Response:
    """``GET login``: the form; whoever is logged in is sent on."""
    sessions = request.app[CONSOLE].sessions
    if sessions.find(request.cookies.get(guard.cookie_name(request), "")) is not None:
        return see_other(PREFIX)
    return _login()


async def log_in(request: web.Request) -> web.Response:
    """``POST login``: a session for the API key. It is a new one each time, whatever was there before."""
    console = request.app[CONSOLE]
    given = (await read_form(request)).get("key", "").strip()
    # From here on nothing waits, so that many at once are counted one by one.
    if seconds := console.attempts.wait():
        answer = _login("Too many wrong keys were tried. Wait a minute.", 429)
        answer.headers[hdrs.RETRY_AFTER] = str(math.ceil(seconds))
        return answer
    if not same_secret(given, console.parts.config.api_key):
        console.attempts.failed()
        if console.attempts.wait():
            console.parts.log("console_login_suspended", reason="too many wrong keys")
        return _login("That is not the API key.", 403)
    name = guard.cookie_name(request)
    console.sessions.close(request.cookies.get(name, ""))
    session_id, _ = console.sessions.open()
    answer = see_other(PREFIX)
    answer.set_cookie(
        name,
        session_id,
        path=PREFIX,
        httponly=True,
        samesite="Strict",
        secure=guard.is_secure(request),
    )
    return answer


async def log_out(visit: Visit) -> web.Response:
    """``POST logout``: end the session, and its streams."""
    name = guard.cookie_name(visit.request)
    visit.console.sessions.close(visit.request.cookies.get(name, ""))
    answer = see_other(f"{PREFIX}/login")
    answer.del_cookie(name, path=PREFIX)
    return answer


def _login(complaint: str = "", status: int = 200) -> web.Response:
    return page("login", {"prefix": PREFIX, "complaint": complaint}, status)
