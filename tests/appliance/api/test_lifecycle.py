"""Lists of lifecycle events over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from service import Service


async def _told(service: Service, path: str) -> list[dict[str, Any]]:
    status, page = await service.api("GET", path)
    assert status == 200, page
    assert page.keys() == {"events", "offset", "limit", "has_more"}
    return list(page["events"])


async def test_a_life_as_events(service: Service) -> None:
    """Every step is told with its ids and reason, also after the end, also by snapshot."""
    sandbox = await service.create(timeout_action="hibernate")
    base = f"/v1/sandboxes/{sandbox}"
    _, snapshot = await service.api("POST", f"{base}/hibernate")
    await service.api("POST", f"/v1/sandboxes/{snapshot['id']}/resume")
    await service.api("POST", f"{base}/timeout", {"timeout_ms": 60_000})
    await service.api("DELETE", base)
    events = await _told(service, f"{base}/lifecycle?order=asc")
    assert [(e["operation"], e["status"], e["reason"]) for e in events] == [
        ("create", "succeeded", "api"),
        ("hibernate", "requested", "api"),
        ("hibernate", "succeeded", "api"),
        ("snapshot_created", "succeeded", "api"),
        ("resume_from_snapshot", "succeeded", "api"),
        ("timeout_updated", "requested", "api"),
        ("timeout_updated", "succeeded", "api"),
        ("destroy", "requested", "manual"),
        ("destroy", "succeeded", "manual"),
    ]
    assert events[0]["metadata"] == {"timeout_action": "hibernate"}
    assert events[3]["metadata"] == {"created_via": "hibernate"}
    assert {e["snapshot_id"] for e in events[1:5]} == {snapshot["id"]}
    assert events[4]["source_sandbox_id"] == events[4]["target_sandbox_id"] == sandbox
    assert {e["actor_kind"] for e in events} == {"user"}
    assert await _told(service, f"{base}/lifecycle") == events[::-1]
    by_snapshot = await _told(service, f"/v1/snapshots/{snapshot['id']}/lifecycle?order=asc")
    assert by_snapshot == events[1:5]
    assert await _told(service, f"/v1/lifecycle/events?sandbox_id={sandbox}&order=asc") == events
    assert await _told(service, "/v1/lifecycle/events?operation=create") == events[:1]
    assert len(await _told(service, "/v1/lifecycle/events?status=requested")) == 3
    since = events[7]["occurred_at"]
    assert await _told(service, f"/v1/lifecycle/events?from={since}&order=asc") == events[7:]
    assert await _told(service, f"/v1/lifecycle/events?to={since}&order=asc&limit=2") == events[:2]
    _, page = await service.api("GET", "/v1/lifecycle/events?offset=8&limit=200")
    assert (page["offset"], page["limit"], page["has_more"]) == (8, 200, False)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0", "limit=x", "offset=-1", "order=up", "operation=explode", "status=maybe",
        "from=yesterday", "to=", "from=2026-13-01T00:00:00Z", "audience=internal", "more=1",
        "sandbox_id=a&sandbox_id=b",
    ],
)  # fmt: skip
async def test_lists_that_cannot_be(service: Service, query: str) -> None:
    """Every wrong query is 400."""
    status, error = await service.api("GET", f"/v1/lifecycle/events?{query}")
    assert (status, error["code"]) == (400, "invalid_request")


async def test_unknown_ids(service: Service) -> None:
    """What never was has no list."""
    status, error = await service.api("GET", "/v1/sandboxes/sb_no/lifecycle")
    assert (status, error["code"]) == (404, "sandbox_not_found")
    status, error = await service.api("GET", "/v1/snapshots/snap_no/lifecycle")
    assert (status, error["code"]) == (404, "snapshot_not_found")
