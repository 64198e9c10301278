"""Bodies: what is taken, and every way to be refused without a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge.appliance.bodies import parse
from edge.appliance.problems import ApiError
from edge.appliance.requests import (
    Create,
    Exec,
    ProxyTarget,
    Readiness,
    SetTimeout,
    Signed,
    Switch,
    lifetime,
)

NULLS = dict.fromkeys(
    "network internet_access cwd desktop volumes auto_resume envs metadata disk_mb timeout_action "
    "warm_pool lifecycle snapshot_id inactivity_timeout_ms timeout_ms".split()
)


MASKS_OF_NOTHING = [
    *(
        "",
        ":",
        ":80",
        "a:",
        "a:0",
        "a:65536",
        "a:${PORT}0",
        "a:b",
        "a:1:2",
        "::1",
        "[::1",
        "[]",
        "[x]",
    ),
    *(
        "${port}",
        "${HOST}",
        "$PORT",
        "http://a",
        "a/b",
        "a@b",
        "-a",
        "a-",
        "\u00e9.test",
        "a" * 256,
    ),
]


def _refusal(model: type[Any], body: bytes) -> ApiError:
    with pytest.raises(ApiError) as refused:
        parse(model, body)
    assert refused.value.problem.code == "invalid_request"
    assert refused.value.problem.status == 400
    return refused.value


def test_an_empty_create_has_defaults() -> None:
    """No body, an empty object and explicit nulls mean the same."""
    assert parse(Create, b"") == parse(Create, b"{}") == parse(Create, json.dumps(NULLS).encode())
    made = parse(Create, b"")
    assert (made.template, made.vcpus, made.memory_mb, made.action) == ("base", 2, 512, "destroy")


@pytest.mark.parametrize(
    ("body", "action"),
    [
        ({}, "destroy"),
        ({"timeout_action": "hibernate"}, "hibernate"),
        ({"timeout_action": "destroy"}, "destroy"),
        ({"lifecycle": {"on_timeout": "pause"}}, "hibernate"),
        ({"lifecycle": {"on_timeout": "destroy"}}, "destroy"),
        ({"lifecycle": {}, "timeout_action": "hibernate"}, "hibernate"),
        ({"lifecycle": {"on_timeout": "pause"}, "timeout_action": "hibernate"}, "hibernate"),
    ],
)
def test_the_two_spellings_of_the_timeout_action(body: dict[str, Any], action: str) -> None:
    """``timeout_action`` and ``lifecycle.on_timeout`` say the same thing."""
    assert parse(Create, json.dumps(body).encode()).action == action


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"auto_resume": True}, "auto_resume needs"),
        ({"auto_resume": True, "timeout_action": "destroy"}, "auto_resume needs"),
        ({"auto_resume": True, "timeout_action": "hibernate", "ephemeral": True}, "ephemeral"),
        ({"timeout_action": "destroy", "lifecycle": {"on_timeout": "pause"}}, "contradict"),
        ({"timeout_action": "hibernate", "lifecycle": {"on_timeout": "destroy"}}, "contradict"),
        ({"timeout_action": "pause"}, "timeout_action"),
        ({"vcpus": "2"}, "vcpus"),
        ({"vcpus": True}, "vcpus"),
        ({"vcpus": 1.0}, "vcpus"),
        ({"vcpus": 0}, "vcpus"),
        ({"memory_mb": 10**30}, "memory_mb"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"timeout_ms": -1}, "timeout_ms"),
        ({"inactivity_timeout_ms": 10**12}, "inactivity_timeout_ms"),
        ({"template": ""}, "template"),
        ({"template": "x" * 256}, "template"),
        ({"envs": {"A": 1}}, "envs.A"),
        ({"envs": {"": "x"}}, "envs"),
        ({"envs": {"A=B": "x"}}, "envs"),
        ({"envs": {"A": "x\0"}}, "NUL"),
        ({"envs": []}, "envs"),
        ({"metadata": "x"}, "metadata"),
        ({"cwd": ""}, "cwd"),
        ({"network": {"allow_public_traffic": "no"}}, "network.allow_public_traffic"),
        ({"network": {"allow_public_trafic": False}}, "allow_public_trafic: there is no such"),
        ({"network": {"mask_request_host": "a b"}}, "network.mask_request_host"),
        ({"network": {"mask_request_host": "a\r\nX: y"}}, "network.mask_request_host"),
        *(
            ({"network": {"mask_request_host": host}}, "network.mask_request_host")
            for host in MASKS_OF_NOTHING
        ),
        ({"warm_pool": {"mode": "prefer"}}, "id is needed"),
        ({"warm_pool": {}}, "id is needed"),
        ({"warm_pool": {"mode": "often", "id": "x"}}, "warm_pool.mode"),
        ({"warm_pool": {"id": "x", "wait_ms": -1}}, "warm_pool.wait_ms"),
    ],
)
def test_what_a_create_must_not_say(body: dict[str, Any], message: str) -> None:
    """Wrong types, ranges and combinations, each named."""
    assert message in _refusal(Create, json.dumps(body).encode()).message


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:${PORT}", "${PORT}.x", "[::1]:80", "a-b.c", "127.0.0.1:65535"),
        *("app_1.internal:${PORT}", "[::ffff:127.0.0.1]:${PORT}", "a", "a" * 255),
    ],
)
def test_hosts_that_may_mask_the_public_one(host: str) -> None:
    """Names, addresses and the port's place-holder."""
    body = json.dumps({"network": {"mask_request_host": host}}).encode()
    assert parse(Create, body).network.mask_request_host == host  # type: ignore[union-attr]


def test_metadata_may_be_any_json() -> None:
    """Values are kept as they are, unknown keys elsewhere are ignored."""
    metadata = {"a": [1, {"b": None}], "c": "\u2603", "d": 2**70, "e": 1.5}
    body = json.dumps({"metadata": metadata, "newer": {"key": 1}}).encode()
    assert parse(Create, body).metadata == metadata


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (SetTimeout, {}),
        (SetTimeout, {"timeout_ms": None}),
        (SetTimeout, {"timeout_ms": 1.5}),
        (SetTimeout, {"timeout_ms": 1000, "timeout_action": "pause"}),
        (Exec, {}),
        (Exec, {"command": ""}),
        (Exec, {"command": ["ls"]}),
        (Exec, {"command": "ls\0"}),
        (Exec, {"command": "ls", "args": "x"}),
        (Exec, {"command": "ls", "args": ["\0"]}),
        (Exec, {"command": "ls", "args": [1]}),
        (Exec, {"command": "ls", "timeout_secs": 0}),
        (Exec, {"command": "ls", "timeout_secs": 1e9}),
        (Exec, {"command": "ls", "background": "yes"}),
        (Exec, {"command": "ls", "cwd": ""}),
        (Signed, {"expires_in_seconds": "60"}),
        (Signed, {"expires_in_seconds": True}),
        (Signed, {"expires_in_seconds": 60.5}),
        (Readiness, {"kind": "udp"}),
        (Readiness, {"timeout_secs": 0}),
        (Readiness, {"timeout_secs": 121}),
        (Readiness, {"interval_ms": 99}),
        (Readiness, {"interval_ms": 5001}),
        (Readiness, {"path": "no-slash"}),
        (Readiness, {"path": "/a b"}),
        (Readiness, {"path": "/\r\nX: y"}),
    ],
)
def test_other_bodies(model: type[Any], body: dict[str, Any]) -> None:
    """Wrong types and ranges of every other body."""
    _refusal(model, json.dumps(body).encode())


@pytest.mark.parametrize(
    "body",
    [
        {"transports": []},
        {"transports": ["http", "tcp"]},
        {"transports": ["http_port"]},
        {"transports": "http"},
        {"transports": ["http"] * 17},
        {"expires_in_seconds": "60"},
        {"expires_in_seconds": True},
        {"include_traffic_token_hint": "no"},
    ],
)
def test_what_a_proxy_target_must_not_say(body: dict[str, Any]) -> None:
    """An empty list is no transport at all, and none of it is guessed at."""
    _refusal(ProxyTarget, json.dumps(body).encode())


def test_a_proxy_target_may_say_nothing() -> None:
    """No body and explicit nulls leave everything to the defaults."""
    nulls = dict.fromkeys(("expires_in_seconds", "transports", "include_traffic_token_hint"))
    assert parse(ProxyTarget, b"") == parse(ProxyTarget, json.dumps(nulls).encode())


@pytest.mark.parametrize(
    ("asked", "seconds"), [(None, 900), (59, 60), (60, 60), (86_400, 86_400), (86_401, 86_400)]
)
def test_lifetimes(asked: int | None, seconds: int) -> None:
    """From a minute to a day, both included."""
    assert lifetime(asked) == seconds


@pytest.mark.parametrize("reason", [5, "x" * 501, "a\0b", "\ud800"])
def test_reasons_that_are_none(reason: object) -> None:
    """An operator's words are short text."""
    _refusal(Switch, json.dumps({"reason": reason}).encode())
    assert parse(Switch, b"").reason is None
