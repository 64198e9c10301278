"""Settings: one line that names what is wrong, never a secret."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from service import KEY, TOKEN, config

from edge.appliance.config import ConfigError, read_config, read_edge_line


def test_what_is_said_is_read(tmp_path: Path) -> None:
    """A complete object is read, and secrets do not show."""
    settings = config(tmp_path, demo=True, await_edge=True)
    assert settings.demo and settings.await_edge
    assert settings.reserved_ports == (3002,)
    assert TOKEN not in repr(settings) and KEY not in repr(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "0.0.0.0"}, "config: host: .*loopback"),
        ({"port": 65536}, "config: port: "),
        ({"port": "3000"}, "config: port: "),
        ({"api_key": ""}, "config: api_key: "),
        ({"service_token": "short"}, "config: service_token: "),
        ({"public_scheme": "ftp"}, "config: public_scheme: "),
        ({"public_hostname": "not a host"}, "config: public_hostname: "),
        ({"console_hosts": ["not a host"]}, "config: console_hosts.0: "),
        ({"demo": "yes"}, "config: demo: "),
        ({"colour": "red"}, "config: colour: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    """Each wrong setting is named in one line without its value."""
    with pytest.raises(ConfigError, match=message) as refused:
        config(tmp_path, **changes)
    assert "\n" not in str(refused.value)
    assert "short" not in str(refused.value)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"data_dir": "/tmp"}'])
def test_what_is_no_config_is_refused(text: str) -> None:
    """Anything that is not the object gets an error of ours."""
    with pytest.raises(ConfigError):
        read_config(text)


def test_the_edge_line() -> None:
    """The line that names the edge's port has two keys and no other."""
    line = read_edge_line(json.dumps({"public_port": 3001, "reserved_ports": [1, 2]}))
    assert (line.public_port, line.reserved_ports) == (3001, (1, 2))
    with pytest.raises(ConfigError):
        read_edge_line('{"public_port": "x"}')
    with pytest.raises(ConfigError):
        read_edge_line('{"public_port": 1, "more": 2}')
