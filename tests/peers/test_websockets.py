"""Real WebSocket clients and servers notice nothing of the edge between them.

Each dialogue is played twice, without and with the edge::

    client - hop - server
    client - hop - edge - hop - server

In the second run every byte after the 101 has to be the same at both hops; and what the peers saw, and
said, has to be the same in both runs.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from edge.core.records import Transport
from tests.flows.stage import Stage
from tests.peers.dialogues import DIALOGUES, Dialogue
from tests.peers.frames import unmasked
from tests.peers.heads import (
    ADDED_TO_REQUESTS,
    HOP_BY_HOP,
    added_to_requests,
    end_to_end,
    parsed,
    without,
)
from tests.peers.hop import Hop, Link
from tests.peers.node_peer import Node
from tests.peers.part import Events, Peer
from tests.peers.websockets_peer import Websockets
from tests.peers.wsproto_peer import Wsproto

TARGET = "/room/%41?b=%20c&d"
NODE = pytest.mark.needs_tool("node", "npm")
RANDOM = frozenset({b"sec-websocket-key", b"sec-websocket-accept", b"date"})
NAMES = ("websockets", "wsproto", "ws")
PLAYS = [
    pytest.param(
        dialogue, client, server,
        id=f"{dialogue.name}-{client} to {server}",
        marks=[NODE] if "ws" in (client, server) else [],
    )
    for dialogue in DIALOGUES
    for client in NAMES
    for server in NAMES
    if {client, server} <= dialogue.peers
]  # fmt: skip


@dataclass
class Run:
    """One playing of a dialogue: the connection at the client and at the server, and what they saw."""

    near: Link
    far: Link
    client: Events
    server: Events


@pytest.mark.parametrize(("dialogue", "client", "server"), PLAYS)
async def test_peers_notice_nothing(
    stage: Stage, request: pytest.FixtureRequest, dialogue: Dialogue, client: str, server: str
) -> None:
    """What both peers see and say is the same without the edge and with it, to the last byte."""
    peers = _peer(client, request), _peer(server, request)
    async with Hop() as far, Hop(stage.edge.port) as near:
        box = stage.sandbox(far)
        direct = await _play(dialogue, *peers, box.host, TARGET, far, far)
        token = box.token(kind=Transport.WEBSOCKET)
        target = f"{TARGET}&edge_token={token}"
        through = await _play(dialogue, *peers, box.host, target, near, far)

    assert through.client == direct.client
    assert through.server == direct.server
    assert token.encode() not in through.far.up.data
    _judge_requests(direct.far.up.head, through.near.up.head, through.far.up.head, token)
    _judge_answers(direct.near.down.head, through.near.down.head, through.far.down.head)
    _judge_bytes(direct, through, cut=dialogue.cut)
    if dialogue.server.deflate is not None and dialogue.client.deflate is not None:
        assert b"permessage-deflate" in through.near.down.head


def _peer(name: str, request: pytest.FixtureRequest) -> Peer:
    if name == "ws":
        node: Node = request.getfixturevalue("node_with_ws")
        return node
    return Websockets() if name == "websockets" else Wsproto()


async def _play(
    dialogue: Dialogue, client: Peer, server: Peer, host: str, target: str, near: Hop, far: Hop
) -> Run:
    async with asyncio.timeout(30), server.serve(dialogue.server) as serving:
        far.target = serving.port
        seen = await client.visit(dialogue.client, near.port, host, target)
        heard = await serving.events
        at_server = await far.link()
        at_client = at_server if near is far else await near.link()
        return Run(at_client, at_server, seen, heard)


def _judge_requests(direct: bytes, sent: bytes, came: bytes, token: str) -> None:
    """The app gets what was sent, less the token, and what the edge has to say."""
    (line, wanted), (said, fields), (heard, got) = parsed(direct), parsed(sent), parsed(came)
    assert said.replace(f"&edge_token={token}".encode(), b"") == heard == line
    assert without(end_to_end(got), also=ADDED_TO_REQUESTS) == end_to_end(fields)
    assert without(fields, also=RANDOM) == without(wanted, also=RANDOM)
    upgrade = [(name.lower(), value) for name, value in got if name.lower() in HOP_BY_HOP]
    assert upgrade == [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]
    added = added_to_requests(got)
    assert added.pop(b"x-request-id")
    host = dict(got)[b"Host"]
    assert added == {
        b"x-forwarded-for": b"127.0.0.1",
        b"x-forwarded-proto": b"https",
        b"x-forwarded-host": host,
        b"via": b"1.1 preview-edge",
    }


def _judge_answers(direct: bytes, came: bytes, sent: bytes) -> None:
    """The client gets the app's own answer to its handshake, be it a 101 or a refusal."""
    (line, wanted), (heard, got), (said, fields) = parsed(direct), parsed(came), parsed(sent)
    assert line == heard == said
    assert end_to_end(got) == end_to_end(fields)
    assert without(fields, also=RANDOM) == without(wanted, also=RANDOM)
    if b" 101 " in line:
        upgrade = [(name.lower(), value) for name, value in got if name.lower() in HOP_BY_HOP]
        assert upgrade == [(b"connection", b"Upgrade"), (b"upgrade", b"websocket")]


def _judge_bytes(direct: Run, through: Run, *, cut: bool) -> None:
    """After the heads all bytes are the same, at both ends of the edge, and as they were without it."""
    near, far = through.near, through.far
    if cut:  # What was under way to a connection that is gone may be lost on the way.
        assert near.up.rest.startswith(far.up.rest)
        assert far.down.rest.startswith(near.down.rest)
        return
    assert near.up.rest == far.up.rest
    assert near.down.rest == far.down.rest
    assert unmasked(near.up.rest) == unmasked(direct.near.up.rest)
    assert near.down.rest == direct.near.down.rest
