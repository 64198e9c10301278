"""Every credential the control plane issues, through the real edge to an app, and how each one ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from service import PAUSES
from whole import UPGRADE, Whole, header, request

from tests.flows.rawclient import Answer, RawClient
from tests.flows.scriptedapp import AppConnection, fields_of
from tests.flows.test_websocket_wakes import shout

PRIVATE = {"network": {"allow_public_traffic": False}}


class Clock:
    """A wall clock that a test sets ahead."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock() -> Clock:
    """The edge's."""
    return Clock()


@pytest.fixture
async def whole(tmp_path: Path, clock: Clock) -> AsyncIterator[Whole]:
    """Control plane and edge."""
    async with Whole(tmp_path, clock) as running:
        yield running


def refused(answer: Answer, status: int, code: str) -> None:
    """With the contract's status and code."""
    assert (answer.status, answer.code) == (status, code)


async def events(connection: AppConnection) -> None:
    """An endless stream of events to whoever asks; it ends when the edge hangs up."""
    await connection.read_head()
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
    await connection.read_some()


async def stream(whole: Whole, url: str) -> RawClient:
    """An answer under way."""
    client = await whole.client()
    await client.send(request(url))
    assert (await client.head()).status == 200
    assert await client.chunk() == b"data: 1\n\n"
    return client


async def tunnel(whole: Whole, url: str) -> RawClient:
    """An open WebSocket."""
    client = await whole.client()
    assert (await client.ask(request(url, fields=UPGRADE))).status == 101
    assert await client.exactly(5) == b"hello"
    return client


async def cut(client: RawClient) -> None:
    """The answer under way ends without its last chunk, within the second that was promised."""
    async with asyncio.timeout(10):  # on a busy machine
        with pytest.raises(asyncio.IncompleteReadError):
            await client.chunk()


async def test_a_proxy_reaches_the_app(whole: Whole) -> None:
    """Each transport by its own token, woken once; what the proxy says about its visitor passes."""
    app = await whole.app()
    sockets = await whole.app(shout)
    made = await whole.api("POST", "", PAUSES)
    box = made["id"]
    target = await whole.api("POST", f"/{box}/ports/{app.port}/preview-proxy-target")
    await whole.api("POST", f"/{box}/hibernate")
    name = target["token_header_name"]
    said = b"X-Forwarded-Host: shop.example\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 1.2.3.4\r\n"
    good = header(name, target["http_token"])
    answer = await whole.ask(request(target["http_url"], "/a", good + said))
    assert (answer.status, answer.body) == (200, b"GET /a HTTP/1.1\n")
    assert answer.value("set-cookie") is None
    sent = fields_of(app.requests[0])
    assert (sent[b"x-forwarded-host"], sent[b"x-forwarded-for"]) == (b"shop.example", b"1.2.3.4")
    assert name.encode() not in app.requests[0].lower() and b"edge.test" in sent[b"host"]
    assert (await whole.api("GET", f"/{box}"))["status"] == "running"
    # The header alone, without the marker, is proxy mode, too.
    plain = target["http_url"].partition("?")[0]
    assert (await whole.ask(request(plain, "/b", good))).status == 200
    for url, fields, code in [
        (target["http_url"], b"", "preview_proxy_token_missing"),
        (target["http_url"], header(name, "x.y.z"), "preview_proxy_token_invalid"),
        (target["http_url"], header(name, target["websocket_token"]), "preview_proxy_token_scope_mismatch"),
    ]:  # fmt: skip
        answer = await whole.ask(request(url, "/no", fields))
        refused(answer, 403 if code.endswith("mismatch") else 401, code)
    ws = await whole.api("POST", f"/{box}/ports/{sockets.port}/preview-proxy-target")
    client = await whole.client()
    upgrade = UPGRADE + header(name, ws["websocket_token"])
    assert (await client.ask(request(ws["websocket_url"], fields=upgrade))).status == 101
    assert await client.exactly(5) == b"hello"
    await whole.api("DELETE", f"/{box}/preview-urls/{ws['grant']['id']}")
    assert await client.at_end()
    refused(
        await whole.ask(request(ws["http_url"], fields=header(name, ws["http_token"]))),
        401,
        "preview_proxy_token_revoked",
    )
    grant = await whole.counted(box, target["grant"]["id"], lambda g: g["use_count"] == 2)
    assert (grant["http_request_count"], grant["auth_mode"]) == (2, "proxy")


async def test_a_grant_for_one_transport_reaches_no_further(whole: Whole) -> None:
    """There is no token for the other one, and a direct token is no proxy token."""
    app = await whole.app()
    box = (await whole.api("POST", "", {}))["id"]
    path = f"/{box}/ports/{app.port}"
    target = await whole.api("POST", f"{path}/preview-proxy-target", {"transports": ["websocket"]})
    token = header(target["token_header_name"], target["websocket_token"])
    url = target["websocket_url"].replace("wss:", "https:")
    refused(await whole.ask(request(url, fields=token)), 403, "preview_proxy_token_scope_mismatch")
    direct = (await whole.api("GET", f"{path}/preview-url"))["url"].partition("edge_token=")[2]
    wrong = header(target["token_header_name"], direct)
    refused(await whole.ask(request(url, fields=wrong)), 401, "preview_proxy_token_invalid")
    assert app.connections == 0


async def test_private_traffic_needs_the_second_key(whole: Whole) -> None:
    """By query, cookie and header alike, and before any wake; the app never sees the token."""
    app, sockets = await whole.app(), await whole.app(shout)
    made = await whole.api("POST", "", PRIVATE | PAUSES)
    box = made["id"]
    path = f"/{box}/ports/{app.port}"
    url = (await whole.api("GET", f"{path}/preview-url"))["url"]
    target = await whole.api("POST", f"{path}/preview-proxy-target")
    ws = (await whole.api("GET", f"/{box}/ports/{sockets.port}/preview-url"))["websocket_url"]
    name = target["traffic_access_header_name"]
    good = header(name, made["traffic_access_token"])
    answer = await whole.ask(request(url, fields=good))
    assert answer.status == 200
    cookie = header("Cookie", (answer.value("set-cookie") or "").partition(";")[0])
    bare = url.partition("?")[0]
    proxied = header(target["token_header_name"], target["http_token"])
    await whole.api("POST", f"/{box}/hibernate")
    seen = len(app.requests)
    ways: list[tuple[str, bytes]] = [
        (url, b""), (bare, cookie), (target["http_url"], proxied), (ws, UPGRADE),
    ]  # fmt: skip
    for address, fields in ways:
        refused(
            await whole.ask(request(address, fields=fields)), 401, "traffic_access_token_missing"
        )
        wrong = fields + header(name, made["traffic_access_token"] + "x")
        refused(
            await whole.ask(request(address, fields=wrong)), 401, "traffic_access_token_invalid"
        )
    assert (await whole.api("GET", f"/{box}"))["status"] == "paused" and len(app.requests) == seen
    for address, fields in ways:
        answer = await whole.ask(request(address, fields=fields + good))
        assert answer.status == (101 if fields == UPGRADE else 200)
    assert all(b"x-nullspace" not in head.lower() for head in (*app.requests, *sockets.requests))
    # The key alone is none.
    refused(await whole.ask(request(bare, fields=good)), 401, "edge_token_missing")


async def test_the_host_is_masked(whole: Whole) -> None:
    """Only Host changes; the port's place-holder becomes the sandbox's port."""
    app = await whole.app()
    network = {"network": {"mask_request_host": "localhost:${PORT}"}}
    box = (await whole.api("POST", "", network))["id"]
    url = (await whole.api("GET", f"/{box}/ports/{app.port}/preview-url"))["url"]
    assert (await whole.ask(request(url))).status == 200
    sent = fields_of(app.requests[0])
    assert sent[b"host"] == b"localhost:%d" % app.port
    assert sent[b"x-forwarded-host"].startswith(b"%d-sb-" % app.port)


@pytest.mark.parametrize("how", ["revoke", "disable", "disable all", "expire"])
async def test_an_end_is_felt_at_once(whole: Whole, clock: Clock, how: str) -> None:
    """New requests, tunnels and running streams of that grant end; what rests on another goes on."""
    streams, sockets = await whole.app(events), await whole.app(shout)
    made = [await whole.api("POST", "", {}) for _ in range(2)]
    box, elsewhere = made[0]["id"], made[1]["id"]

    async def signed(sandbox: str, port: int) -> Any:
        body = {"expires_in_seconds": 86_400 if sandbox == elsewhere else 60}
        return await whole.api("POST", f"/{sandbox}/ports/{port}/signed-preview-url", body)

    one, two = await signed(box, streams.port), await signed(box, sockets.port)
    others = [await signed(elsewhere, streams.port), await signed(elsewhere, sockets.port)]
    running = await stream(whole, one["url"])
    opened = await tunnel(whole, two["websocket_url"])
    await stream(whole, others[0]["url"])
    unharmed = await tunnel(whole, others[1]["websocket_url"])
    grants = [view["grant"]["id"] for view in (one, two)]
    match how:
        case "revoke":
            for grant in grants:
                await whole.api("DELETE", f"/{box}/preview-urls/{grant}")
        case "disable":
            for grant in grants:
                await whole.operator(f"grants/{grant}/disable")
        case "disable all":
            await whole.operator(f"sandboxes/{box}/previews/disable")
        case _:
            clock.ahead = 61.0
    await cut(running)
    assert await opened.at_end()
    await unharmed.send(b"ping")
    assert await unharmed.exactly(4) == b"ping"
    await stream(whole, others[0]["url"])
    expected = {
        "revoke": (401, "preview_grant_revoked"),
        "disable": (403, "preview_grant_disabled"),
        "disable all": (403, "preview_sandbox_disabled"),
        "expire": (401, "edge_token_expired"),
    }[how]
    for view in (one, two):
        refused(await whole.ask(request(view["url"])), *expected)
        refused(await whole.ask(request(view["websocket_url"], fields=UPGRADE)), *expected)
    if how.startswith("disable"):
        path = f"sandboxes/{box}/previews" if how == "disable all" else f"grants/{grants[0]}"
        await whole.operator(f"{path}/enable")
        await whole.answered(request(one["url"]), 200)


async def test_what_visitors_do_is_counted_and_told(whole: Whole) -> None:
    """Counters, first and last use and the last error come by the edge's reports, also to the trail."""

    async def broken(connection: AppConnection) -> None:
        while head := await connection.read_head():
            if b"/broken" in head:
                connection.close()
                return
            await connection.answer(await connection.read_body(head))

    app, sockets = await whole.app(broken), await whole.app(shout)
    box = (await whole.api("POST", "", {}))["id"]
    view = await whole.api("GET", f"/{box}/ports/{app.port}/preview-url")
    grant = view["grant"]["id"]
    assert view["grant"]["first_used_at"] is None
    upload = request(view["url"], "/up", b"Content-Length: 5\r\n", "POST") + b"12345"
    assert (await whole.ask(upload)).body == b"12345"
    assert (await whole.ask(upload)).status == 200
    assert (await whole.ask(request(view["url"], "/broken", method="POST"))).status == 502
    found = await whole.counted(box, grant, lambda g: g["use_count"] == 3 and g["last_error_code"])
    assert (found["http_request_count"], found["websocket_connection_count"]) == (3, 0)
    assert (found["bytes_in_count"], found["bytes_out_count"]) == (10, 10)
    assert found["last_error_code"] == "preview_upstream_closed"
    assert found["first_used_at"] <= found["last_used_at"]
    ws = await whole.api("GET", f"/{box}/ports/{sockets.port}/preview-url")
    client = await tunnel(whole, ws["websocket_url"])
    await client.send(b"ping")
    assert await client.exactly(4) == b"ping"
    found = await whole.counted(box, ws["grant"]["id"], lambda g: g["bytes_in_count"] == 4)
    assert (found["websocket_connection_count"], found["use_count"]) == (1, 1)
    await whole.api("DELETE", f"/{box}/preview-urls/{grant}")
    trail = (await whole.operator(f"audit?order=asc&grant_id={grant}"))["events"]
    assert [entry["event"] for entry in trail] == ["created", "used", "failed", "revoked"]
    assert trail[2]["code"] == "preview_upstream_closed"


async def test_a_destroyed_sandbox_is_gone(whole: Whole) -> None:
    """Whatever its grant says, the answer is 404; streams end, and a stranger learns nothing of it."""
    app = await whole.app(events)
    box = (await whole.api("POST", "", {}))["id"]
    path = f"/{box}/ports/{app.port}"
    view, dead = [await whole.api("GET", f"{path}/preview-url") for _ in range(2)]
    await whole.api("DELETE", f"/{box}/preview-urls/{dead['grant']['id']}")
    running = await stream(whole, view["url"])
    await whole.operator(f"grants/{view['grant']['id']}/disable")
    await cut(running)
    await whole.api("DELETE", f"/{box}")
    for url in (view["url"], dead["url"]):
        await whole.answered(request(url), 404)
        refused(await whole.ask(request(url)), 404, "sandbox_not_found")
    refused(await whole.ask(request(view["url"].partition("?")[0])), 401, "edge_token_missing")
