"""Sandboxes over HTTP, with real directories and processes."""

from __future__ import annotations

from typing import Any

import pytest
from service import PAUSES, Service


async def _code(service: Service, method: str, path: str, body: Any = None) -> tuple[int, str]:
    status, error = await service.api(method, path, body)
    return status, error["code"]


async def test_a_life(service: Service) -> None:
    """Create, get, pause, resume, destroy, and nothing afterwards."""
    status, made = await service.api("POST", "/v1/sandboxes", {"metadata": {"a": [1]}, **PAUSES})
    assert (status, made["status"], made["metadata"]) == (201, "running", {"a": [1]})
    assert made["expires_at"] == made["timeout_at"] and made["timeout_ms"] == 300_000
    path = f"/v1/sandboxes/{made['id']}"
    assert (await service.api("GET", path))[1] == made
    status, snapshot = await service.api("POST", f"{path}/hibernate")
    assert status == 200
    assert snapshot.keys() == {"id", "sandbox_id", "size_bytes", "created_at", "metadata"}
    paused = (await service.api("GET", path))[1]
    assert (paused["status"], paused["snapshot_id"]) == ("paused", snapshot["id"])
    assert paused["timeout_at"] is None
    assert (await service.api("POST", f"{path}/hibernate"))[1] == snapshot
    status, resumed = await service.api("POST", f"/v1/sandboxes/{snapshot['id']}/resume")
    assert (status, resumed["status"]) == (200, "running") and "snapshot_id" not in resumed
    assert (await service.api("POST", f"/v1/sandboxes/{snapshot['id']}/resume")) == (200, resumed)
    assert await service.api("DELETE", path) == (204, None)
    for method, rest in [("GET", ""), ("DELETE", ""), ("POST", "/hibernate"), ("GET", "/files")]:
        assert await _code(service, method, f"{path}{rest}") == (404, "sandbox_not_found")
    assert await _code(service, "POST", f"/v1/sandboxes/{snapshot['id']}/resume") == (
        404,
        "snapshot_not_found",
    )


@pytest.mark.parametrize(
    "name", ["sb_unknown", "%2e%2e", "a%2Fb", "%00", "%ff", "x" * 3000, "\u2603"]
)
async def test_unknown_ids(service: Service, name: str) -> None:
    """Whatever stands in place of an id is an unknown one."""
    for method, rest in [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/hibernate"),
        ("GET", "/processes"),
    ]:
        status, code = await _code(service, method, f"/v1/sandboxes/{name}{rest}")
        assert (status, code) in ((404, "sandbox_not_found"), (501, "not_implemented"))
    status, _ = await _code(service, "POST", f"/v1/sandboxes/{name}/resume")
    assert status in (404, 501)


async def test_lists(service: Service) -> None:
    """Bare without a query; with one, filtered and paged without gap or repeat."""
    made = [await service.create(template=name, metadata={"n": n, "t": {"x": 1}}, **PAUSES)
            for n, name in enumerate(["base", "other", "base", "base"])]  # fmt: skip
    await service.api("POST", f"/v1/sandboxes/{made[0]}/hibernate")

    async def ids(query: str) -> list[str]:
        status, page = await service.api("GET", f"/v1/sandboxes?{query}")
        assert status == 200, page
        return [item["id"] for item in page["items"]]

    assert [item["id"] for item in (await service.api("GET", "/v1/sandboxes"))[1]] == made
    assert await ids("state=paused") == made[:1]
    assert await ids("state=running,paused&template=base") == [made[0], made[2], made[3]]
    assert await ids("metadata=%7B%22n%22%3A1%7D") == [made[1]]
    assert await ids("metadata=%7B%22t%22%3A%7B%22x%22%3A1%7D%7D") == made
    assert await ids("metadata=%7B%22missing%22%3Anull%7D") == []
    seen, query = [], "limit=3"
    while True:
        _, page = await service.api("GET", f"/v1/sandboxes?{query}")
        seen += [item["id"] for item in page["items"]]
        if not page["has_next"]:
            assert "next_token" not in page
            break
        query = f"limit=3&next_token={page['next_token']}"
    assert seen == made


async def test_fields(service: Service) -> None:
    """Only what was asked for, in get and list; an unknown name is told."""
    made = await service.create()
    path = f"/v1/sandboxes/{made}"
    assert (await service.api("GET", f"{path}?fields=id,status"))[1] == {
        "id": made,
        "status": "running",
    }
    assert (await service.api("GET", f"{path}?fields=snapshot_id"))[1] == {}
    assert (await service.api("GET", "/v1/sandboxes?fields=id"))[1] == {
        "items": [{"id": made}],
        "has_next": False,
    }
    for wrong in ("id,colour", "", "id,,status"):
        for base in (path, "/v1/sandboxes"):
            assert await _code(service, "GET", f"{base}?fields={wrong}") == (400, "invalid_fields")


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=x",
        "limit=1001",
        "limit=1&limit=2",
        "state=asleep",
        "state=",
        "metadata=x",
        "metadata=[]",
        "next_token=x",
        "next_token=%F0%9F%90%99",
        "next_token=YWZ0ZXI6eA==",
        "colour=red",
    ],
)
async def test_lists_that_cannot_be(service: Service, query: str) -> None:
    """Every wrong query is 400."""
    assert await _code(service, "GET", f"/v1/sandboxes?{query}") == (400, "invalid_request")


async def test_set_timeout(service: Service) -> None:
    """The answer has the new time; an auto-resumable sandbox cannot be set to destroy itself."""
    made = await service.create(**PAUSES)
    path = f"/v1/sandboxes/{made}/timeout"
    status, told = await service.api("POST", path, {"timeout_ms": 5000})
    assert (status, told["timeout_ms"], told["timeout_action"]) == (200, 5000, "hibernate")
    body = {"timeout_ms": 5000, "timeout_action": "destroy"}
    assert await _code(service, "POST", path, body) == (400, "invalid_request")
    plain = await service.create()
    status, told = await service.api(
        "POST", f"/v1/sandboxes/{plain}/timeout", {"timeout_ms": 1, "timeout_action": "hibernate"}
    )
    assert told["timeout_action"] == "hibernate"
