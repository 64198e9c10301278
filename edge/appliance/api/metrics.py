"""Metrics of a sandbox: what its processes use. Looking wakes nothing, and is no activity."""

from __future__ import annotations

from aiohttp import web

from edge.appliance.api.faults import told
from edge.appliance.api.http import answer, parts, sandbox_id
from edge.appliance.views import metrics_view


async def metrics(request: web.Request) -> web.Response:
    """``GET S/metrics``: a list of one sample, taken now."""
    the_parts = parts(request)
    sandbox = the_parts.sandboxes.get(sandbox_id(request))
    with told():
        usage = await the_parts.runtime.usage(sandbox.id)
    return answer([metrics_view(usage, the_parts.wall())])


ROUTES = [("GET", "/v1/sandboxes/{sandbox}/metrics", metrics)]
