"""The builder: what it refuses to build, and what it is told from whom."""

from __future__ import annotations

from typing import Any

import pytest

from edge.ops.configuration import ConfigurationError
from edge.ops.server import build_edge
from edge.state.http import HttpStatePort
from edge.state.redis import RedisStatePort
from tests.core.test_settings import settings
from tests.wake.scriptedport import ScriptedPort

SECRET = "s" * 32


def of(**groups: Any) -> Any:
    """Least settings with shared keys, free ports, and no log."""
    base: dict[str, Any] = {
        "listen": {"port": 0, "admin_port": 0},
        "tokens": {"hs256": [{"kid": "k", "secret": SECRET}]},
        "log": {"access": "", "level": "error"},
        "drain": {"timeout": 0, "waiters": 0, "tunnels": 0},
    }
    return settings(**(base | groups))


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"control_plane": {"token": SECRET, "url": "ftp://x"}}, "control_plane.url"),
        ({"cookie": {"keys": [{"kid": "a", "secret": SECRET}] * 2}}, "cookie.keys"),
        ({"tokens": {"hs256": [{"kid": "a", "secret": SECRET}] * 2}}, "tokens.hs256"),
    ],
)
async def test_settings_whose_parts_do_not_fit(groups: dict[str, Any], said: str) -> None:
    """Building is how ``check-config`` finds them: one line that names the setting."""
    with pytest.raises(ConfigurationError, match=said) as caught:
        build_edge(of(**groups))
    assert "\n" not in str(caught.value) and SECRET not in str(caught.value)


def test_whom_an_edge_asks() -> None:
    """The control plane, or Redis before it where the settings name one; a test's own port as it is given."""
    assert isinstance(build_edge(of()).state_port, HttpStatePort)
    shared = of(redis={"url": "redis://127.0.0.1:1"})
    assert isinstance(build_edge(shared).state_port, RedisStatePort)
    port = ScriptedPort()
    assert build_edge(of(), state_port=port).state_port is port


def test_building_begins_nothing() -> None:
    """No loop runs and none is needed: the edge has no port, and says that it is not ready."""
    edge = build_edge(of())
    assert (edge.port, edge.admin_port) == (0, 0) and "starting" in edge.unready()
