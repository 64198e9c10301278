"""Real WebSocket clients and servers notice nothing of the edge between them.

Each dialogue is played twice, without and with the edge::

    client - hop - server
    client - hop - edge - hop - server

In the second run every byte after the 101 has to be the same at both hops; and what the peers saw, and
said, has to be the same in both runs.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

import pytest

from edge.core.records import Transport
from tests.flows.stage import Stage
from tests.peers.dialogues import DIALOGUES, Dialogue
from tests.peers.frames import unmasked
from tests.peers.heads import HOP_BY_HOP, judge_answer, judge_request, parsed, without
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
    stage: Stage, node_with_ws: Node | str, dialogue: Dialogue, client: str, server: str
) -> None:
    """What both peers see and say is the same without the edge and with it, to the last byte."""
    peers = _peer(client, node_with_ws), _peer(server, node_with_ws)
    async with Hop() as far, Hop(stage.edge.port) as near:
        box = stage.sandbox(far)
        direct = await _play(dialogue, *peers, box.host, TARGET, far, far)
        token = box.token(kind=Transport.WEBSOCKET)
        target = f"{TARGET}&edge_token={token}"
        through = await _play(dialogue, *peers, box.host, target, near, far)

    assert through.client == direct.client
    assert through.server == direct.server
    assert token.encode() not in through.far.up.data
    _judge_heads(direct, through, token)
    _judge_bytes(direct, through, cut=dialogue.cut)
    if dialogue.server.deflate is not None and dialogue.client.deflate is not None:
        assert b"permessage-deflate" in through.near.down.head


def _peer(name: str, node: Node | str) -> Peer:
    if name == "ws":
        if isinstance(node, str):
            # No network, say. What must not be skipped is said by the same variable as for programs.
            (pytest.fail if os.environ.get("CI_REQUIRE_ALL") == "1" else pytest.skip)(node)
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


def _judge_heads(direct: Run, through: Run, token: str) -> None:
    """The handshake is the same at both ends of the edge, but for what is the edge's own, and as without it."""
    near, far = through.near, through.far
    judge_request(near.up.head, far.up.head, token)
    judge_answer(near.down.head, far.down.head)
    assert parsed(direct.far.up.head)[0] == parsed(far.up.head)[0]
    for before, now in ((direct.near.up, near.up), (direct.near.down, far.down)):
        wanted, got = parsed(before.head)[1], parsed(now.head)[1]
        assert without(got, also=RANDOM) == without(wanted, also=RANDOM)
    for head in (far.up.head, near.down.head):
        upgrade = [field for field in parsed(head)[1] if field[0].lower() in HOP_BY_HOP]
        if head is far.up.head or b" 101 " in head:
            assert upgrade == [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket")]


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
