"""What ``preview-edge dev`` settles for its children: addresses, secrets, and who decides what."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.commands.screen import base_url
from edge.core.redis_settings import RedisSettings
from edge.ops.configuration import ConfigurationError, load_settings, variable_of

ISSUER = "preview-edge-dev"

_OWN = (
    *("public_hostname", "public_scheme", "public_port"),
    *("listen.host", "listen.port", "listen.admin_host", "listen.admin_port", "listen.workers"),
    *("control_plane.url", "control_plane.token", "control_plane.edge_id", "cookie.keys"),
    *("redis.url",),
    *("tokens.issuer", "tokens.jwks_url", "tokens.jwks_file"),
)
OWN_VARIABLES = frozenset(map(variable_of, _OWN))
"""Environment variables that would part an edge from its control plane; all others count as ever."""

REDIS_VARIABLE = variable_of("redis.url")
"""Stands for ``--redis-url``, so that a password need not be in anybody's command line."""

_OPTION_OF = {
    "public_hostname": "--public-hostname",
    "redis.url": "--redis-url",
    "wake.window": "--window",
}


@dataclass(frozen=True, slots=True)
class Options:
    """The command line of ``dev``. Ports may be 0; ``window`` is in seconds; ``edges`` is how many."""

    host: str
    api_port: int
    edge_port: int
    admin_port: int
    public_hostname: str
    data_dir: Path
    demo: bool
    window: float
    workers: int
    api_key: str
    edges: int = 1
    redis_url: str | None = field(default=None, repr=False)
    isolation: str = "shared"

    def ports_of(self, number: int) -> tuple[int, int]:
        """Traffic and admin port of an edge, the first of which is 0. A port of 0 stays 0."""
        ports = (self.edge_port, self.admin_port)
        edge, admin = (port + number if port else 0 for port in ports)
        return edge, admin


@dataclass(frozen=True, slots=True)
class Shared:
    """The settings of one run's children, from one command line and two new secrets."""

    options: Options
    service_token: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    cookie_key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    def write_for_edge(
        self, folder: Path, api_port: int, environ: Mapping[str, str], number: int = 0
    ) -> Path:
        """Write an edge's settings file, and see whether it can be used with the environment over it.

        Raises `ConfigurationError`, in the words of who typed an option or set a variable.
        """
        file = folder / f"edge-{number + 1}.toml"
        file.touch(mode=0o600)
        file.write_text(_toml(self._for_edge(api_port, number)))
        try:
            load_settings(file, environ)
        except ConfigurationError as e:
            complaint = str(e)
            for setting, option in _OPTION_OF.items():
                complaint = complaint.replace(f"{file}: {setting}: ", f"{option}: ")
            raise ConfigurationError(complaint) from None
        return file

    def _for_edge(self, api_port: int, number: int) -> dict[str, dict[str, object]]:
        options = self.options
        api = base_url(options.host, api_port)
        port, admin_port = options.ports_of(number)
        groups: dict[str, dict[str, object]] = {
            "": {
                "public_hostname": options.public_hostname,
                "public_scheme": "http",
                "public_port": options.edge_port,
            },
            "listen": {
                "host": options.host,
                "port": port,
                "admin_host": options.host,
                "admin_port": admin_port,
                "workers": options.workers,
            },
            "control_plane": {
                "url": api,
                "token": self.service_token,
                "edge_id": f"edge-{number + 1}",
            },
            "tokens": {"issuer": ISSUER, "jwks_url": f"{api}/.well-known/jwks.json"},
            "cookie": {"keys": [{"kid": "dev", "secret": self.cookie_key}]},
            "wake": {"window": options.window},
            "log": {"access": str((options.data_dir / "access.log").resolve())},
            # Somebody waits at the terminal for Ctrl-C to be done.
            "drain": {"timeout": 2.0, "waiters": 0.5, "tunnels": 0.5},
        }
        if options.redis_url is not None:
            groups["redis"] = {"url": options.redis_url}
        return groups

    def for_control_plane(self, redis: RedisSettings) -> dict[str, object]:
        """What the control plane reads from its standard input. ``redis`` is what the edges use."""
        options = self.options
        edges = [port for number in range(options.edges) for port in options.ports_of(number)]
        ports = (options.api_port, *edges)
        url = redis.url.get_secret_value() if redis.url is not None else None
        return {
            "host": options.host,
            "port": options.api_port,
            "api_key": options.api_key,
            "service_token": self.service_token,
            "issuer": ISSUER,
            "public_hostname": options.public_hostname,
            "public_scheme": "http",
            "public_port": options.edge_port,
            "data_dir": str(options.data_dir.resolve()),
            "demo": options.demo,
            "isolation": options.isolation,
            "reserved_ports": [port for port in ports if port],
            "redis": redis.model_dump(mode="json") | {"url": url},
            "await_edge": True,
        }


def _toml(groups: Mapping[str, Mapping[str, object]]) -> str:
    """Settings as TOML. Strings, numbers and lists of tables are all that dev needs."""
    lines: list[str] = []
    for group, settings in groups.items():
        lines += [f"[{group}]"] if group else []
        lines += [f"{key} = {_toml_value(value)}" for key, value in settings.items()]
    return "\n".join(lines) + "\n"


def _toml_value(value: object) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{key} = {_toml_value(v)}" for key, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(_toml_value, value)) + "]"
        case float():
            return str(value)  # JSON spells nan and inf another way.
        case _:
            # Of the escapes of JSON and TOML only those beyond ASCII differ; TOML takes them as they are.
            return json.dumps(value, ensure_ascii=False)
