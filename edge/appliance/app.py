"""The HTTP application: routes, who may call them, and the one place that renders errors.

Errors are flat JSON objects, never HTML; nothing redirects. The public API wants the API key, the
internal ones (for edges, for operators) the service token; what is neither is open to all (health,
public keys). Only the console (``console/``), which is for people, has its own rules and its own door.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import HttpVersion11, hdrs, web

from edge.appliance.api import (
    creates,
    description,
    files,
    internal,
    lifecycle,
    lifecycle_streams,
    metrics,
    open_routes,
    operator,
    pools,
    previews,
    sandboxes,
    snapshots,
    sockets,
    transfer,
    uploads,
    volumes,
)
from edge.appliance.api import exec as exec_api
from edge.appliance.api.http import answer, parts, same_secret
from edge.appliance.console import PREFIX, build_console
from edge.appliance.parts import PARTS, Parts
from edge.appliance.problems import (
    EXPECTATION_FAILED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    NOT_IMPLEMENTED,
    STATE_UNWRITABLE,
    UNAUTHORIZED,
    ApiError,
)
from edge.appliance.store import StoreError
from edge.state import wire

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID: Final = "x-request-id"
_WELL_FORMED = re.compile(r"[A-Za-z0-9._-]{1,128}")
_PRIVATE = (wire.PREFIX, operator.PREFIX)
_OPEN = frozenset({"/healthz", "/.well-known/jwks.json", "/openapi.json"})


def build_app(the_parts: Parts) -> web.Application:
    """The application, with all routes."""
    app = web.Application(middlewares=[_answered])
    app[PARTS] = the_parts
    app[description.DESCRIPTION] = description.Description(app)
    public = (
        open_routes,
        creates,
        sandboxes,
        pools,
        exec_api,
        sockets,
        files,
        transfer,
        uploads,
        previews,
    )
    beside = (lifecycle, lifecycle_streams, description, internal, operator)
    for module in (*public, metrics, snapshots, volumes, *beside):
        for method, path, handler in module.ROUTES:
            app.router.add_route(method, path, handler, expect_handler=_expect)
    app.add_subapp(PREFIX, build_console(the_parts))
    return app


@web.middleware
async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Check the caller, run the handler, render whatever it raises."""
    given = request.headers.get(REQUEST_ID, "")
    request_id = given if _WELL_FORMED.fullmatch(given) else uuid.uuid4().hex
    try:
        _authorize(request)
        response = await handler(request)
    except (ApiError, web.HTTPException) as e:
        response = render(_refusal(e, request.path), request_id)
    except StoreError as e:
        parts(request).log("state_not_written", request_id=request_id, error=str(e))
        response = render(ApiError(STATE_UNWRITABLE), request_id)
    except ConnectionResetError:
        raise  # The client is gone; there is nobody to answer.
    except Exception as e:  # noqa: BLE001 - whatever it was, the client gets an error in our form
        frame = e.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        where = f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}" if frame else ""
        parts(request).log("internal_error", request_id=request_id, error=repr(e), where=where)
        response = render(ApiError(INTERNAL_ERROR), request_id)
    if not response.prepared:
        response.headers[REQUEST_ID] = request_id
        response.headers.setdefault(hdrs.CACHE_CONTROL, "no-store")
    return response


def _authorize(request: web.Request) -> None:
    """Raises `ApiError` (unauthorized)."""
    if request.path in _OPEN or transfer.linked(request):
        return
    if len(request.match_info.apps) > 1:
        return  # It is the console's, which has a door of its own.
    config = parts(request).config
    private = any(f"{request.path}/".startswith(f"{prefix}/") for prefix in _PRIVATE)
    wanted = config.service_token if private else config.api_key
    fields = request.headers.getall(hdrs.AUTHORIZATION, [])
    scheme, _, given = fields[0].partition(" ") if len(fields) == 1 else ("", "", "")
    if not same_secret(given.strip(), wanted) or scheme.lower() != "bearer":
        raise ApiError(UNAUTHORIZED, headers={hdrs.WWW_AUTHENTICATE: "Bearer"})


def _refusal(error: ApiError | web.HTTPException, path: str) -> ApiError:
    """Aiohttp's own refusals in our terms."""
    if isinstance(error, ApiError):
        return error
    match error.status:
        case 404 if path == "/v1" or path.startswith("/v1/"):
            return ApiError(NOT_IMPLEMENTED)
        case 404:
            return ApiError(NOT_FOUND)
        case 405:
            allow = error.headers.get(hdrs.ALLOW, "")
            return ApiError(METHOD_NOT_ALLOWED, headers={hdrs.ALLOW: allow})
        case _:
            return ApiError(INVALID_REQUEST)


def render(error: ApiError, request_id: str) -> web.Response:
    """An error as an answer. The header of the request id is set here, because not all answers pass the
    middleware.
    """
    problem = error.problem
    body: dict[str, object] = {
        "error": error.message or problem.message,
        "code": problem.code,
        "request_id": request_id,
        "retryable": problem.retryable,
        "suggested_action": error.action or problem.action,
    }
    if error.details:
        body["details"] = dict(error.details)
    if error.error_detail is not None:
        body["error_detail"] = {**error.error_detail, "request_id": request_id}
    response = answer(body, problem.status)
    response.headers.update(error.headers)
    response.headers[REQUEST_ID] = request_id
    response.headers[hdrs.CACHE_CONTROL] = "no-store"
    return response


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """RFC 9110 section 10.1.1; runs before the middleware, so it renders its own refusal."""
    if request.version < HttpVersion11:
        return None
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        # The 100 is no part of the answer's size, which aiohttp takes for an answer begun.
        request.writer.output_size = 0
        return None
    return render(ApiError(EXPECTATION_FAILED), uuid.uuid4().hex)
