"""The stage itself: what the other flows rely on."""

from __future__ import annotations

import pytest

from edge.core.records import State
from tests.flows.controlplane import TOKEN
from tests.flows.rawclient import RawClient
from tests.flows.stage import MakeStage, Stage


async def test_a_request_reaches_the_app_and_its_answer_the_client(stage: Stage) -> None:
    """The whole way: token, record, app and back, with one look-up of each record."""
    app = await stage.app()
    box = stage.sandbox(app)
    answer = await stage.ask(box.get("/hello?a=1"))
    assert (answer.status, answer.body) == (200, b"GET /hello?a=1 HTTP/1.1\n")
    assert stage.plane.asked == {"sandbox": 1, "grant": 1, "resume": 0}
    assert app.connections == 1 and len(app.requests) == 1


async def test_a_paused_sandbox_is_woken(stage: Stage) -> None:
    """The control plane counts the resume and the new incarnation."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    assert (await stage.ask(box.get())).status == 200
    assert stage.plane.counts["resume"] == stage.plane.incarnations[box.id] == 1
    assert stage.plane.sandboxes[box.id].incarnation == 2


@pytest.mark.parametrize("jwks", ["file", "url"])
async def test_keys_come_from_a_file_or_a_url(make_stage: MakeStage, jwks: str) -> None:
    """Both sources of keys make the same tokens good."""
    stage = await make_stage(jwks=jwks)
    box = stage.sandbox(await stage.app())
    assert (await stage.ask(box.get())).status == 200
    assert stage.plane.counts["keys"] == (jwks == "url")


async def test_the_edge_hears_changes(stage: Stage) -> None:
    """What is published reaches the edge by the watch."""
    box = stage.sandbox(await stage.app())
    assert (await stage.ask(box.get())).status == 200
    await stage.heard(stage.plane.change_sandbox(box.id, state=State.ERROR))
    answer = await stage.ask(box.get())
    assert (answer.status, answer.code) == (503, "sandbox_error")


async def test_a_held_port_refuses_until_it_listens(stage: Stage) -> None:
    """The app's port can be refused first and accept later, and refuse again when the app is gone."""
    app = await stage.app(listening=False)
    with pytest.raises(ConnectionRefusedError):
        await RawClient.open(app.port)
    await app.listen()
    (await RawClient.open(app.port)).close()
    await app.until(lambda: app.connections == 1)
    await app.stop()
    with pytest.raises(ConnectionRefusedError):
        await RawClient.open(app.port)


async def test_the_control_plane_wants_its_token(stage: Stage) -> None:
    """A call without the service token is refused and not counted."""
    async with await RawClient.open(stage.plane.port) as client:
        answer = await client.ask(
            b"GET /internal/edge/v1/sandboxes/sb_x HTTP/1.1\r\nHost: x\r\n\r\n"
        )
    assert answer.status == 401 and TOKEN.encode() not in answer.body
    assert stage.plane.asked == {"sandbox": 0, "grant": 0, "resume": 0}
