"""The one exception to "no credential, no traffic": a CORS preflight, to what runs, where the operator opted in."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from hashlib import sha256

import pytest

from edge.core.records import State
from edge.wake.admission import MAX_ANONYMOUS
from tests.flows.rawclient import Answer
from tests.flows.scriptedapp import AppConnection
from tests.flows.stage import MakeStage, Preview, Stage, until

ASKS = (
    b"Origin: https://app.example\r\nAccess-Control-Request-Method: PUT\r\n"
    b"Access-Control-Request-Headers: content-type\r\n"
)
ALLOWED = (
    b"HTTP/1.1 204 No Content\r\nAccess-Control-Allow-Origin: https://app.example\r\n"
    b"Access-Control-Allow-Methods: PUT\r\n\r\n"
)
MARKER = "__ns_preview_transport=header"


async def allow(app: AppConnection) -> None:
    """An app that answers every preflight."""
    while await app.read_head():
        await app.send(ALLOWED)


def preflight(
    box: Preview, path: str = "/", fields: bytes = ASKS, method: str = "OPTIONS"
) -> bytes:
    """A preflight as a browser sends it: without a credential."""
    return box.request(method, path, fields, token="")


def impersonal(answer: Answer) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """An answer without what differs between any two: the request id, the date and the preview's name."""
    identity = re.compile(rb"[0-9a-f]{12}-[0-9a-f]+")
    fields = [
        (name, value)
        for name, value in answer.fields
        if name.lower() not in (b"date", b"x-request-id")
    ]
    return answer.status, fields, identity.sub(b"", answer.body)


async def opened(make_stage: MakeStage, **settings: object) -> Stage:
    """A stage where preflights are let through."""
    return await make_stage(unauthenticated_preflight="running", **settings)


async def known(stage: Stage, box: Preview) -> None:
    """Let the edge learn of a sandbox the way it does: by somebody who may."""
    await stage.ask(box.request("OPTIONS", "/", ASKS))


async def test_it_is_off_by_default(stage: Stage) -> None:
    """401 as for everything without a credential, also when the sandbox is known to run."""
    app = await stage.app(allow)
    box = stage.sandbox(app)
    await known(stage, box)
    answer = await stage.ask(preflight(box))
    assert (answer.status, answer.code) == (401, "edge_token_missing")
    assert len(app.requests) == 1


async def test_it_reaches_an_app_that_is_known_to_run(make_stage: MakeStage) -> None:
    """The app's own answer comes back, nothing is asked for, and nobody is charged with it."""
    stage = await opened(make_stage)
    app = await stage.app(allow)
    box = stage.sandbox(app)
    await known(stage, box)
    asked = dict(stage.plane.asked)
    async with await stage.client() as client:
        answer = await client.ask(preflight(box, "/api?x=1"))
        assert answer.status == 204
        assert answer.values("access-control-allow-methods") == ["PUT"]
        assert answer.values("set-cookie") == []
        # What was let through is this kind of request, not the connection.
        refused = await client.ask(box.request("GET", "/", ASKS, token=""))
        assert (refused.status, refused.code) == (401, "edge_token_missing")
    assert app.requests[-1].startswith(b"OPTIONS /api?x=1 HTTP/1.1\r\n")
    assert len(app.requests) == 2
    assert stage.plane.asked == asked
    await stage.stop_edge()
    charged = [item for batch in stage.plane.usage for item in batch.items]
    assert [(item.grant_id, item.requests) for item in charged] == [(box.grant, 1)]


async def test_in_proxy_mode(make_stage: MakeStage) -> None:
    """A preflight cannot carry the header that the request after it will."""
    stage = await opened(make_stage)
    app = await stage.app(allow)
    box = stage.sandbox(app)
    await known(stage, box)
    assert (await stage.ask(preflight(box, f"/?{MARKER}"))).status == 204
    other = stage.sandbox(app)
    answer = await stage.ask(preflight(other, f"/?{MARKER}"))
    assert (answer.status, answer.code) == (401, "preview_proxy_token_missing")


@pytest.mark.parametrize(
    "change",
    [
        {"state": State.PAUSED},
        {"state": State.PAUSING},
        {"state": State.RESUMING},
        {"state": State.CREATING},
        {"state": State.ERROR},
        {"state": State.DESTROYED},
        {"upstream": None},
        {"previews_disabled": True},
        {"traffic_token_sha256": sha256(b"secret").hexdigest()},
    ],
    ids=str,
)
async def test_nobody_can_tell_what_does_not_run_from_what_does_not_exist(
    make_stage: MakeStage, change: dict[str, object]
) -> None:
    """The same answer, to the byte, as for a sandbox that never was; no call, no wake."""
    stage = await opened(make_stage)
    app = await stage.app(allow)
    box = stage.sandbox(app)
    await known(stage, box)
    await stage.heard(stage.plane.change_sandbox(box.id, **change))
    asked = dict(stage.plane.asked)
    answer = await stage.ask(preflight(box))
    never = await stage.ask(preflight(replace(box, id="sb_never0000")))
    assert impersonal(answer) == impersonal(never)
    assert (answer.status, answer.code) == (401, "edge_token_missing")
    assert stage.plane.asked == asked
    assert len(app.requests) == 1


async def test_nothing_is_looked_up_for_it(make_stage: MakeStage) -> None:
    """A running sandbox that this edge has not heard of is as if it did not exist."""
    stage = await opened(make_stage)
    box = stage.sandbox(await stage.app(allow))
    answer = await stage.ask(preflight(box))
    assert (answer.status, answer.code) == (401, "edge_token_missing")
    assert stage.plane.asked == {"sandbox": 0, "grant": 0, "resume": 0}


async def hang_up(app: AppConnection) -> None:
    """An app that answers those who come with a body, and nobody else."""
    while head := await app.read_head():
        if b"Content-Length" not in head:
            return
        await app.read_body(head)
        await app.send(ALLOWED)


async def babble(app: AppConnection) -> None:
    """The same with an answer that is none."""
    await hang_up(app)
    await app.send(b"what?\r\n\r\n")


@pytest.mark.parametrize("handler", [hang_up, babble])
async def test_an_app_that_fails_tells_nothing_either(
    make_stage: MakeStage, handler: object
) -> None:
    """No 502 for a stranger."""
    stage = await opened(make_stage)
    box = stage.sandbox(await stage.app(handler))
    assert (await stage.ask(box.request("POST", "/", body=b"x"))).status == 204
    never = await stage.ask(preflight(replace(box, id="sb_never0000")))
    assert impersonal(await stage.ask(preflight(box))) == impersonal(never)


async def test_a_port_that_refuses_is_not_waited_for(make_stage: MakeStage) -> None:
    """One attempt, no question to the control plane, and the 401 of everybody."""
    stage = await opened(make_stage, wake={"refused_retry": 0.1})
    box = stage.sandbox(await stage.app(listening=False))
    assert (await stage.ask(box.get())).code == "preview_service_not_ready"
    asked, dials = dict(stage.plane.asked), await stage.refused_dials()
    answer = await stage.ask(preflight(box))
    assert (answer.status, answer.code) == (401, "edge_token_missing")
    assert "details" not in answer.json
    assert stage.plane.asked == asked
    assert await stage.refused_dials(dials + 1) == dials + 1


@pytest.mark.parametrize(
    ("method", "fields", "body"),
    [
        ("OPTIONS", b"Origin: https://app.example\r\n", None),
        ("OPTIONS", b"Access-Control-Request-Method: PUT\r\n", None),
        ("GET", ASKS, None),
        ("POST", ASKS, None),
        ("OPTIONS", ASKS, b"body"),
        ("OPTIONS", ASKS + b"Cookie: a=b\r\n", None),
        ("OPTIONS", ASKS + b"Authorization: Basic eDp5\r\n", None),
        ("OPTIONS", ASKS + b"x-nullspace-traffic-access-token: guess\r\n", None),
        ("OPTIONS", ASKS + b"X-HTTP-Method-Override: DELETE\r\n", None),
        ("OPTIONS", ASKS + b"X-HTTP-Method: GET\r\n", None),
        ("OPTIONS", ASKS + b"X-Method-Override: POST\r\n", None),
    ],
)
async def test_what_is_not_a_preflight(
    make_stage: MakeStage, method: str, fields: bytes, body: bytes | None
) -> None:
    """Only what browsers send by themselves: without a body, anything secret, or another method."""
    stage = await opened(make_stage)
    app = await stage.app(allow)
    box = stage.sandbox(app)
    await known(stage, box)
    answer = await stage.ask(box.request(method, "/", fields, body, token=""))
    assert (answer.status, answer.code) == (401, "edge_token_missing")
    assert len(app.requests) == 1


@pytest.mark.parametrize("token", ["x", "x.y.z"])
async def test_a_bad_credential_is_not_none(make_stage: MakeStage, token: str) -> None:
    """Whoever shows a credential is judged by it."""
    stage = await opened(make_stage)
    app = await stage.app(allow)
    box = stage.sandbox(app)
    await known(stage, box)
    answer = await stage.ask(box.request("OPTIONS", "/", ASKS, token=token))
    assert (answer.status, answer.code) == (401, "edge_token_invalid")
    assert len(app.requests) == 1


async def test_strangers_have_little_room_and_hold_nobody_up(make_stage: MakeStage) -> None:
    """So many at once, apart from everybody else's room; a pause does not wait for them."""
    stage = await opened(make_stage, admission={"in_flight_per_sandbox": 1})

    async def mute(app: AppConnection) -> None:
        while head := await app.read_head():
            if head.startswith(b"OPTIONS /mute"):
                await asyncio.Event().wait()
            await app.send(ALLOWED)

    app = await stage.app(mute)
    box = stage.sandbox(app)
    await known(stage, box)
    clients = [await stage.client() for _ in range(MAX_ANONYMOUS)]
    for client in clients:
        await client.send(preflight(box, "/mute"))
    await until(lambda: len(app.requests) == 1 + MAX_ANONYMOUS)
    assert (await stage.ask(preflight(box))).status == 401
    assert (await stage.ask(box.request("OPTIONS"))).status == 204
    assert stage.edge.admission.in_flight(box.id) == 0

    await stage.heard(stage.plane.change_sandbox(box.id, state=State.PAUSED))
    for client in clients:
        answer = await client.answer()
        assert (answer.status, answer.code) == (401, "edge_token_missing")
        client.close()
    await stage.heard(stage.plane.change_sandbox(box.id, state=State.RUNNING))
    assert (await stage.ask(preflight(box))).status == 204, "the room was not given back"
