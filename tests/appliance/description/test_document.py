"""The published description is OpenAPI, says what the application has, and real answers fit it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from good import GOOD, Request, World
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from service import KEY, Service

from edge.appliance.app import build_app
from edge.appliance.description.calls import CALLS
from edge.appliance.description.document import describe, public_routes

METHODS = ("get", "put", "post", "delete", "patch", "head", "options")


def _fits(document: Any, schema: Any, value: object) -> list[str]:
    """What is wrong with a value, by a schema of the document."""
    validator = OAS31Validator(
        schema | {"components": document["components"]},
        format_checker=OAS31Validator.FORMAT_CHECKER,
    )
    return [
        f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(value)
    ]


async def _document(service: Service) -> Any:
    _, body = await service.raw("GET", "/openapi.json")
    return json.loads(body)


async def _upgraded(service: Service, request: Request) -> None:
    """A WebSocket that understands the first frame a good client says."""
    headers = {"Authorization": f"Bearer {KEY}"}
    path, query = request.path, dict(request.query)
    async with service.session.ws_connect(path, params=query, headers=headers) as socket:
        said = (
            {"type": "subscribe"}
            if "lifecycle" in path
            else {"type": "exec_start", "command": "true"}
        )
        await socket.send_json(said)
        assert (await socket.receive_json())["type"] in ("subscribed", "exec_started")


@pytest.mark.may_block("a validator looks at all of the document")
async def test_the_document_is_openapi(service: Service) -> None:
    """It is valid OpenAPI 3.1, as the reference validator sees it, and open to all."""
    answer, body = await service.raw("GET", "/openapi.json")
    document = json.loads(body)
    assert (answer.status, answer.content_type) == (200, "application/json")
    assert document["openapi"].startswith("3.1.")
    assert [str(error) for error in OpenAPIV31SpecValidator(document).iter_errors()] == []
    names = [op["operationId"] for item in document["paths"].values() for op in item.values()]
    assert len(set(names)) == len(names)


async def test_every_route_is_described_and_nothing_else(service: Service) -> None:
    """Routes of the application, rows of the table, operations of the document: the same."""
    app = build_app(service.plane.parts)
    routes = {f"{method} {path}" for method, path, _ in public_routes(app)}
    document = describe(app)
    told = {
        f"{method.upper()} {path}"
        for path, item in document["paths"].items()
        for method in METHODS
        if method in item
    }
    assert routes == set(CALLS) == told == set(GOOD)
    paths = {
        route.resource.canonical for route in app.router.routes() if route.resource is not None
    }
    hidden = paths - {route.split(" ")[1] for route in routes}
    assert {path.split("/")[1] for path in hidden} == {"internal", "console"}


async def test_every_answer_fits_its_schema(service: Service) -> None:
    """Every call succeeds once, with the status and the body that the description promises."""
    document = await _document(service)
    world = await World(service).set_up()
    for call in GOOD:
        request = world.request(call)
        method, path = call.split(" ")
        promised = document["paths"][path][method.lower()]["responses"]
        [status] = [int(status) for status in promised if status != "default"]
        if status == 101:
            await _upgraded(service, request)
            continue
        data = request.data
        headers = {"Authorization": f"Bearer {KEY}"}
        if data:
            headers["Content-Type"] = request.headers(data)["Content-Type"]
        answer, body = await service.raw(
            method, request.path, params=dict(request.query), data=data or None, headers=headers
        )
        assert answer.status == status, (call, body)
        content = promised[str(status)].get("content", {})
        if "application/json" in content:
            schema = content["application/json"]["schema"]
            assert _fits(document, schema, json.loads(body)) == [], call
        else:
            assert bool(body) is bool(content), call
            assert answer.content_type in content or not body, call


async def test_bodies_that_are_good_fit_their_schema_and_errors_theirs(service: Service) -> None:
    """What goes in is described, too; an error is an ``Error``."""
    document = await _document(service)
    for call, said in GOOD.items():
        method, path = call.split(" ")
        described = document["paths"][path][method.lower()].get("requestBody", {"content": {}})
        assert bool(described["content"]) is ("body" in said), call
        if "application/json" in described["content"]:
            schema = described["content"]["application/json"]["schema"]
            assert _fits(document, schema, said["body"]) == [], call
            assert _fits(document, schema, []) != [], call
    _, error = await service.api("GET", "/v1/sandboxes/sb_none")
    assert _fits(document, document["components"]["schemas"]["Error"], error) == []


async def test_the_query_is_the_one_the_code_reads(service: Service) -> None:
    """Names of the query are those that the refusal of an unknown one tells."""
    document = await _document(service)
    world = await World(service).set_up()
    compared = 0
    for path, item in document["paths"].items():
        for method, operation in item.items():
            names = {one["name"] for one in operation["parameters"] if one["in"] == "query"}
            request = world.request(f"{method.upper()} {path}").but(query={"nope": "1"})
            if not names or path.endswith("/ws"):
                continue
            status, error = await service.api(method, f"{request.path}?nope=1", request.body)
            assert status == 400, (method, path)
            told = error["error"].partition("known are ")[2]
            if path.endswith("/file"):  # The signature is optional there, and told by the link.
                names -= {"expires", "signature"}
                told = told.replace(", expires, signature", "")
            assert set(told.split(", ")) == names, (method, path)
            compared += 1
    assert compared >= 9


async def test_what_is_required_is_refused_without(service: Service) -> None:
    """Every key that the description calls required is missed by the code, and no other."""
    document = await _document(service)
    world = await World(service).set_up()
    for path, item in document["paths"].items():
        for method, operation in item.items():
            content = operation.get("requestBody", {}).get("content", {})
            if "application/json" not in content:
                continue
            name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
            required = document["components"]["schemas"][name].get("required", [])
            request = world.request(f"{method.upper()} {path}")
            for key in required:
                body = {k: v for k, v in request.body.items() if k != key}
                status, error = await service.api(method, request.path, body)
                assert status == 400, (method, path, key)
                assert key in error["error"], error
