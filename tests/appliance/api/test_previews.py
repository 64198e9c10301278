"""Preview URLs, grants and readiness over HTTP; none of them wakes a sandbox."""

from __future__ import annotations

import pytest
from service import PAUSES, Service


async def test_a_grant_from_issue_to_revocation(service: Service) -> None:
    """Three ways to get one, listed by port, revoked once and for all; edges see each step."""
    sandbox = await service.create()
    base = f"/v1/sandboxes/{sandbox}"
    _, host = await service.api("POST", f"{base}/host", {"port": 8080})
    label = sandbox.replace("_", "-")
    assert host["host"] == f"8080-{label}.edge.test:8443"
    assert host["url"].startswith(f"https://{host['host']}/?edge_token=")
    assert host["websocket_url"].startswith(f"wss://{host['host']}/?edge_token=")
    assert host["access_token_transport"] == "query"
    _, preview = await service.api("GET", f"{base}/ports/8080/preview-url")
    _, signed = await service.api(
        "POST", f"{base}/ports/9090/signed-preview-url", {"expires_in_seconds": 120}
    )
    assert signed["grant"]["expires_at"] == signed["access_token_expires_at"]
    _, listed = await service.api("GET", f"{base}/preview-urls")
    assert [grant["port"] for grant in listed["items"]] == [8080, 8080, 9090]
    assert listed["items"][1:] == [preview["grant"], signed["grant"]]
    _, listed = await service.api("GET", f"{base}/preview-urls?port=9090")
    grant = signed["grant"]["id"]
    assert [item["id"] for item in listed["items"]] == [grant]
    _, record = await service.edge("GET", f"grants/{grant}")
    assert (record["status"], sorted(record["kinds"])) == (
        "active",
        ["http_port", "websocket_port"],
    )
    for _ in range(2):
        status, revoked = await service.api("DELETE", f"{base}/preview-urls/{grant}")
        assert (status, revoked["success"], revoked["grant"]["status"]) == (200, True, "revoked")
    _, record = await service.edge("GET", f"grants/{grant}")
    assert record["status"] == "revoked"
    other = await service.create()
    for path in (f"{base}/preview-urls/pvg_no", f"/v1/sandboxes/{other}/preview-urls/{grant}"):
        status, error = await service.api("DELETE", path)
        assert (status, error["code"]) == (404, "preview_grant_not_found")


@pytest.mark.parametrize(
    "port", ["22", "5900", "0", "65536", "x", "080", "-1", "%20", "3002", "8443"]
)
async def test_ports_that_cannot_be_previewed(service: Service, port: str) -> None:
    """Every address with a port refuses the same ones, our own among them."""
    sandbox = await service.create()
    base = f"/v1/sandboxes/{sandbox}"
    own = str(service.plane.port)
    for value in (port, own):
        for method, path in [
            ("GET", f"{base}/ports/{value}/preview-url"),
            ("POST", f"{base}/ports/{value}/signed-preview-url"),
            ("POST", f"{base}/ports/{value}/preview-proxy-target"),
            ("POST", f"{base}/ports/{value}/readiness"),
        ]:
            status, error = await service.api(method, path, {} if method == "POST" else None)
            assert (status, error["code"]) == (400, "unsupported_preview_port")
            shown = int(value) if value.isdigit() and value != "080" else value.replace("%20", " ")
            assert error["details"] == {"port": shown} and error["retryable"] is False
    status, error = await service.api("POST", f"{base}/host", {"port": int(own)})
    assert (status, error["details"]) == (400, {"port": int(own)})


async def test_nothing_here_wakes(service: Service) -> None:
    """URLs, lists and readiness of a paused sandbox answer and leave it paused."""
    sandbox = await service.create(**PAUSES)
    base = f"/v1/sandboxes/{sandbox}"
    await service.api("POST", f"{base}/hibernate")
    assert (await service.api("POST", f"{base}/host", {"port": 80}))[0] == 200
    assert (await service.api("GET", f"{base}/ports/80/preview-url"))[0] == 200
    assert (await service.api("POST", f"{base}/ports/80/preview-proxy-target"))[0] == 200
    assert (await service.api("GET", f"{base}/preview-urls"))[0] == 200
    _, ready = await service.api("POST", f"{base}/ports/80/readiness")
    assert (ready["ready"], ready["code"]) == (False, "preview_service_not_ready")
    assert (await service.api("GET", f"{base}?fields=status"))[1] == {"status": "paused"}


async def test_an_app_in_a_sandbox_becomes_ready(service: Service, unused_tcp_port: int) -> None:
    """Readiness waits for a real server that is just starting."""
    sandbox = await service.create()
    base = f"/v1/sandboxes/{sandbox}"
    args = ["-m", "http.server", str(unused_tcp_port), "--bind", "127.0.0.1"]
    await service.api(
        "POST", f"{base}/exec", {"command": "python3", "args": args, "background": True}
    )
    body = {"kind": "http", "path": "/", "timeout_secs": 30, "interval_ms": 100}
    _, ready = await service.api("POST", f"{base}/ports/{unused_tcp_port}/readiness", body)
    assert ready["ready"] is True, ready


@pytest.mark.parametrize("query", ["port=x", "port=", "port=1&port=2", "more=1"])
async def test_lists_that_cannot_be(service: Service, query: str) -> None:
    """Every wrong query is 400."""
    sandbox = await service.create()
    status, error = await service.api("GET", f"/v1/sandboxes/{sandbox}/preview-urls?{query}")
    assert (status, error["code"]) == (400, "invalid_request")


async def test_a_target_for_a_proxy(service: Service) -> None:
    """Both transports unless said otherwise, a grant of its own that is listed and revoked as any."""
    sandbox = await service.create()
    base = f"/v1/sandboxes/{sandbox}"
    status, target = await service.api("POST", f"{base}/ports/8080/preview-proxy-target", {})
    host = f"8080-{sandbox.replace('_', '-')}.edge.test:8443"
    assert status == 200
    assert target["http_url"] == f"https://{host}/?__ns_preview_transport=header"
    assert target["websocket_url"] == f"wss://{host}/?__ns_preview_transport=header"
    assert target["http_token"] != target["websocket_token"]
    grant = target["grant"]
    assert (grant["auth_mode"], grant["bootstrap_transport"]) == ("proxy", "header")
    assert grant["token_kinds"] == ["http_port", "websocket_port"]
    assert target["traffic_access_required"] is False and target["warnings"] == []
    _, listed = await service.api("GET", f"{base}/preview-urls?port=8080")
    assert listed["items"] == [grant]
    _, record = await service.edge("GET", f"grants/{grant['id']}")
    assert sorted(record["kinds"]) == ["http_port", "websocket_port"]
    _, revoked = await service.api("DELETE", f"{base}/preview-urls/{grant['id']}")
    assert (revoked["grant"]["status"], revoked["grant"]["auth_mode"]) == ("revoked", "proxy")


async def test_a_target_for_one_transport(service: Service) -> None:
    """What was not asked for is not there, in the answer and in what edges see."""
    sandbox = await service.create(network={"allow_public_traffic": False})
    path = f"/v1/sandboxes/{sandbox}/ports/80/preview-proxy-target"
    body = {"transports": ["websocket"], "expires_in_seconds": 5}
    _, target = await service.api("POST", path, body)
    assert not target.keys() & {"http_url", "http_token"} and target["websocket_token"]
    assert target["grant"]["token_kinds"] == ["websocket_port"]
    _, record = await service.edge("GET", f"grants/{target['grant']['id']}")
    assert record["kinds"] == ["websocket_port"]
    assert target["traffic_access_required"] is True
    assert target["traffic_access_header_name"] == "x-nullspace-traffic-access-token"
    clamped, private = target["warnings"]
    assert "60" in clamped and "x-nullspace-traffic-access-token" in private
    _, target = await service.api("POST", path, {"include_traffic_token_hint": False})
    assert not {key for key in target if key.startswith("traffic_access")}
    assert target["warnings"] == []


async def test_a_destroyed_sandbox_has_no_previews(service: Service) -> None:
    """Its grants are neither listed nor revoked nor issued, and what edges still report is passed over."""
    sandbox = await service.create()
    base = f"/v1/sandboxes/{sandbox}"
    _, preview = await service.api("GET", f"{base}/ports/80/preview-url")
    grant = preview["grant"]["id"]
    await service.api("DELETE", base)
    for method, path in [
        ("GET", f"{base}/preview-urls"),
        ("DELETE", f"{base}/preview-urls/{grant}"),
        ("GET", f"{base}/ports/80/preview-url"),
        ("POST", f"{base}/ports/80/preview-proxy-target"),
        ("POST", f"{base}/ports/80/signed-preview-url"),
    ]:
        status, error = await service.api(method, path)
        assert (status, error["code"]) == (404, "sandbox_not_found")
    item = {"sandbox_id": sandbox, "grant_id": grant, "last_error_code": "sandbox_not_found"}
    batch = {"edge": "e", "sequence": 1, "items": [item, item | {"grant_id": "pvg_unknown"}]}
    assert (await service.edge("POST", "usage", batch))[0] == 204


async def test_usage_shows_in_the_list(service: Service) -> None:
    """What edges report is added up in the grant: counters, first and last use, the last error."""
    sandbox = await service.create()
    base = f"/v1/sandboxes/{sandbox}"
    _, preview = await service.api("GET", f"{base}/ports/80/preview-url")
    item = {"sandbox_id": sandbox, "grant_id": preview["grant"]["id"]}
    for number, more in enumerate(
        [
            {"requests": 2, "bytes_in": 10, "bytes_out": 20},
            {"websockets": 1, "bytes_in": 1, "last_error_code": "preview_upstream_closed"},
        ]
    ):
        batch = {"edge": "e", "sequence": number, "items": [item | more]}
        for _ in range(2):  # a batch that comes twice counts once
            await service.edge("POST", "usage", batch)
    _, listed = await service.api("GET", f"{base}/preview-urls")
    (grant,) = listed["items"]
    counts = ("use_count", "http_request_count", "websocket_connection_count")
    assert [grant[name] for name in counts] == [3, 2, 1]
    assert (grant["bytes_in_count"], grant["bytes_out_count"]) == (11, 20)
    assert grant["first_used_at"] <= grant["last_used_at"] <= grant["updated_at"]
    assert (grant["last_error_code"], grant["status"]) == ("preview_upstream_closed", "active")
    assert grant["last_error_at"] is not None
