"""Real HTTP clients and servers notice nothing of the edge between them.

Each request is sent twice, without and with the edge, past hops that remember every byte (see
`test_websockets`). What the client saw has to be the same, and the heads at both ends of the edge differ
in nothing but what is the edge's own.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.flows.stage import Stage
from tests.peers.heads import ADDED_TO_REQUESTS, HOP_BY_HOP, answers, judge_answer, judge_request
from tests.peers.hop import Hop, Link
from tests.peers.http_apps import aiohttp_app, node_app, standard_app
from tests.peers.http_clients import Aiohttp, Ask, Curl, Httpx, InNode, Seen
from tests.peers.node_peer import Node
from tests.peers.part import payload

CLIENTS = ("curl", "httpx", "aiohttp", "request", "fetch")
SERVERS = ("aiohttp", "standard", "node")
NEEDS = {"curl": "curl", "request": "node", "fetch": "node", "node": "node"}


@dataclass(frozen=True)
class Case:
    """A request, the status it has to get without the edge, and who can play it."""

    name: str
    ask: Ask
    status: int = 200
    clients: tuple[str, ...] = CLIENTS
    servers: tuple[str, ...] = SERVERS
    interim: list[int] = field(default_factory=list)


MODERN = ("aiohttp", "node")
BIG = [payload(70_000), payload(1), payload(200_000)]
CONTINUE = [("Expect", "100-continue")]
CASES = [
    Case("plain", Ask("GET", "/plain?a=%20b&&c")),
    Case("HEAD", Ask("HEAD", "/plain")),
    Case("HEAD of a range", Ask("HEAD", "/bytes", [("Range", "bytes=0-9")]), 206),
    Case("204", Ask("GET", "/none"), 204),
    Case("204 to DELETE", Ask("DELETE", "/none"), 204),
    Case("304", Ask("GET", "/same", [("If-None-Match", '"v1"')]), 304),
    Case("302", Ask("GET", "/moved"), 302),
    Case("OPTIONS", Ask("OPTIONS", "/echo", [("Origin", "https://a.example")])),
    Case("fields", Ask("GET", "/echo", [("X-Odd-CASE", "a,  b"), ("Cookie", "a=1; b"), ("Accept", "x/y")])),
    Case("POST", Ask("POST", "/echo?x", body=b"a few bytes")),
    Case("POST of nothing", Ask("POST", "/echo", body=b"")),
    Case("PUT of 300 kB", Ask("PUT", "/echo", body=b"".join(BIG))),
    Case("PATCH", Ask("PATCH", "/echo", body=b"{}")),
    Case("chunked upload", Ask("POST", "/echo", body=BIG), servers=MODERN),
    Case("whole", Ask("GET", "/bytes")),
    Case("range", Ask("GET", "/bytes", [("Range", "bytes=100-70000")]), 206),
    Case("range from the end", Ask("GET", "/bytes", [("Range", "bytes=-5")]), 206),
    Case("range beyond the end", Ask("GET", "/bytes", [("Range", "bytes=100000-")]), 416),
    Case("length unknown", Ask("GET", "/pieces")),
    Case("103", Ask("GET", "/early"), servers=("node",), interim=[103, 103]),
    Case("trailers", Ask("GET", "/trailers"), servers=("node",)),
    Case("100", Ask("PUT", "/echo", CONTINUE, b"".join(BIG)), clients=("curl",), servers=MODERN, interim=[100]),
    Case("100 before chunks", Ask("POST", "/echo", CONTINUE, BIG), clients=("curl",), servers=MODERN, interim=[100]),
    Case("403 instead of 100", Ask("PUT", "/refuse", CONTINUE, b"unwanted"), 403, clients=("curl",), servers=("node",)),
    Case("HTTP/1.0", Ask("GET", "/plain", curl=["--http1.0"]), clients=("curl",)),
    Case("HTTP/1.0, length unknown", Ask("GET", "/pieces", curl=["--http1.0"]), clients=("curl",)),
]  # fmt: skip


def _marks(*names: str) -> list[pytest.MarkDecorator]:
    tools = sorted({NEEDS[name] for name in names if name in NEEDS})
    return [pytest.mark.needs_tool(*tools)] if tools else []


PLAYS = [
    pytest.param(
        case, client, server,
        id=f"{case.name}-{client} to {server}", marks=_marks(client, server),
    )
    for case in CASES
    for client in case.clients
    for server in case.servers
]  # fmt: skip
PAIRS = [
    pytest.param(client, server, id=f"{client} to {server}", marks=_marks(client, server))
    for client in CLIENTS
    for server in SERVERS
]


@pytest.mark.parametrize(("case", "client", "server"), PLAYS)
async def test_peers_notice_nothing(
    stage: Stage, node: Node | None, case: Case, client: str, server: str
) -> None:
    """The answer is the same without the edge and with it, and so is what the app saw."""
    peer = _client(client, node)
    path = case.ask.path
    async with Hop() as far, Hop(stage.edge.port) as near, asyncio.timeout(30):
        box = stage.sandbox(far)
        async with _server(server, node) as far.target:
            direct = await peer.ask(case.ask, far.port, box.host, path)
            far.take()
        token = box.token()
        async with _server(server, node) as far.target:
            there = f"{path}{'&' if '?' in path else '?'}edge_token={token}"
            through = await peer.ask(case.ask, near.port, box.host, there)
            (at_client,), (at_app,) = near.take(), far.take()

    assert direct.status == case.status
    assert _comparable(through, case) == _comparable(direct, case)
    if case.name == "trailers" and client == "request":
        assert dict(through.trailers)["X-Sum"] == "abc"
    _judge_heads(at_client, at_app, token, case)


def _client(name: str, node: Node | None) -> Any:
    match name:
        case "curl":
            return Curl()
        case "httpx":
            return Httpx()
        case "aiohttp":
            return Aiohttp()
    assert node is not None
    return InNode(node, name)


def _server(name: str, node: Node | None) -> AbstractAsyncContextManager[int]:
    match name:
        case "aiohttp":
            return aiohttp_app()
        case "standard":
            return standard_app()
    assert node is not None
    return node_app(node)


def _comparable(seen: Seen, case: Case) -> Any:
    """What has to be equal: all of it, but in an echo what the edge says to the app."""
    if not case.ask.path.startswith("/echo") or case.ask.method == "HEAD":
        return seen
    came = json.loads(seen.body)
    # Where the length stands, and its spelling, is the edge's choice; `judge_request` looks at its value.
    own = ADDED_TO_REQUESTS | HOP_BY_HOP | {b"host", b"content-length"}
    came["fields"] = [pair for pair in came["fields"] if pair[0].lower().encode() not in own]
    return seen.status, came, seen.interim, seen.trailers


def _judge_heads(near: Link, far: Link, token: str, case: Case) -> None:
    judge_request(near.up.head, far.up.head, token)
    got, said = answers(bytes(near.down.data)), answers(bytes(far.down.data))
    assert [int(head[9:12]) for head in said] == [*case.interim, case.status]
    assert len(got) == len(said)
    for heard, sent in zip(got, said, strict=True):
        judge_answer(heard, sent)


@pytest.mark.parametrize(("client", "server"), PAIRS)
async def test_events_are_not_held_back(
    stage: Stage, node: Node | None, client: str, server: str
) -> None:
    """The app sends the next event when the client has seen the last one, so none can wait for others."""
    peer = _client(client, node)
    events = 0
    came = b""
    async with Hop() as far, asyncio.timeout(30), _server(server, node) as far.target:
        box = stage.sandbox(far)
        target = f"/events?edge_token={box.token()}"
        async for piece in peer.stream(stage.edge.port, box.host, target):
            came += piece
            if came == b"".join(b"data: %d\n\n" % n for n in range(events + 1)):
                events += 1
                assert (await stage.ask(box.get("/next"))).status == 204
    assert events == 5
