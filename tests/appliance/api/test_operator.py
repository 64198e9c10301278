"""The operator API over HTTP: switches that edges hear of, and the audit trail."""

from __future__ import annotations

from typing import Any

import pytest
from service import TOKEN, Service

from edge.appliance.api.operator import PREFIX
from edge.core.records import GrantStatus


async def _operator(service: Service, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """A call with the service token."""
    key = {"Authorization": f"Bearer {TOKEN}"}
    return await service.api(method, f"{PREFIX}/{path}", body, **key)


async def _events(service: Service, query: str = "") -> list[tuple[str, str, str | None]]:
    """The trail as (event, actor, reason), oldest first."""
    status, page = await _operator(service, "GET", f"audit?order=asc{query}")
    assert status == 200 and page.keys() == {"events", "offset", "limit", "has_more"}, page
    return [(e["event"], e["actor"], e.get("reason")) for e in page["events"]]


async def test_a_grant_is_disabled_and_enabled(service: Service) -> None:
    """Edges hear of each step at once, the tenant sees it in the list, the trail has who and why."""
    sandbox = await service.create()
    base = f"/v1/sandboxes/{sandbox}"
    _, preview = await service.api("GET", f"{base}/ports/80/preview-url")
    grant = preview["grant"]["id"]
    async with service.watch("edge-1") as edge:
        await edge.next()
        for _ in range(2):
            status, view = await _operator(
                service, "POST", f"grants/{grant}/disable", {"reason": "phishing"}
            )
            assert (status, view["id"], view["status"]) == (200, grant, "disabled")
        assert (await edge.change()).record.status is GrantStatus.DISABLED
        _, listed = await service.api("GET", f"{base}/preview-urls")
        assert [item["status"] for item in listed["items"]] == ["disabled"]
        assert listed["items"][0]["disabled_at"] is not None
        status, view = await _operator(service, "POST", f"grants/{grant}/enable")
        assert (status, view["status"], view["disabled_at"]) == (200, "active", None)
        assert (await edge.change()).record.status is GrantStatus.ACTIVE
    assert await _events(service, f"&grant_id={grant}") == [
        ("created", "user", None),
        ("disabled", "operator", "phishing"),
        ("enabled", "operator", None),
    ]


async def test_all_previews_of_a_sandbox(service: Service) -> None:
    """One switch for every grant, also of a paused sandbox and through a resume; it wakes nobody."""
    sandbox = await service.create(timeout_action="hibernate", auto_resume=True)
    base = f"/v1/sandboxes/{sandbox}"
    _, snapshot = await service.api("POST", f"{base}/hibernate")
    for _ in range(2):
        answer = await _operator(service, "POST", f"sandboxes/{sandbox}/previews/disable")
        assert answer == (200, {"sandbox_id": sandbox, "previews_disabled": True})
    _, record = await service.edge("GET", f"sandboxes/{sandbox}")
    assert (record["previews_disabled"], record["state"]) == (True, "paused")
    version = record["version"]
    await service.api("POST", f"/v1/sandboxes/{snapshot['id']}/resume")
    _, target = await service.api("POST", f"{base}/ports/80/preview-proxy-target")
    assert "disabled" in target["warnings"][0]
    _, record = await service.edge("GET", f"sandboxes/{sandbox}")
    assert record["previews_disabled"] and record["version"] > version
    answer = await _operator(service, "POST", f"sandboxes/{sandbox}/previews/enable")
    assert answer == (200, {"sandbox_id": sandbox, "previews_disabled": False})
    _, record = await service.edge("GET", f"sandboxes/{sandbox}")
    assert record["previews_disabled"] is False
    assert await _events(service, f"&sandbox_id={sandbox}&actor=operator") == [
        ("disabled", "operator", None),
        ("enabled", "operator", None),
    ]
    assert "previews_disabled" not in (await service.api("GET", base))[1]


async def test_what_there_is_not(service: Service) -> None:
    """Unknown and destroyed are 404, other addresses too, and a body that is wrong changes nothing."""
    sandbox = await service.create()
    _, preview = await service.api("GET", f"/v1/sandboxes/{sandbox}/ports/80/preview-url")
    path = f"grants/{preview['grant']['id']}/disable"
    status, error = await _operator(service, "POST", path, {"reason": 5})
    assert (status, error["code"]) == (400, "invalid_request")
    assert len(await _events(service)) == 1
    await service.api("DELETE", f"/v1/sandboxes/{sandbox}")
    for path, code in [
        ("grants/pvg_unknown/disable", "preview_grant_not_found"),
        ("grants/pvg_unknown/enable", "preview_grant_not_found"),
        (f"sandboxes/{sandbox}/previews/disable", "sandbox_not_found"),
        ("sandboxes/sb_unknown/previews/enable", "sandbox_not_found"),
        ("nothing", "not_found"),
    ]:
        status, error = await _operator(service, "POST", path)
        assert (status, error["code"]) == (404, code)
    assert [event for event, *_ in await _events(service, f"&sandbox_id={sandbox}")] == ["created"]


async def test_the_trail_of_a_grants_life(service: Service) -> None:
    """Created, used, failed and revoked, with filters and pages; nothing in it is a credential."""
    sandbox = await service.create(network={"allow_public_traffic": False})
    base = f"/v1/sandboxes/{sandbox}"
    _, target = await service.api("POST", f"{base}/ports/8080/preview-proxy-target")
    grant = target["grant"]["id"]
    item = {"sandbox_id": sandbox, "grant_id": grant, "requests": 1}
    for number, code in enumerate([None, None, "preview_upstream_closed"]):
        batch = {"edge": "e", "sequence": number, "items": [item | {"last_error_code": code}]}
        await service.edge("POST", "usage", batch)
    await service.api("DELETE", f"{base}/preview-urls/{grant}")
    assert await _events(service) == [
        ("created", "user", None),
        ("used", "visitor", None),
        ("failed", "visitor", None),
        ("revoked", "user", None),
    ]
    _, page = await _operator(service, "GET", "audit?limit=1&offset=1")
    (failed,) = page["events"]
    assert page["has_more"] is True
    assert failed == failed | {
        "event": "failed", "sandbox_id": sandbox, "grant_id": grant, "port": 8080,
        "auth_mode": "proxy", "code": "preview_upstream_closed",
    }  # fmt: skip
    since = f"&from={failed['occurred_at']}&event=failed"
    assert await _events(service, since) == [("failed", "visitor", None)]
    _, everything = await _operator(service, "GET", "audit")
    for secret in (target["http_token"], target["websocket_token"]):
        assert secret not in str(everything)


@pytest.mark.parametrize(
    "query",
    ["event=gone", "actor=me", "from=x", "limit=0", "order=up", "more=1", "limit=1&limit=2"],
)
async def test_lists_that_cannot_be(service: Service, query: str) -> None:
    """Every wrong query is 400."""
    status, error = await _operator(service, "GET", f"audit?{query}")
    assert (status, error["code"]) == (400, "invalid_request")
