"""Grants that end: new requests are refused before any wake, their tunnels are closed, others go on."""

from __future__ import annotations

import time
from typing import Any

import pytest

from edge.core.credentials import Family
from edge.core.records import GrantStatus, State, Transport
from tests.flows.rawclient import Answer, RawClient
from tests.flows.stage import PROXY_HEADER, UPGRADE, Preview, Stage, until
from tests.flows.test_websocket_wakes import shout

ENDS: dict[GrantStatus, tuple[int, str, str]] = {
    GrantStatus.REVOKED: (401, "preview_grant_revoked", "preview_proxy_token_revoked"),
    GrantStatus.DISABLED: (403, "preview_grant_disabled", "preview_proxy_token_disabled"),
    GrantStatus.EXPIRED: (401, "edge_token_expired", "preview_proxy_token_expired"),
}
"""Status, and the code in direct and in proxy mode (contract: errors)."""


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
