"""The document itself, put together from the application's routes, the models and ``calls.py``."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from aiohttp import hdrs, web
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from edge import __version__
from edge.appliance.api import operator
from edge.appliance.console import PREFIX as CONSOLE
from edge.appliance.description.answers import ANSWERS
from edge.appliance.description.calls import BYTES, CALLS, Call, DefinitionUpdate
from edge.appliance.description.schemas import COUNT, TEXT, Schema, ref
from edge.state import wire

_ABOUT = """\
What `preview-edge dev` serves of the public sandbox API, on loopback. Bodies are JSON objects in UTF-8, at
most 1 MiB unless they carry files; keys that are not known are ignored, types are strict, a key must not be
there twice. Every error is an `Error` and says what to do; addresses below `/v1` that are not listed here are
501 `not_implemented`. The server never redirects. What edges ask is described apart, in
`docs/internal-api.yaml`.
"""
_IN_PATH: dict[str, Schema] = {
    "sandbox": TEXT | {"description": "The id of a sandbox; for `resume` the id of a snapshot."},
    "pid": COUNT,
    "port": {"type": "integer", "minimum": 1, "maximum": 65535},
    "part": COUNT | {"description": "The first is 0."},
}
_OPEN = ("/healthz", "/.well-known/jwks.json", "/openapi.json")
_PRIVATE = (wire.PREFIX, operator.PREFIX, CONSOLE)


def public_routes(app: web.Application) -> Iterator[tuple[str, str, Any]]:
    """Method, path and handler of what tenants may call."""
    for route in app.router.routes():
        path = route.resource.canonical if route.resource is not None else ""
        if route.method != hdrs.METH_HEAD and not path.startswith(_PRIVATE):
            yield route.method, path, route.handler


def describe(app: web.Application) -> dict[str, Any]:
    """The document. Raises KeyError for a route that has no row in ``calls.py``."""
    paths: dict[str, dict[str, Any]] = {}
    for method, path, handler in public_routes(app):
        operation = _operation(CALLS[f"{method} {path}"], method, path, handler)
        paths.setdefault(path, {})[method.lower()] = operation
    key = {"type": "http", "scheme": "bearer", "description": "The API key."}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Embedded control plane",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": _models() | ANSWERS,
            "securitySchemes": {"key": key},
            "responses": {"Error": _json("A refusal, or a failure.", ref("Error"))},
        },
    }


def _operation(call: Call, method: str, path: str, handler: Any) -> dict[str, Any]:
    said = inspect.getdoc(handler) or ""
    # "``GET S``: what it is" without the address, which stands above it.
    summary = said.partition("\n")[0].partition(": ")[2] or said
    operation: dict[str, Any] = {
        "operationId": _name(method, path),
        "summary": summary[:1].upper() + summary[1:],
        "parameters": [*_in_path(path), *_in_query(call)],
        "responses": {
            str(call.status): _answer(call),
            "default": {"$ref": "#/components/responses/Error"},
        },
    }
    if path in _OPEN:
        operation["security"] = []
    if call.status == 201 and call.answer in ("SandboxObject", "Snapshot"):
        key = {"name": "Idempotency-Key", "in": "header", "schema": TEXT | {"maxLength": 255}}
        operation["parameters"].append(key)
    if call.body is not None:
        operation["requestBody"] = _body(call.body)
    if call.sockets:
        operation["x-websocket"] = {
            channel or "(none)": [ref(model.__name__) for model in models]
            for channel, models in call.sockets.items()
        }
    return operation


def _answer(call: Call) -> dict[str, Any]:
    match call.answer:
        case None if call.status == 101:
            return {"description": "A WebSocket; `x-websocket` has the client's frames by channel."}
        case None:
            return {"description": "Done; without a body."}
        case media if media == BYTES:
            return {"description": "The bytes.", "content": {BYTES: {}}}
        case name:
            return _json("Done.", ref(name))


def _body(body: type[BaseModel] | str) -> dict[str, Any]:
    if isinstance(body, str):
        return {"required": True, "content": {body: {}}}
    needed = body is not DefinitionUpdate and any(
        one.is_required() for one in body.model_fields.values()
    )
    return {"required": needed, "content": {"application/json": {"schema": ref(body.__name__)}}}


def _json(description: str, schema: Schema) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _in_path(path: str) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", path):
        yield {"name": name, "in": "path", "required": True, "schema": _IN_PATH.get(name, TEXT)}


def _in_query(call: Call) -> Iterable[dict[str, Any]]:
    for name, schema in call.query.items():
        yield {"name": name, "in": "query", "required": name in call.needed, "schema": schema}


def _name(method: str, path: str) -> str:
    words = re.sub(r"/v1/|[{}]|\.json|\.well-known/", "/", path).replace("-", "/").split("/")
    return method.lower() + "".join(word.title() for word in words if word)


def _models() -> dict[str, Any]:
    """The schemas of everything that goes in, by the names of their models."""
    bodies = [call.body for call in CALLS.values() if not isinstance(call.body, str | None)]
    frames = [frame for call in CALLS.values() for some in call.sockets.values() for frame in some]
    known = {model.__name__: model for model in [*bodies, *frames]}
    _, document = models_json_schema(
        [(model, "validation") for model in known.values()],
        ref_template="#/components/schemas/{model}",
    )
    schemas: dict[str, Any] = document["$defs"]
    del schemas[DefinitionUpdate.__name__]["required"]
    return schemas
