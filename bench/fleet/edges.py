"""Several edges in one process, each made and started by production's builder.

``python -m bench.fleet.edges SETTINGS NAME COUNT`` prints ``{"port": N, "ports": [...]}`` once all of them are ready.
On the first port ``POST /know {"ids": [[...], ...]}`` has each edge look up its list of sandboxes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from itertools import islice
from pathlib import Path

import uvloop
from aiohttp import web

from edge.ops.configuration import load_settings
from edge.ops.edge import Edge
from edge.ops.server import build_edge

AT_ONCE = 16
"""Look-ups of one edge under way at once."""
EDGES: web.AppKey[list[Edge]] = web.AppKey("edges", list)


async def know(request: web.Request) -> web.Response:
    """Look up, which is what a first request does."""
    asked = (await request.json())["ids"]

    async def all_of(edge: Edge, ids: list[str]) -> None:
        left = iter(ids)

        async def some() -> None:
            for sandbox_id in left:
                await edge.catalog.look_up_sandbox(sandbox_id)

        await asyncio.gather(*(some() for _ in islice(range(len(ids)), AT_ONCE)))

    edges = request.app[EDGES]
    await asyncio.gather(*map(all_of, edges, asked))
    return web.json_response({"known": [edge.catalog.size()["sandboxes"] for edge in edges]})


async def main(file: Path, name: str, count: int) -> None:
    edges = []
    for number in range(count):
        own = {"PREVIEW_EDGE_CONTROL_PLANE__EDGE_ID": f"{name}-{number}"}
        edges.append(build_edge(load_settings(file, own)))
    for edge in edges:
        await edge.start()
    while any(edge.unready() for edge in edges):  # noqa: ASYNC110 - an edge has no event for it
        await asyncio.sleep(0.05)
    app = web.Application(client_max_size=1 << 24)
    app[EDGES] = edges
    app.add_routes([web.post("/know", know)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    ports = [edge.port for edge in edges]
    print(json.dumps({"port": runner.addresses[0][1], "ports": ports}), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
