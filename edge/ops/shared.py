"""What ``preview-edge dev`` settles for both of its children: addresses, secrets, and who decides what."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.ops.configuration import ConfigurationError, load_settings, variable_of
from edge.ops.screen import base_url

ISSUER = "preview-edge-dev"

_OWN = (
    *("public_hostname", "public_scheme", "public_port"),
    *("listen.host", "listen.port", "listen.admin_host", "listen.admin_port", "listen.workers"),
    *("control_plane.url", "control_plane.token", "cookie.keys"),
    *("tokens.issuer", "tokens.jwks_url", "tokens.jwks_file"),
)
OWN_VARIABLES = frozenset(map(variable_of, _OWN))
"""Environment variables that would part the edge from its control plane; all others count as ever."""

_OPTION_OF = {"public_hostname": "--public-hostname", "wake.window": "--window"}


@dataclass(frozen=True, slots=True)
class Options:
    """The command line of ``dev``. Ports may be 0; ``window`` is in seconds."""

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
    isolation: str = "shared"


@dataclass(frozen=True, slots=True)
class Shared:
    """The settings of one run's children, from one command line and two new secrets."""

    options: Options
    service_token: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)
    cookie_key: str = field(default_factory=lambda: secrets.token_hex(32), repr=False)

    def write_for_edge(self, folder: Path, api_port: int, environ: Mapping[str, str]) -> Path:
        """Write the edge's settings file, and see whether it can be used with the environment over it.

        Raises `ConfigurationError`, in the words of who typed an option or set a variable.
        """
        file = folder / "edge.toml"
        file.touch(mode=0o600)
        file.write_text(_toml(self._for_edge(api_port)))
        try:
            load_settings(file, environ)
        except ConfigurationError as e:
            complaint = str(e)
            for setting, option in _OPTION_OF.items():
                complaint = complaint.replace(f"{file}: {setting}: ", f"{option}: ")
            raise ConfigurationError(complaint) from None
        return file

    def _for_edge(self, api_port: int) -> dict[str, dict[str, object]]:
        options = self.options
        api = base_url(options.host, api_port)
        return {
            "": {
                "public_hostname": options.public_hostname,
                "public_scheme": "http",
                "public_port": options.edge_port,
            },
            "listen": {
                "host": options.host,
                "port": options.edge_port,
                "admin_host": options.host,
                "admin_port": options.admin_port,
                "workers": options.workers,
            },
            "control_plane": {"url": api, "token": self.service_token},
            "tokens": {"issuer": ISSUER, "jwks_url": f"{api}/.well-known/jwks.json"},
            "cookie": {"keys": [{"kid": "dev", "secret": self.cookie_key}]},
            "wake": {"window": options.window},
            "log": {"access": str((options.data_dir / "access.log").resolve())},
            # Somebody waits at the terminal for Ctrl-C to be done.
            "drain": {"timeout": 2.0, "waiters": 0.5, "tunnels": 0.5},
        }

    def for_control_plane(self) -> dict[str, object]:
        """What the control plane reads from its standard input."""
        options = self.options
        ports = (options.api_port, options.edge_port, options.admin_port)
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
