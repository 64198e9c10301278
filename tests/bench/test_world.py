"""The bench's world: tokens an edge believes, settings it can read."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path

from bench.world import FAST, HOSTNAME, RUNNING, World, host_of
from edge.core.credentials import Expectation, Family, Key, Keys, keys_from_jwks, peek, verify
from edge.core.records import State, Transport
from edge.core.settings import Settings
from edge.core.target import Target, parse_target
from edge.state import wire


def world() -> World:
    """One running sandbox."""
    made = World(fast_port=1, live_port=2)
    made.add_sandbox(RUNNING, State.RUNNING)
    return made


def test_settings_are_the_edges() -> None:
    """The text is TOML, and every key is one the edge knows."""
    settings = Settings.model_validate(
        tomllib.loads(world().edge_settings(3000, Path("/tmp/access.log")))
    )
    assert settings.public_hostname == HOSTNAME
    assert settings.log.access == "/tmp/access.log"


def test_tokens_are_believed() -> None:
    """Token and cookie pass the edge's own checks with the keys the bench hands out."""
    made = world()
    token = made.token(RUNNING, FAST, Transport.HTTP).encode()
    name, _, cookie = made.cookie(RUNNING, FAST).partition("=")
    settings = tomllib.loads(made.edge_settings(3000, Path("/tmp/x")))
    secret = settings["cookie"]["keys"][0]["secret"]
    told = json.loads(made.for_control_plane())
    keys = Keys(keys_from_jwks(told["jwks"]), {"fleet": Key("fleet", "HS256", secret)})
    expect = Expectation("nullspace", HOSTNAME, 4096)
    for value, family in [(token, Family.EDGE), (cookie.encode(), Family.CONTINUATION)]:
        peeked = peek(value, family, keys, expect)
        assert peeked is not None
        assert verify(value, peeked)
        assert peeked.claims.exp > time.time() + 3600
    assert name == "__Host-ns_preview"


def test_every_token_has_its_grant() -> None:
    """The control plane is told all grants and sandboxes, in the wire format."""
    made = world()
    made.token(RUNNING, FAST, Transport.HTTP)
    made.cookie(RUNNING, FAST)
    told = json.loads(made.for_control_plane())
    grants = [wire.grant_from_json(json.dumps(one)) for one in told["grants"]]
    assert [grant.id for grant in grants] == ["grant_0", "grant_1"]
    sandbox = wire.sandbox_from_json(json.dumps(told["sandboxes"][0]))
    assert sandbox.upstream is not None
    assert sandbox.upstream.address(FAST) == ("127.0.0.1", 1)


def test_hosts_name_their_target() -> None:
    """The host of a sandbox's port is one the edge parses back."""
    host = host_of(RUNNING, FAST).encode()
    assert parse_target(host, HOSTNAME) == Target(RUNNING, FAST)
