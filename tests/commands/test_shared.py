"""What dev settles for its children: settings that fit together, and complaints in the user's words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge.appliance.config import read_config
from edge.commands.shared import OWN_VARIABLES, Options, Shared
from edge.ops.configuration import ConfigurationError, load_settings

OPTIONS = Options(
    host="127.0.0.1",
    api_port=3000,
    edge_port=3001,
    admin_port=0,
    public_hostname="localhost",
    data_dir=Path("data"),
    demo=True,
    window=7.0,
    workers=2,
    api_key="nsk_key",
)


def test_both_children_are_told_the_same(tmp_path: Path) -> None:
    """Edge and control plane agree about hostname, ports, issuer, token and where each other is."""
    shared = Shared(OPTIONS)
    edge = load_settings(shared.write_for_edge(tmp_path, 3000, {}), {})
    plane = read_config(json.dumps(shared.for_control_plane(edge.redis)))
    assert edge.public_hostname == plane.public_hostname == "localhost"
    assert edge.public_scheme == plane.public_scheme == "http"
    assert edge.public_port == plane.public_port == 3001
    assert edge.tokens.issuer == plane.issuer
    assert edge.control_plane.url == f"http://{plane.host}:{plane.port}"
    assert edge.tokens.jwks_url == f"{edge.control_plane.url}/.well-known/jwks.json"
    assert edge.control_plane.token == plane.service_token
    assert plane.reserved_ports == (3000, 3001)
    assert (edge.wake.window, edge.listen.workers) == (7.0, 2)
    assert plane.isolation == "shared"
    apart = Shared(replace(OPTIONS, isolation="netns")).for_control_plane(edge.redis)
    assert read_config(json.dumps(apart)).isolation == "netns"
    assert edge.log.access == str(Path("data/access.log").resolve())
    assert edge.redis.url is None and plane.redis == edge.redis


def test_a_fleet_shares_all_but_names_and_ports(tmp_path: Path) -> None:
    """And Redis as the environment has it, so that nobody publishes where nobody listens."""
    shared = Shared(replace(OPTIONS, edges=3, admin_port=4001, redis_url="redis://:hush@h/1"))
    environ = {"PREVIEW_EDGE_REDIS__PREFIX": "mine"}
    files = [shared.write_for_edge(tmp_path, 3000, environ, number) for number in range(3)]
    edges = [load_settings(file, environ) for file in files]
    plane = read_config(json.dumps(shared.for_control_plane(edges[0].redis)))
    assert [edge.listen.port for edge in edges] == [3001, 3002, 3003]
    assert [edge.listen.admin_port for edge in edges] == [4001, 4002, 4003]
    assert len({edge.control_plane.edge_id for edge in edges}) == 3
    assert plane.reserved_ports == (3000, 3001, 4001, 3002, 4002, 3003, 4003)
    assert plane.redis == edges[0].redis == edges[2].redis
    assert plane.redis.prefix == "mine" and plane.redis.url is not None
    assert plane.redis.url.get_secret_value() == "redis://:hush@h/1"
    assert "hush" not in repr(shared)
    alike = [edge.model_copy(update={"listen": None, "control_plane": None}) for edge in edges]
    assert alike[0] == alike[1] == alike[2]


def test_secrets_are_new_each_time_and_not_shown(tmp_path: Path) -> None:
    """Two runs share nothing; the file is for its owner alone."""
    one, two = Shared(OPTIONS), Shared(OPTIONS)
    assert one.service_token != two.service_token and one.cookie_key != two.cookie_key
    assert one.service_token not in repr(one) and one.cookie_key not in repr(one)
    assert one.write_for_edge(tmp_path, 3000, {}).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (replace(OPTIONS, window=0.0), "--window: must be more than 0"),
        (replace(OPTIONS, window=float("nan")), "--window: must be a finite number"),
        (replace(OPTIONS, window=float("inf")), "--window: must be a finite number"),
        (replace(OPTIONS, public_hostname="http://x"), "--public-hostname: must be a DNS name"),
        (replace(OPTIONS, redis_url="http://:hush@h"), "--redis-url: must begin with redis"),
        (replace(OPTIONS, redis_url="redis://:hush@h:port"), "--redis-url: must be like redis://"),
        (replace(OPTIONS, redis_url="redis://:hush@:0"), "--redis-url: must name a host"),
        (replace(OPTIONS, public_hostname='x"\ny'), "--public-hostname: must be a DNS name"),
    ],
)
def test_a_bad_option_is_told_by_its_name(tmp_path: Path, options: Options, said: str) -> None:
    """Not by the name of a file that is about to be removed."""
    with pytest.raises(ConfigurationError) as caught:
        Shared(options).write_for_edge(tmp_path, 3000, {})
    assert str(caught.value).startswith(said) and str(tmp_path) not in str(caught.value)
    assert "hush" not in str(caught.value)


def test_a_bad_variable_is_told_by_its_name(tmp_path: Path) -> None:
    """The environment's settings count in dev too, and so do its mistakes."""
    with pytest.raises(
        ConfigurationError, match=r"^environment variable PREVIEW_EDGE_LOG__LEVEL: "
    ):
        Shared(OPTIONS).write_for_edge(tmp_path, 3000, {"PREVIEW_EDGE_LOG__LEVEL": "loud"})


def test_odd_paths_arrive(tmp_path: Path) -> None:
    """Quotes, backslashes and letters beyond ASCII in the data directory's name."""
    folder = tmp_path / 'a "b" \\ é \U0001f600'
    file = Shared(replace(OPTIONS, data_dir=folder)).write_for_edge(tmp_path, 3000, {})
    assert load_settings(file, {}).log.access == str(folder.resolve() / "access.log")


def test_what_dev_decides_is_not_for_the_environment() -> None:
    """The names of `OWN_VARIABLES` are settings that exist."""
    for variable in OWN_VARIABLES:
        with pytest.raises(ConfigurationError) as caught:
            load_settings(None, {variable: "[]"})
        assert "unknown setting" not in str(caught.value)
