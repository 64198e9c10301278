"""Grants that end: new requests are refused before any wake, what is under way ends, others go on."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from edge.core.credentials import Family
from edge.core.records import GrantStatus, State, Transport
from tests.flows.rawclient import Answer, RawClient
from tests.flows.scriptedapp import AppConnection
from tests.flows.stage import PROXY_HEADER, UPGRADE, MakeStage, Preview, Stage, until
from tests.flows.test_websocket_wakes import shout

ENDS: dict[GrantStatus, tuple[int, str, str]] = {
    GrantStatus.REVOKED: (401, "preview_grant_revoked", "preview_proxy_token_revoked"),
    GrantStatus.DISABLED: (403, "preview_grant_disabled", "preview_proxy_token_disabled"),
    GrantStatus.EXPIRED: (401, "edge_token_expired", "preview_proxy_token_expired"),
}
"""Status, and the code in direct and in proxy mode (contract: errors)."""


@pytest.fixture
async def stage(make_stage: MakeStage) -> Stage:
    """Patient with apps: on a busy machine a connect may take its time, which is not what these tests are about."""
    return await make_stage(deadlines={"connect": 30.0})


def refused(answer: Answer, status: int, code: str) -> None:
    """Get another credential, or ask the operator; trying again as it is does not help."""
    assert (answer.status, answer.code) == (status, code)
    assert answer.json["retryable"] is False
    challenge = 'NullspacePreview realm="preview"' if status == 401 else None
    assert answer.value("www-authenticate") == challenge


async def tunnel(stage: Stage, box: Preview, request: bytes | None = None) -> RawClient:
    """An open tunnel that sends everything back."""
    client = await stage.client()
    assert (await client.ask(request or box.upgrade())).status == 101
    assert await client.exactly(5) == b"hello"
    await alive(client)
    return client


async def alive(client: RawClient) -> None:
    """The tunnel still carries bytes both ways."""
    await client.send(b"ping")
    assert await client.exactly(4) == b"ping"


@pytest.mark.parametrize("status", ENDS)
async def test_a_grant_that_ended_wakes_nobody(stage: Stage, status: GrantStatus) -> None:
    """Good signature, dead grant, paused sandbox: refused by every credential, and it sleeps on."""
    app = await stage.app()
    box = stage.sandbox(app, State.PAUSED)
    stage.plane.change_grant(box.grant, status=status)
    number, direct, proxied = ENDS[status]
    upgrade = box.token(Family.PROXY, kind=Transport.WEBSOCKET)
    for request, code in [
        (box.get(), direct),
        (box.upgrade(), direct),
        (box.get("/", box.cookie(), token=""), direct),
        (box.get("/", box.proxy(), token=""), proxied),
        (box.get("/", UPGRADE + f"{PROXY_HEADER}: {upgrade}\r\n".encode(), token=""), proxied),
    ]:
        refused(await stage.ask(request), number, code)
    assert stage.plane.counts["resume"] == 0 and app.connections == 0


@pytest.mark.parametrize("status", ENDS)
async def test_a_grant_that_ends_takes_its_tunnels_along(stage: Stage, status: GrantStatus) -> None:
    """The tunnels of that grant are closed, both transports at once; another grant's goes on."""
    app = await stage.app(shout)
    box = stage.sandbox(app)
    other, elsewhere = stage.preview(box.id), stage.sandbox(app)
    proxied = box.token(Family.PROXY, kind=Transport.WEBSOCKET)
    dying = [
        await tunnel(stage, box),
        await tunnel(
            stage, box, box.get("/", UPGRADE + f"{PROXY_HEADER}: {proxied}\r\n".encode(), token="")
        ),
    ]
    living = [await tunnel(stage, other), await tunnel(stage, elsewhere)]
    stage.plane.change_grant(box.grant, status=status)
    for client in dying:
        assert await client.at_end()
    assert stage.edge.admission.counts()["tunnels"] == len(living)
    for client in living:
        await alive(client)
    number, code, _ = ENDS[status]
    refused(await stage.ask(box.get()), number, code)
    refused(await stage.ask(box.upgrade()), number, code)
    more = await tunnel(stage, other)
    for client in (*dying, *living, more):
        client.close()


class Streams:
    """An app whose answers never end by themselves; ``/silent`` never even begins one."""

    def __init__(self) -> None:
        self.asked = 0
        self.gone = 0

    async def __call__(self, connection: AppConnection) -> None:
        head = await connection.read_head()
        self.asked += bool(head)  # not a connect that was given up
        coding = b"" if b"/plain" in head else b"Transfer-Encoding: chunked\r\n"
        if b"/silent" not in head:
            await connection.send(b"HTTP/1.1 200 OK\r\n%b\r\n" % coding)
            await connection.send(b"5\r\nfirst\r\n" if coding else b"first")
        try:
            while line := await connection.read_some():
                await connection.send(b"%X\r\n%b\r\n" % (len(line), line))
        finally:
            self.gone += 1
            connection.app.notify()


async def stream(stage: Stage, request: bytes) -> RawClient:
    """An answer that is under way."""
    client = await stage.client()
    await client.send(request)
    assert (await client.head()).status == 200
    assert await client.chunk() == b"first"
    return client


async def flows(client: RawClient) -> None:
    """The upload reaches the app, and its answer comes: nothing disturbed this exchange."""
    await client.send(b"3\r\nabc\r\n")
    assert await client.chunk() == b"3\r\nabc\r\n"


CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize("status", ENDS)
async def test_a_grant_that_ends_takes_its_streams_along(stage: Stage, status: GrantStatus) -> None:
    """Answers under way are cut so that it shows, one not begun becomes the error; others flow on."""
    played = Streams()
    app = await stage.app(played)
    box = stage.sandbox(app)
    other, elsewhere = stage.preview(box.id), stage.sandbox(app)
    dying = [
        await stream(stage, box.get("/a")),
        await stream(stage, box.request("POST", "/b", CHUNKED)),
        await stream(stage, box.get("/c", box.cookie(), token="")),
        await stream(stage, box.get("/d", box.proxy(), token="")),
        await stream(stage, box.get("/plain")),
    ]
    unanswered = await stage.client()
    await unanswered.send(box.get("/silent"))
    living = [await stream(stage, one.request("POST", "/", CHUNKED)) for one in (other, elsewhere)]
    await app.until(lambda: played.asked == 8)
    stage.plane.change_grant(box.grant, status=status)
    for client in dying:
        with pytest.raises(asyncio.IncompleteReadError):  # no last chunk: the client knows
            await client.chunk()
    number, code, _ = ENDS[status]
    refused(await unanswered.answer(), number, code)
    await app.until(lambda: played.gone == 6)
    for client in living:
        await flows(client)
    refused(await stage.ask(box.get()), number, code)
    for client in (*dying, unanswered, *living):
        client.close()


async def test_a_request_that_waits_for_the_port_learns_of_the_end(stage: Stage) -> None:
    """Nothing is sent for a grant that ended while the app was not listening yet."""
    app = await stage.app(listening=False)
    box = stage.sandbox(app, running_since=time.time() + 3600)
    async with await stage.client() as client:
        await client.send(box.request("POST", "/", body=b"never sent"))
        await stage.refused_dials()
        stage.plane.change_grant(box.grant, status=GrantStatus.DISABLED)
        refused(await client.answer(b"POST"), 403, "preview_grant_disabled")
    await app.listen()
    other = stage.preview(box.id)
    assert (await stage.ask(other.get("/other"))).status == 200
    assert [head.split(b" ", 2)[1] for head in app.requests] == [b"/other"]


async def test_a_grant_runs_out_under_a_stream(stage: Stage) -> None:
    """An answer under way ends by the clock alone, and nobody else's does."""
    box = stage.sandbox(await stage.app(Streams()))
    short = stage.preview(box.id, expires_at=time.time() + 300)
    going_on = await stream(stage, box.request("POST", "/", CHUNKED))
    ending = await stream(stage, short.get())
    stage.ahead = 300
    with pytest.raises(asyncio.IncompleteReadError):
        await ending.chunk()
    await flows(going_on)
    for one in (going_on, ending):
        one.close()


async def test_disabled_previews_end_everything_of_the_sandbox(stage: Stage) -> None:
    """Streams, tunnels and unanswered requests of every grant; another sandbox hears nothing of it."""
    streams, app = await stage.app(Streams()), await stage.app(shout)
    box, elsewhere = stage.sandbox(streams), stage.sandbox(streams)
    sockets = stage.sandbox(app)
    other = stage.preview(box.id)
    dying = [await stream(stage, one.get()) for one in (box, other)]
    living = await stream(stage, elsewhere.request("POST", "/", CHUNKED))
    unanswered = await stage.client()
    await unanswered.send(other.get("/silent"))
    await streams.until(lambda: len(streams.requests) == 4)
    open_tunnel = await tunnel(stage, sockets)
    for sandbox in (box, sockets):
        stage.plane.change_sandbox(sandbox.id, previews_disabled=True)
    for client in dying:
        with pytest.raises(asyncio.IncompleteReadError):
            await client.chunk()
    refused(await unanswered.answer(), 403, "preview_sandbox_disabled")
    assert await open_tunnel.at_end()
    await flows(living)
    stage.plane.change_sandbox(box.id, previews_disabled=False)
    await stage.heard(stage.plane.sandboxes[box.id])
    again = await stream(stage, box.get())
    for client in (*dying, living, unanswered, open_tunnel, again):
        client.close()


@pytest.mark.parametrize("what", ["grant", "sandbox"])
async def test_an_end_that_was_missed_is_made_up_for(stage: Stage, what: str) -> None:
    """The change came while the stream of changes was down, and is kept no longer: nobody has to ask."""
    streams, sockets = await stage.app(Streams()), await stage.app(shout)
    box, other = stage.sandbox(streams), stage.sandbox(sockets)
    running, opened = await stream(stage, box.get()), await tunnel(stage, other)
    unharmed = await stream(stage, stage.sandbox(streams).request("POST", "/", CHUNKED))
    await stage.plane.stop()
    for one in (box, other):
        if what == "grant":
            stage.plane.change_grant(one.grant, status=GrantStatus.REVOKED)
        else:
            stage.plane.change_sandbox(one.id, previews_disabled=True)
    stage.plane.forget_changes()
    await stage.plane.start()
    with pytest.raises(asyncio.IncompleteReadError):
        await running.chunk()
    assert await opened.at_end()
    await flows(unharmed)
    for client in (running, opened, unharmed):
        client.close()


async def test_a_grant_runs_out_under_an_open_tunnel(stage: Stage) -> None:
    """``expires_at`` needs no news: the tunnel ends by the clock, and so does the token's welcome."""
    box = stage.sandbox(await stage.app(shout))
    short = stage.preview(box.id, expires_at=time.time() + 300)
    going_on, ending = await tunnel(stage, box), await tunnel(stage, short)
    stage.ahead = 300
    assert await ending.at_end()
    refused(await stage.ask(short.upgrade()), 401, "edge_token_expired")
    await alive(going_on)
    for one in (going_on, ending):
        one.close()


async def test_revoked_between_two_requests_of_a_connection(stage: Stage) -> None:
    """Every request is judged by itself: the connection that was good a moment ago helps nobody."""
    box = stage.sandbox(await stage.app())
    async with await stage.client() as client:
        assert (await client.ask(box.get())).status == 200
        await stage.heard(stage.plane.change_grant(box.grant, status=GrantStatus.REVOKED))
        refused(await client.ask(box.get()), 401, "preview_grant_revoked")


async def test_revoked_while_it_waits(stage: Stage) -> None:
    """A request that waits for a wake is decided again after it: a grant that died meanwhile is dead."""
    app = await stage.app()
    box = stage.sandbox(app, State.PAUSED)
    stage.plane.change_sandbox(box.id, state=State.RESUMING)
    async with await stage.client() as client:
        await client.send(box.get())
        await until(lambda: stage.edge.admission.counts()["waiting"] == 1)
        await stage.heard(stage.plane.change_grant(box.grant, status=GrantStatus.REVOKED))
        stage.plane.begin_incarnation(box.id)
        refused(await client.answer(), 401, "preview_grant_revoked")
    assert app.connections == 0


@pytest.mark.parametrize("end", ["revoked", "expired"])
async def test_who_lost_its_right_during_a_pause_does_not_wake(stage: Stage, end: str) -> None:
    """It met the pause, and its grant ended before that was through: nothing is resumed for it."""
    app = await stage.app()
    box = stage.sandbox(app)
    await stage.heard(stage.plane.change_sandbox(box.id, state=State.PAUSING))
    async with await stage.client() as client:
        await client.send(box.get())
        await until(lambda: stage.edge.admission.counts()["waiting"] == 1)
        if end == "revoked":
            await stage.heard(stage.plane.change_grant(box.grant, status=GrantStatus.REVOKED))
        else:
            stage.ahead = 3600.0
        stage.plane.pause(box.id)
        code = "preview_grant_revoked" if end == "revoked" else "edge_token_expired"
        refused(await client.answer(), 401, code)
    assert stage.plane.counts["resume"] == 0
    assert app.connections == 0


async def test_a_body_that_is_refused_is_no_use(stage: Stage) -> None:
    """It reached nobody: it keeps no sandbox awake, and the ended grant counts no bytes."""
    box = stage.sandbox(await stage.app())
    await stage.heard(stage.plane.change_grant(box.grant, status=GrantStatus.REVOKED))
    refused(await stage.ask(box.request("POST", body=b"still here")), 401, "preview_grant_revoked")
    await stage.stop_edge()
    (item,) = {item for batch in stage.plane.usage for item in batch.items}
    assert item.last_error_code == "preview_grant_revoked"
    assert not (item.active or item.requests or item.bytes_in)


async def test_the_place_of_a_grant_is_given_back_to_it(make_stage: MakeStage) -> None:
    """Sent once more after the first of two cookies has expired, a request goes by the second's grant."""
    stage = await make_stage(admission={"in_flight_per_grant": 1})
    hang_up = asyncio.Event()

    async def hesitant(app: AppConnection) -> None:
        while head := await app.read_head():
            if b"/slow" in head and not hang_up.is_set():
                await hang_up.wait()
                return
            await app.answer(b"done")

    app = await stage.app(hesitant)
    box = stage.sandbox(app)
    other = stage.preview(box.id)
    for preview in (box, other):  # leaves a connection that is used again, and may be retried
        assert (await stage.ask(preview.get())).status == 200
    cookies = box.cookie(exp=time.time() + 60)[:-2] + other.cookie().replace(b"Cookie:", b";")
    async with await stage.client() as client:
        await client.send(box.request("GET", "/slow", cookies, token=""))
        await app.until(lambda: len(app.requests) == 3)
        stage.ahead = 61.0
        hang_up.set()
        assert (await client.answer()).body == b"done"
        assert stage.edge.admission.in_flight(box.id) == 0
        assert (await client.ask(box.request("GET", "/", cookies, token=""))).status == 200


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"kinds": frozenset({Transport.WEBSOCKET})}, 403, "edge_token_scope_mismatch"),
        ({"port": 3001}, 403, "edge_token_scope_mismatch"),
        ({"sandbox_id": "sb_somebody1"}, 403, "edge_token_scope_mismatch"),
        ({"expires_at": 1.0}, 401, "edge_token_expired"),
    ],
)
async def test_a_token_reaches_no_further_than_its_grant(
    stage: Stage, fields: dict[str, Any], status: int, code: str
) -> None:
    """A genuine token whose grant says something else is refused, and wakes nobody."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    stage.plane.change_grant(box.grant, **fields)
    refused(await stage.ask(box.get()), status, code)
    assert stage.plane.counts["resume"] == 0


async def test_a_grant_nobody_knows(stage: Stage) -> None:
    """A genuine token whose grant is gone is refused, in the words of its mode."""
    box = stage.sandbox(await stage.app(), State.PAUSED)
    del stage.plane.grants[box.grant]
    refused(await stage.ask(box.get()), 401, "preview_grant_invalid")
    refused(
        await stage.ask(box.get("/", box.proxy(), token="")), 401, "preview_proxy_token_invalid"
    )
    assert stage.plane.counts["resume"] == 0


async def test_previews_of_a_sandbox_are_disabled(stage: Stage) -> None:
    """An operator's switch on the sandbox refuses everybody, and wakes nobody."""
    box = stage.sandbox(await stage.app(), State.PAUSED, previews_disabled=True)
    refused(await stage.ask(box.get()), 403, "preview_sandbox_disabled")
    refused(await stage.ask(box.get("/", box.proxy(), token="")), 403, "preview_sandbox_disabled")
    assert stage.plane.counts["resume"] == 0
    stage.plane.change_sandbox(box.id, previews_disabled=False)
    await stage.heard(stage.plane.sandboxes[box.id])
    assert (await stage.ask(box.get())).status == 200
