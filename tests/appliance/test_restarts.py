"""A real control plane is killed and started again: what it knows then, and what a real edge makes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from restarting import Plane
from service import PAUSES
from whole import edge_of, request

from edge.ops.edge import Edge
from tests.flows.rawclient import Answer, RawClient
from tests.flows.scriptedapp import ScriptedApp


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[Plane]:
    """A control plane that can be killed."""
    async with Plane(tmp_path) as running:
        yield running


async def restart(plane: Plane) -> dict[str, Any]:
    """Kill -9, and start again."""
    await plane.kill()
    return await plane.start()


async def test_sandboxes_come_back_in_error_with_their_files(plane: Plane) -> None:
    """Running and paused ones, with one event that says why; their files are read until they are killed."""
    running = (await plane.api("POST", "", {"metadata": {"n": 1}}))["id"]
    paused = (await plane.api("POST", "", PAUSES))["id"]
    dead = (await plane.api("POST"))["id"]
    await plane.api("POST", f"/{running}/files/write", {"path": "deep/kept.txt", "content": "kept"})
    await plane.api("POST", f"/{running}/timeout", {"timeout_ms": 7_000})
    snapshot = await plane.api("POST", f"/{paused}/hibernate")
    await plane.api("DELETE", f"/{dead}")
    assert (await restart(plane))["in_error"] == 2

    listed = await plane.api("GET")
    assert [(one["id"], one["status"]) for one in listed] == [(running, "error"), (paused, "error")]
    first = listed[0]
    assert (first["metadata"], first["timeout_ms"], first["timeout_at"]) == ({"n": 1}, 7_000, None)
    for sandbox, was in [(running, "running"), (paused, "paused")]:
        asked = f"/{sandbox}/lifecycle?operation=reconcile"
        (event,) = (await plane.api("GET", asked))["events"]
        assert (event["actor_kind"], event["reason"]) == ("reconcile", "restart")
        assert (event["status"], event["error_code"]) == ("failed", "runtime_lost")
        assert "restarted" in event["error_message"]
        assert event["metadata"] == {"previous_status": was}

    read = await plane.api("POST", f"/{running}/files/read", {"path": "deep/kept.txt"})
    assert read["content"] == "kept"
    assert [one["name"] for one in await plane.api("GET", f"/{running}/files?path=deep")] == [
        "kept.txt"
    ]
    for path, body in [
        ("exec", {"command": "true"}),
        ("files/write", {"path": "a", "content": "b"}),
        ("hibernate", None),
    ]:
        status, answer = await plane.call("POST", f"/v1/sandboxes/{running}/{path}", body)
        assert (status, answer["code"]) == (409, "sandbox_not_ready"), path
        assert answer["details"] == {"status": "error"}
    status, answer = await plane.call("POST", f"/v1/sandboxes/{snapshot['id']}/resume")
    assert (status, answer["code"]) == (409, "sandbox_not_ready")

    assert (plane.data / "sandboxes" / running).is_dir()
    await plane.api("DELETE", f"/{running}")
    assert not (plane.data / "sandboxes" / running).exists()
    assert (await restart(plane))["in_error"] == 1
    assert [one["id"] for one in await plane.api("GET")] == [paused]


async def test_a_create_that_is_repeated_after_a_restart_is_the_same(plane: Plane) -> None:
    """The same answer but for the traffic access token, which is never written; another body conflicts."""
    body = {"network": {"allow_public_traffic": False}, "metadata": {"a": 1}}
    key = {"Idempotency-Key": "once"}
    made = await plane.api("POST", "", body, **key)
    token = made.pop("traffic_access_token")
    for file in plane.data.iterdir():
        assert file.is_dir() or token.encode() not in file.read_bytes(), file
    await restart(plane)
    assert await plane.api("POST", "", body, **key) == made
    assert len(await plane.api("GET")) == 1
    status, answer = await plane.call("POST", "/v1/sandboxes", {}, **key)
    assert (status, answer["code"]) == (409, "idempotency_conflict")


async def test_grants_keep_their_state_their_counters_and_their_trail(plane: Plane) -> None:
    """A batch of usage that is delivered again after the restart counts once."""
    sandbox = (await plane.api("POST"))["id"]
    path = f"/{sandbox}/ports/8000/signed-preview-url"
    used, revoked, disabled = [(await plane.api("POST", path))["grant"]["id"] for _ in range(3)]
    batch = {
        "edge": "edge-1",
        "sequence": 10,
        "items": [{"sandbox_id": sandbox, "grant_id": used, "requests": 3, "bytes_in": 5}],
    }
    await plane.edge("POST", "usage", batch)
    await plane.api("DELETE", f"/{sandbox}/preview-urls/{revoked}")
    await plane.operator("POST", f"grants/{disabled}/disable", {"reason": "phishing"})
    before = (await plane.api("GET", f"/{sandbox}/preview-urls"))["items"]
    trail = (await plane.operator("GET", "audit"))["events"]
    assert len(trail) == 6
    await restart(plane)
    await plane.edge("POST", "usage", batch)
    assert (await plane.api("GET", f"/{sandbox}/preview-urls"))["items"] == before
    assert (await plane.operator("GET", "audit"))["events"] == trail
    assert [grant["status"] for grant in before] == ["active", "revoked", "disabled"]
    await plane.edge("POST", "usage", {**batch, "sequence": 11})
    (first, _, _) = (await plane.api("GET", f"/{sandbox}/preview-urls"))["items"]
    assert (first["use_count"], first["bytes_in_count"]) == (6, 10)


# --- With an edge that stays up ---------------------------------------------------------------------


async def ask(edge: Edge, url: str) -> Answer:
    """One request on a connection of its own."""
    async with await RawClient.open(edge.port) as client:
        return await client.ask(request(url))


async def answered(edge: Edge, url: str, status: int, code: str = "") -> None:
    """Wait until news on its way to the edge make it answer so."""
    async with asyncio.timeout(30):
        while True:
            answer = await ask(edge, url)
            if answer.status == status and (not code or answer.code == code):
                return


async def test_an_edge_that_stayed_up_follows_the_new_one(plane: Plane) -> None:
    """What ran is 503 sandbox_error, what was revoked or disabled stays so; new changes arrive at once."""
    async with AsyncExitStack() as cleanup:
        app = await cleanup.enter_async_context(ScriptedApp())
        edge = edge_of(plane.port, time.time)
        await edge.start()
        cleanup.push_async_callback(edge.stop)
        sandbox = (await plane.api("POST", "", PAUSES))["id"]
        path = f"/{sandbox}/ports/{app.port}/signed-preview-url"
        good, revoked, disabled, unseen = [await plane.api("POST", path) for _ in range(4)]
        for preview in (good, revoked, disabled):
            await answered(edge, preview["url"], 200)
        await plane.api("DELETE", f"/{sandbox}/preview-urls/{revoked['grant']['id']}")
        await plane.operator("POST", f"grants/{disabled['grant']['id']}/disable")
        await answered(edge, revoked["url"], 401, "preview_grant_revoked")
        await answered(edge, disabled["url"], 403, "preview_grant_disabled")
        old = await plane.edge("GET", f"sandboxes/{sandbox}")

        await plane.kill()
        await answered(edge, good["url"], 200)
        await plane.start()
        await answered(edge, good["url"], 503, "sandbox_error")
        new = await plane.edge("GET", f"sandboxes/{sandbox}")
        assert new["version"] > old["version"] and new["incarnation"] == old["incarnation"]
        await answered(edge, unseen["url"], 503, "sandbox_error")
        await answered(edge, revoked["url"], 401, "preview_grant_revoked")
        await answered(edge, disabled["url"], 403, "preview_grant_disabled")

        # The edge follows what happens now, to old grants and to new ones.
        await plane.api("DELETE", f"/{sandbox}/preview-urls/{good['grant']['id']}")
        await answered(edge, good["url"], 401, "preview_grant_revoked")
        second = (await plane.api("POST", "", PAUSES))["id"]
        fresh = await plane.api("POST", f"/{second}/ports/{app.port}/signed-preview-url")
        await answered(edge, fresh["url"], 200)
        await plane.api("DELETE", f"/{sandbox}")
        await answered(edge, unseen["url"], 404, "sandbox_not_found")
