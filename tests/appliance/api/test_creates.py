"""Creates over HTTP, with real directories and processes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest
from service import Service

from edge.core.redact import redact_text


async def _code(service: Service, method: str, path: str, body: Any = None) -> tuple[int, str]:
    status, error = await service.api(method, path, body)
    return status, error["code"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"auto_resume": True}, 400, "invalid_request"),
        ({"cwd": "../out"}, 400, "invalid_request"),
        ({"cwd": "/etc"}, 400, "invalid_request"),
        ({"snapshot_id": "snap_1"}, 404, "snapshot_not_found"),
        ({"volumes": [{"ref": "x"}]}, 400, "invalid_request"),
        ({"desktop": {"dpi": 96}}, 501, "not_implemented"),
        ({"internet_access": False}, 501, "not_implemented"),
        ({"network": {"deny_out": ["0.0.0.0/0"]}}, 501, "not_implemented"),
        ({"network": {"allow_out": ["x"]}}, 501, "not_implemented"),
        ({"warm_pool": {"id": "wp_1", "mode": "require"}}, 409, "warm_pool_unavailable"),
    ],
)
async def test_creates_that_are_refused(
    service: Service, body: dict[str, Any], status: int, code: str
) -> None:
    """A refused create leaves no sandbox."""
    assert await _code(service, "POST", "/v1/sandboxes", body) == (status, code)
    assert await service.api("GET", "/v1/sandboxes") == (200, [])


@pytest.mark.parametrize(
    ("pool", "checkout"),
    [
        (None, {"source": "cold_create", "hit": False}),
        ({"mode": "bypass"}, {"source": "bypassed", "hit": False, "mode": "bypass"}),
        (
            {"id": "wp_1", "wait_ms": 5},
            {"source": "cold_create", "hit": False, "mode": "prefer", "id": "wp_1", "wait_ms": 5},
        ),
    ],
)
async def test_the_checkout_is_always_told(
    service: Service, pool: dict[str, Any] | None, checkout: dict[str, Any]
) -> None:
    """A pool that nobody knows has no ready instance, so a create is a cold one and says so."""
    _, made = await service.api("POST", "/v1/sandboxes", {"warm_pool": pool})
    assert made["warm_pool_checkout"] == checkout


async def test_a_private_sandbox_tells_its_token_once(service: Service) -> None:
    """The create answer has the token; afterwards only its hash exists, for edges."""
    network = {"allow_public_traffic": False, "mask_request_host": "localhost:${PORT}"}
    _, made = await service.api("POST", "/v1/sandboxes", {"network": network})
    token = made["traffic_access_token"]
    assert redact_text(f"/{token}") == "/<redacted>", "logs would not recognise it"
    _, later = await service.api("GET", f"/v1/sandboxes/{made['id']}")
    assert "traffic_access_token" not in later
    _, record = await service.edge("GET", f"sandboxes/{made['id']}")
    assert record["traffic_token_sha256"] == hashlib.sha256(token.encode()).hexdigest()
    assert record["mask_request_host"] == "localhost:${PORT}"
    _, open_one = await service.api(
        "POST", "/v1/sandboxes", {"network": {"allow_public_traffic": True}}
    )
    assert "traffic_access_token" not in open_one


async def test_the_token_is_in_create_answers_only(service: Service) -> None:
    """A create repeated by its key has it again, for who lost the answer; no other answer ever has."""
    body = {"network": {"allow_public_traffic": False}, "timeout_action": "hibernate"}
    key = {"Idempotency-Key": "private"}
    _, made = await service.api("POST", "/v1/sandboxes", body, **key)
    _, again = await service.api("POST", "/v1/sandboxes", body, **key)
    token = made["traffic_access_token"]
    assert again == made
    base = f"/v1/sandboxes/{made['id']}"
    _, snapshot = await service.api("POST", f"{base}/hibernate")
    others = [
        await service.api("POST", "/v1/sandboxes", {}, **key),
        await service.api("POST", f"/v1/sandboxes/{snapshot['id']}/resume"),
        await service.api("GET", f"{base}?fields=id,traffic_access_token"),
        await service.api("GET", "/v1/sandboxes"),
        await service.api("GET", "/v1/sandboxes?limit=10"),
        await service.api("POST", f"{base}/timeout", {"timeout_ms": 60_000}),
        await service.api("GET", f"{base}/lifecycle"),
        await service.api("POST", f"{base}/ports/80/preview-proxy-target"),
        await service.edge("GET", f"sandboxes/{made['id']}"),
    ]
    assert others[0][0] == 409 and others[2] == (200, {"id": made["id"]})
    for status, answer in others[1:]:
        assert status == 200 and token not in json.dumps(answer)
    _, second = await service.api("POST", "/v1/sandboxes", body)
    assert second["traffic_access_token"] not in ("", token)


async def test_idempotency(service: Service) -> None:
    """One key, one sandbox, one answer: at once, later, in another order of keys; else a conflict."""
    calls = [
        service.api("POST", "/v1/sandboxes", body, **{"Idempotency-Key": "k1"})
        for body in [{"vcpus": 1, "memory_mb": 64}, {"memory_mb": 64, "vcpus": 1}] * 5
    ]
    answers = await asyncio.gather(*calls)
    assert {status for status, _ in answers} == {201}
    assert len({made["id"] for _, made in answers}) == 1
    assert len((await service.api("GET", "/v1/sandboxes"))[1]) == 1
    status, error = await service.api("POST", "/v1/sandboxes", {}, **{"Idempotency-Key": "k1"})
    assert (status, error["code"]) == (409, "idempotency_conflict")
    status, error = await service.api("POST", "/v1/sandboxes", {}, **{"Idempotency-Key": "k" * 256})
    assert (status, error["code"]) == (400, "invalid_request")
