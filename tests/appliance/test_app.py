"""The application around the handlers: keys, request ids, and errors that are always ours."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import pytest
from service import KEY, TOKEN, Service

from edge.appliance.api.operator import PREFIX as OPERATOR
from edge.appliance.sandboxes import Sandboxes
from edge.state.wire import PREFIX


def _error(answer: Any, body: bytes) -> dict[str, Any]:
    """The error, after a look at what all errors have."""
    assert answer.content_type == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    error = json.loads(body)
    assert error.keys() - {"details"} == {
        "error", "code", "request_id", "retryable", "suggested_action",
    }  # fmt: skip
    assert error["request_id"] == answer.headers["x-request-id"]
    assert "Location" not in answer.headers
    return dict(error)


@pytest.mark.parametrize(
    "path", ["/v1/sandboxes", "/v1/sandboxes/sb_1", "/v1/unknown", "/else", "/"]
)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {TOKEN}"},
        {"Authorization": "Bearer \u00e9"},
    ],
)
async def test_without_the_key_everything_is_401(
    service: Service, path: str, headers: dict[str, str]
) -> None:
    """Known and unknown addresses look the same to a stranger."""
    answer, body = await service.raw("GET", path, headers=headers)
    assert answer.status == 401
    assert _error(answer, body)["code"] == "unauthorized"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_the_two_keys_are_apart(service: Service) -> None:
    """The API key opens no internal door, and two keys at once open none."""
    internal = (f"{PREFIX}/sandboxes/sb_1", f"{PREFIX}/nothing", PREFIX)
    for path in (*internal, f"{OPERATOR}/audit", f"{OPERATOR}/nothing", OPERATOR):
        answer, _ = await service.raw("GET", path, headers={"Authorization": f"Bearer {KEY}"})
        assert answer.status == 401
    twice = [("Authorization", f"Bearer {KEY}")] * 2
    answer, _ = await service.raw("GET", "/v1/sandboxes", headers=twice)
    assert answer.status == 401
    answer, _ = await service.raw(
        "GET", "/v1/sandboxes", headers={"Authorization": f"bearer  {KEY}"}
    )
    assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("POST", "/v1/volumes/vol_1/uploads", 501, "not_implemented"),
        ("GET", "/v1/volumes/vol_1/ws", 501, "not_implemented"),
        ("GET", "/v1/sandboxes/sb_1/ssh", 501, "not_implemented"),
        ("GET", "/v1/sandboxes/sb_1/ws?channel=pty", 501, "not_implemented"),
        ("POST", "/v1/sandboxes/sb_1/files/copy", 501, "not_implemented"),
        ("GET", "/v1/sandboxes/", 501, "not_implemented"),
        ("GET", "/v1/sandboxes/sb_1/", 501, "not_implemented"),
        ("GET", "/v2/sandboxes", 404, "not_found"),
        ("GET", "/", 404, "not_found"),
        ("PATCH", "/v1/sandboxes/sb_1", 405, "method_not_allowed"),
        ("PUT", "/v1/sandboxes", 405, "method_not_allowed"),
        ("OPTIONS", "/v1/sandboxes", 405, "method_not_allowed"),
    ],
)
async def test_what_is_not_offered(
    service: Service, method: str, path: str, status: int, code: str
) -> None:
    """The rest of the API is 501, other addresses 404, other methods 405 with Allow; never HTML."""
    headers = {"Authorization": f"Bearer {KEY}", "Accept": "text/html"}
    answer, body = await service.raw(method, path, headers=headers)
    assert answer.status == status
    assert _error(answer, body)["code"] == code
    assert ("Allow" in answer.headers) is (status == 405)


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1._X", True), ("x" * 128, True), ("x" * 129, False), ("a b", False), ("", False)],
)
async def test_request_ids(service: Service, given: str, kept: bool) -> None:
    """A well-formed one is kept on answers and errors, any other is replaced."""
    headers = {"Authorization": f"Bearer {KEY}", "x-request-id": given}
    for path in ("/v1/sandboxes", "/v1/sandboxes/sb_1"):
        answer, _ = await service.raw("GET", path, headers=headers)
        assert (answer.headers["x-request-id"] == given) is kept
        assert len(answer.headers["x-request-id"]) in (32, len(given))


POSTS = [
    "/v1/sandboxes",
    "/v1/sandboxes/{}/exec",
    "/v1/sandboxes/{}/timeout",
    "/v1/sandboxes/{}/host",
    "/v1/sandboxes/{}/files/write",
    "/v1/sandboxes/{}/files/read",
    "/v1/sandboxes/{}/files/info",
    "/v1/sandboxes/{}/ports/80/signed-preview-url",
    "/v1/sandboxes/{}/ports/80/readiness",
    "/v1/sandboxes/{}/ports/80/preview-proxy-target",
    f"{OPERATOR}/grants/{{}}/disable",
    f"{OPERATOR}/sandboxes/{{}}/previews/enable",
    f"{PREFIX}/sandboxes/{{}}/resume",
    f"{PREFIX}/usage",
    f"{PREFIX}/acks",
]


async def test_no_body_makes_a_500(service: Service) -> None:
    """Every endpoint with a body: a megabyte of nothing, deep nesting, wrong types, wrong bytes."""
    sandbox = await service.create()
    bodies = [
        b"[" * (1 << 19) + b"]" * (1 << 19),
        b'{"a": "' + b"x" * (1 << 20) + b'"}',
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b"[1, 2]",
        b'"x"',
        b"\x00\xff",
        b'{"port": {}, "path": 1, "command": {}, "vcpus": "x", "kind": 5, "expires_in_seconds": "", "reason": 1}',
        b'{"paused_incarnation": "1", "transports": 1, "reason": [], "vcpus": [], "expires_in_seconds": {}, "timeout_secs": []}',
    ]
    for path in POSTS:
        key = TOKEN if path.startswith("/internal/") else KEY
        for body in bodies:
            answer, text = await service.raw(
                "POST",
                path.format(sandbox),
                data=io.BytesIO(body),
                headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
            )
            assert answer.status in (400, 413), (path, body[:40], text)
            _error(answer, text)


async def test_bodies_that_do_not_end_well(service: Service) -> None:
    """Too long without saying so, and compressed garbage, are 413 and 400."""

    async def endless() -> Any:
        for _ in range(40):
            yield b"x" * 65536

    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    answer, body = await service.raw("POST", "/v1/sandboxes", data=endless(), headers=headers)
    assert answer.status == 413
    assert _error(answer, body)["details"] == {"limit": 1 << 20}
    answer, body = await service.raw(
        "POST", "/v1/sandboxes", data=b"no gzip", headers=headers | {"Content-Encoding": "gzip"}
    )
    assert answer.status == 400
    _error(answer, body)


async def test_a_bug_is_a_500_in_our_form(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What nobody expected is logged with the request's id and told without details."""

    def broken(*_: object) -> None:
        raise RuntimeError("the inner reason")

    monkeypatch.setattr(Sandboxes, "get", broken)
    answer, body = await service.raw(
        "GET", "/v1/sandboxes/sb_1", headers={"Authorization": f"Bearer {KEY}"}
    )
    assert answer.status == 500
    error = _error(answer, body)
    assert error["code"] == "internal_error" and "inner" not in body.decode()
    line = json.loads(capsys.readouterr().err)
    assert line["request_id"] == error["request_id"] and "inner reason" in line["error"]
    assert "test_app.py" in line["where"]


async def test_a_state_that_cannot_be_written_is_told(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """503 to whoever asked for a change, a line in the log, and nothing has changed; reading goes on."""
    sandbox = await service.create()
    service.plane.parts.store.write("PRAGMA query_only = ON")
    for method, path in [("DELETE", ""), ("GET", "/ports/8000/preview-url")]:
        answer, body = await service.raw(
            method, f"/v1/sandboxes/{sandbox}{path}", headers={"Authorization": f"Bearer {KEY}"}
        )
        error = _error(answer, body)
        assert (answer.status, error["code"]) == (503, "state_unwritable") and error["retryable"]
        line = json.loads(capsys.readouterr().err.splitlines()[-1])
        assert (line["event"], line["request_id"]) == ("state_not_written", error["request_id"])
    assert (await service.api("GET", f"/v1/sandboxes/{sandbox}"))[1]["status"] == "running"
    status, error = await service.api("POST", "/v1/sandboxes", {})
    assert (status, error["code"]) == (503, "create_failed")
    service.plane.parts.store.write("PRAGMA query_only = OFF")
    assert (await service.api("DELETE", f"/v1/sandboxes/{sandbox}"))[0] == 204


async def test_expectations(service: Service) -> None:
    """``100-continue`` gets its 100 and then the answer; any other expectation gets 417, as JSON."""
    for expect, status in (("100-continue", b"200"), ("the-moon", b"417")):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.plane.port)
        writer.write(
            f"GET /v1/sandboxes HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
            f"Expect: {expect}\r\nConnection: close\r\n\r\n".encode()
        )
        text = await reader.read()
        writer.close()
        await writer.wait_closed()
        assert b"HTTP/1.1 100 Continue\r\n" in text or status == b"417"
        assert b"HTTP/1.1 " + status in text
        assert b"application/json" in text
