"""Strangers of the bench: what they send is refused, and counts as what it says it is."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from bench.flood import Flood
from bench.flood import run as flood
from bench.strangers import StrangersResult, floods
from bench.world import RUNNING, World
from edge.core.credentials import Expectation, Family, Keys, keys_from_jwks, peek, verify
from edge.core.errors import EdgeError
from edge.core.head import RequestScanner
from edge.core.records import State


def _world() -> World:
    world = World(1, 2)
    world.add_sandbox(RUNNING, State.RUNNING)
    return world


def test_forged_tokens_are_worth_a_signature_check_and_fail_it() -> None:
    """Anything less would be refused too cheaply to be called a flood."""
    world = _world()
    jwks = json.loads(world.for_control_plane())["jwks"]
    keys = Keys(keys_from_jwks(jwks), {})
    scanner = RequestScanner(max_fields=128, max_line=16384)
    for message in floods(world)["forged tokens"][:5]:
        head = scanner.scan(message.encode("latin-1").removesuffix(b"\r\n\r\n"))
        (token,) = head.edge_tokens
        peeked = peek(token, Family.EDGE, keys, Expectation("nullspace", "preview.example", 4096))
        assert peeked is None or not verify(token, peeked)


def test_the_other_floods_are_what_their_names_say() -> None:
    """Half requests have no end of head, no HTTP is none, and nobody else carries a token."""
    kinds = floods(_world())
    scanner = RequestScanner(max_fields=128, max_line=16384)
    assert all("\r\n\r\n" not in message for message in kinds["half requests"])
    assert all("edge_token" not in message for message in kinds["no token at all"])
    with pytest.raises(EdgeError):
        scanner.scan(kinds["no HTTP"][0].encode("latin-1").partition(b"\r\n\r\n")[0])


def test_a_flood_sends_its_messages_in_turn() -> None:
    """Each on a connection of its own, and no more open at once than it was told."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        job = Flood(listener.getsockname()[1], ["a", "b"], rate=1000, open_at_once=2, most=4)
        thread = threading.Thread(target=flood, args=(job,))
        thread.start()
        heard = []
        for _ in range(4):
            connection, _ = listener.accept()
            with connection:
                heard.append(connection.recv(10))
    thread.join()
    assert heard == [b"a", b"b", b"a", b"b"]


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    """One noisy round decides nothing."""
    assert StrangersResult("x", [1.0, 1.0, 2.0], [9.0, 1.5, 2.0]).ratio == 1.5
