"""Previews: URLs, grants, readiness. Nothing here wakes a sandbox."""

from __future__ import annotations

from aiohttp import web

from edge.appliance.api.http import answer, number, parts, path_port, query, read, sandbox_id
from edge.appliance.problems import invalid
from edge.appliance.readiness import wait_ready
from edge.appliance.requests import Host, ProxyTarget, Readiness, Signed, lifetime
from edge.appliance.sandbox import Sandbox
from edge.appliance.views import (
    TRAFFIC_HEADER,
    grant_view,
    host_view,
    preview_view,
    proxy_target_view,
)
from edge.core.records import Transport

_KINDS = {"http": Transport.HTTP, "websocket": Transport.WEBSOCKET}


async def host(request: web.Request) -> web.Response:
    """``POST S/host``: where a port is reached."""
    wanted = await read(request, Host)
    the_parts = parts(request)
    sandbox = the_parts.sandboxes.get(sandbox_id(request))
    return answer(host_view(the_parts.grants.issue(sandbox.id, wanted.port)))


async def preview_url(request: web.Request) -> web.Response:
    """``GET S/ports/{p}/preview-url``: a URL with the default lifetime."""
    the_parts = parts(request)
    sandbox = the_parts.sandboxes.get(sandbox_id(request))
    preview = the_parts.grants.issue(sandbox.id, path_port(request))
    return answer(preview_view(preview, the_parts.wall()))


async def signed_preview_url(request: web.Request) -> web.Response:
    """``POST S/ports/{p}/signed-preview-url``: a URL with a lifetime of choice."""
    wanted = await read(request, Signed)
    the_parts = parts(request)
    sandbox = the_parts.sandboxes.get(sandbox_id(request))
    preview = the_parts.grants.issue(sandbox.id, path_port(request), wanted.expires_in_seconds)
    return answer(preview_view(preview, the_parts.wall()))


async def proxy_target(request: web.Request) -> web.Response:
    """``POST S/ports/{p}/preview-proxy-target``: tokens for a customer's own proxy."""
    wanted = await read(request, ProxyTarget)
    the_parts = parts(request)
    sandbox = the_parts.sandboxes.get(sandbox_id(request))
    kinds = [_KINDS[name] for name in wanted.transports or _KINDS]
    target = the_parts.grants.issue_proxy(
        sandbox.id, path_port(request), wanted.expires_in_seconds, kinds
    )
    hint = wanted.include_traffic_token_hint is not False
    private = sandbox.plan.traffic_token_sha256 is not None if hint else None
    warnings = _warnings(sandbox, wanted, private=bool(private))
    view = proxy_target_view(target, the_parts.wall(), private=private, warnings=warnings)
    return answer(view)


def _warnings(sandbox: Sandbox, wanted: ProxyTarget, *, private: bool) -> list[str]:
    """What would otherwise be found out by a request that fails."""
    warnings = []
    asked = wanted.expires_in_seconds
    if asked is not None and lifetime(asked) != asked:
        warnings.append(f"expires_in_seconds was moved to {lifetime(asked)}.")
    if private:
        warnings.append(
            f"This sandbox's traffic is not public: send {TRAFFIC_HEADER} with every request, too."
        )
    if sandbox.previews_disabled:
        warnings.append("An operator has disabled the previews of this sandbox.")
    return warnings


async def list_grants(request: web.Request) -> web.Response:
    """``GET S/preview-urls[?port=]``: the grants, oldest first."""
    asked = query(request, "port")
    the_parts = parts(request)
    sandbox = the_parts.sandboxes.get(sandbox_id(request))
    port = number(asked["port"]) if "port" in asked else None
    if isinstance(port, str):
        raise invalid("port: must be a number")
    now = the_parts.wall()
    return answer(
        {"items": [grant_view(grant, now) for grant in the_parts.grants.of(sandbox.id, port)]}
    )


async def revoke(request: web.Request) -> web.Response:
    """``DELETE S/preview-urls/{grant_id}``: end a grant, with both of its URLs."""
    the_parts = parts(request)
    sandbox = the_parts.sandboxes.get(sandbox_id(request))
    grant = the_parts.grants.revoke(sandbox.id, request.match_info["grant"])
    return answer({"success": True, "grant": grant_view(grant, the_parts.wall())})


async def readiness(request: web.Request) -> web.Response:
    """``POST S/ports/{p}/readiness``: wait until the app listens; 200 also when it does not."""
    wanted = await read(request, Readiness)
    the_parts = parts(request)
    sandbox = the_parts.sandboxes.get(sandbox_id(request))
    port = the_parts.minter.port(path_port(request))
    the_parts.sandboxes.reach(sandbox.id, port)
    return answer(await wait_ready(sandbox, port, wanted, the_parts.wall))


ROUTES = [
    ("POST", "/v1/sandboxes/{sandbox}/host", host),
    ("GET", "/v1/sandboxes/{sandbox}/ports/{port}/preview-url", preview_url),
    ("POST", "/v1/sandboxes/{sandbox}/ports/{port}/signed-preview-url", signed_preview_url),
    ("POST", "/v1/sandboxes/{sandbox}/ports/{port}/preview-proxy-target", proxy_target),
    ("GET", "/v1/sandboxes/{sandbox}/preview-urls", list_grants),
    ("DELETE", "/v1/sandboxes/{sandbox}/preview-urls/{grant}", revoke),
    ("POST", "/v1/sandboxes/{sandbox}/ports/{port}/readiness", readiness),
]
