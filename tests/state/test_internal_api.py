"""The published description of the internal API agrees with the code that reads and writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from edge.core.credentials import keys_from_jwks
from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State, Transport
from edge.state import http, wire
from edge.state.port import Change, Heartbeat, RefusalReason, Resync, Usage, UsageBatch

DOCUMENT = yaml.safe_load(
    (Path(__file__).parents[2] / "docs" / "internal-api.yaml").read_text(encoding="utf-8")
)
SCHEMAS = DOCUMENT["components"]["schemas"]

ROUND_TRIPS = {
    "SandboxRecord": lambda text: wire.sandbox_to_json(wire.sandbox_from_json(text)),
    "GrantRecord": lambda text: wire.grant_to_json(wire.grant_from_json(text)),
    "UsageBatch": lambda text: wire.usage_to_json(wire.usage_from_json(text)),
    "WatchFrame": lambda text: wire.event_to_json(wire.event_from_json(text)),
    "ResumeCall": lambda text: wire.resume_from_json(text).model_dump_json(),
    "AckCall": lambda text: wire.ack_from_json(text).model_dump_json(),
}


def valid(schema_name: str, value: object) -> bool:
    """Whether a value fits a schema of the document."""
    schema = {"$ref": f"#/components/schemas/{schema_name}", "components": DOCUMENT["components"]}
    return OAS31Validator(schema).is_valid(value)


def test_the_document_is_openapi():
    """It is valid OpenAPI 3.1, as the reference validator sees it."""
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert [str(error) for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def same(value):
    """A JSON value with its sets (lists of words) in one order."""
    if isinstance(value, dict):
        return {key: same(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return (
            sorted(value) if all(isinstance(one, str) for one in value) else list(map(same, value))
        )
    return value


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_examples_round_trip(name):
    """Every example is read by the wire code, and what it writes is the example again."""
    examples = SCHEMAS[name]["examples"]
    assert examples
    for example in examples:
        assert valid(name, example)
        assert same(json.loads(ROUND_TRIPS[name](json.dumps(example)))) == same(example)


def test_every_kind_of_frame_has_an_example():
    """Nobody has to guess what a frame looks like."""
    shown = [frame["type"] for frame in SCHEMAS["WatchFrame"]["examples"]]
    assert sorted(shown) == sorted(SCHEMAS["WatchFrame"]["discriminator"]["mapping"])


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("SandboxRecord", wire.sandbox_to_json(SandboxRecord("s", State.PAUSED, 1, 1))),
        (
            "GrantRecord",
            wire.grant_to_json(
                GrantRecord("g", "s", 1, frozenset(Transport), GrantStatus.EXPIRED, 1.5, 1)
            ),
        ),
        ("UsageBatch", wire.usage_to_json(UsageBatch("e", 1, (Usage("s", "g"),)))),
        ("WatchFrame", wire.event_to_json(Heartbeat(1))),
        ("WatchFrame", wire.event_to_json(Resync(1))),
        ("WatchFrame", wire.event_to_json(Change(1, SandboxRecord("s", State.ERROR, 1, 1)))),
        ("ResumeCall", wire.ResumeCall(paused_incarnation=1).model_dump_json()),
        (
            "AckCall",
            wire.AckCall(edge="e", sandbox_id="s", version=1, in_flight=0).model_dump_json(),
        ),
    ],
)
def test_what_we_write_fits_the_schema(name, written):
    """The smallest values the code can write are valid by the document, keys and all."""
    value = json.loads(written)
    assert valid(name, value)
    properties = SCHEMAS[name].get("properties")
    if properties is not None:
        assert set(value) == set(properties)


@pytest.mark.parametrize("record", ["SandboxRecord", "GrantRecord", "AckCall", "ResumeCall"])
def test_required_keys_are_required_by_both(record):
    """Leaving out a required key is refused by the schema and by the code; others may be left out."""
    full = SCHEMAS[record]["examples"][0]
    for key in full:
        rest = {name: value for name, value in full.items() if name != key}
        needed = key in SCHEMAS[record]["required"]
        assert valid(record, rest) is not needed
        if needed:
            with pytest.raises(wire.WireError):
                ROUND_TRIPS[record](json.dumps(rest))
        else:
            ROUND_TRIPS[record](json.dumps(rest))


def test_words_are_the_same_on_both_sides():
    """Enumerations of the document are those of the code."""
    assert set(SCHEMAS["SandboxRecord"]["properties"]["state"]["enum"]) == set(State)
    assert set(SCHEMAS["GrantRecord"]["properties"]["status"]["enum"]) == set(GrantStatus)
    assert set(SCHEMAS["GrantRecord"]["properties"]["kinds"]["items"]["enum"]) == set(Transport)
    assert set(RefusalReason) <= set(SCHEMAS["Error"]["properties"]["code"]["enum"])


def test_every_call_of_the_adapter_is_described():
    """The paths are those the adapter uses, each with its refusals."""
    paths = {path.removeprefix(wire.PREFIX) for path in DOCUMENT["paths"]}
    assert paths == {
        "/sandboxes/{id}", "/sandboxes/{id}/resume", "/grants/{id}", "/usage", "/acks", "/events",
        "/.well-known/jwks.json",
    }  # fmt: skip
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            public = path == "/.well-known/jwks.json"
            assert ("401" in operation["responses"]) is not public
            assert (operation.get("security") == []) is public


def test_errors_have_examples_that_fit():
    """Every error answer shows its body, and the resume shows every refusal the adapter knows."""
    shown = set()
    for item in DOCUMENT["paths"].values():
        for operation in item.values():
            for status, answer in operation["responses"].items():
                if int(status) < 400:
                    continue
                name = answer.get("$ref", "").rpartition("/")[2]
                full = DOCUMENT["components"]["responses"][name] if name else answer
                content = full["content"]["application/json"]
                bodies = [one["value"] for one in content.get("examples", {}).values()]
                bodies = bodies or [content["example"]]
                assert all(valid("Error", body) for body in bodies)
                shown |= {(int(status), body["code"]) for body in bodies}
    assert set(http._REFUSALS) <= shown
    assert {code for _, code in shown} == set(SCHEMAS["Error"]["properties"]["code"]["enum"])


def test_limits_named_in_prose_are_those_of_the_code():
    """Numbers in the document are the code's."""
    socket = DOCUMENT["paths"]["/internal/edge/v1/events"]["get"]["x-websocket"]
    assert socket["maxFrameBytes"] == http.MAX_BODY
    assert socket["heartbeatSeconds"] < http.WATCH_SILENCE
    assert f"after {http.WATCH_SILENCE:g} s" in DOCUMENT["paths"]["/internal/edge/v1/events"][
        "get"
    ]["description"].replace("\n", " ")
    assert http.RESUME_MARGIN == 1.0  # "the edge waits one second longer"


def test_the_example_key_set_is_usable():
    """A key set written by this document's example is one the edge takes."""
    [example] = SCHEMAS["KeySet"]["examples"]
    assert valid("KeySet", example)
    assert set(keys_from_jwks(example)) == {"2026-01"}
