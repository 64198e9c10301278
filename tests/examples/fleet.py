"""The compose file without containers: the same commands, environments and files, on ports of the test's own.

What a container engine would do besides (images, networks, tmpfs, healthchecks) is not tried by anybody here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from bench.ports import free_port
from tests.examples.proxies import EXAMPLES, ROOT, cleaned, started
from tests.state.redis.valkey import program

INSIDE = {
    "/etc/valkey/redis.acl": "secrets/redis.acl",
    "/etc/preview-edge/control-plane.json": "secrets/control-plane.json",
    "/etc/preview-edge/edge.toml": "edge.toml",
    "/etc/nginx/tls.crt": "secrets/tls.crt",
    "/etc/nginx/tls.key": "secrets/tls.key",
    "/etc/nginx/conf.d/default.conf": "nginx.conf",
}
"""Where the compose file mounts which file."""


@dataclass
class Prepared:
    """A copy of the example after ``sh prepare.sh``, with places and ports of this machine."""

    folder: Path
    ports: dict[str, int]

    @cached_property
    def compose(self) -> dict[str, Any]:
        """The compose file."""
        return dict(yaml.safe_load((self.folder / "compose.yaml").read_text()))

    @property
    def services(self) -> dict[str, Any]:
        """Its services."""
        return dict(self.compose["services"])

    @property
    def edges(self) -> list[str]:
        """The names of those that are edges."""
        return [name for name in self.services if name.startswith("edge-")]

    def environment(self, service: str) -> dict[str, str]:
        """What a service finds in its environment."""
        spec = self.services[service]
        lines = (self.folder / spec["env_file"]).read_text().splitlines()
        return dict(line.split("=", 1) for line in lines) | spec["environment"]

    def command(self, service: str) -> list[str]:
        """What a service runs, with this machine's programs."""
        spec = self.services[service]
        entrypoint = spec.get("entrypoint", [])
        if spec["image"] == "preview-edge" and not entrypoint:
            entrypoint = ["preview-edge"]  # the image's
        name, *rest = [*entrypoint, *spec["command"]]
        programs = {
            "python": [sys.executable],
            "preview-edge": [sys.executable, "-m", "edge"],
            "valkey-server": [str(program())],
        }
        return [*programs[name], *rest]


def prepare(folder: Path) -> Prepared:
    """Copy, make secrets as the README says, and put every port and place right."""
    there = folder / "examples" / "fleet"
    shutil.copytree(EXAMPLES / "fleet", there, ignore=shutil.ignore_patterns("secrets"))
    shutil.copytree(ROOT / "config", folder / "config")
    subprocess.run(["sh", str(there / "prepare.sh")], check=True, env=cleaned())
    fixed = "3000 3001 3002 3003 3011 3012 3013 6379 8443".split()
    ports = {port: free_port() for port in fixed}
    places = {name: str(there / file) for name, file in INSIDE.items()}
    places |= {"/var/lib/preview-edge": str(folder / "data"), "redis:6379": "127.0.0.1:6379"}
    for name in ("compose.yaml", "secrets/edge.env", *INSIDE.values()):
        file = there / name
        text = file.read_text()
        for place in sorted(places, key=len, reverse=True):
            # Mounts say both; what is inside the containers is the latter.
            text = text.replace(place, places[place])
        text = re.sub(rf"\b({'|'.join(fixed)})\b", lambda found: str(ports[found[1]]), text)
        file.write_text(text)
    return Prepared(there, ports)


@contextmanager
def running(prepared: Prepared) -> Iterator[dict[str, Any]]:
    """Everything; yields the demo's line."""
    ports, folder = prepared.ports, prepared.folder / "running"
    with ExitStack() as stack:

        def start(service: str, port: str, *more: str) -> Path:
            spec = prepared.services[service]
            environ = prepared.environment(service) if "env_file" in spec else {}
            command = [*prepared.command(service), *more]
            return stack.enter_context(started(command, folder / service, environ, ports[port]))

        bound = ("--bind", "127.0.0.1", "--port", str(ports["6379"]), "--dir", str(folder))
        start("redis", "6379", *bound)
        log = start("control-plane", "3000")
        for number, edge in enumerate(prepared.edges, 1):
            # The one difference: nobody waits for a load balancer to notice the end.
            prepared.services[edge]["environment"]["PREVIEW_EDGE_DRAIN__WAIT"] = "0"
            start(edge, f"300{number}")
        stack.enter_context(_front(prepared, folder / "front"))
        yield _demo(log)


@contextmanager
def _front(prepared: Prepared, folder: Path) -> Iterator[None]:
    """nginx, as its image runs it: its configuration includes conf.d/*.conf."""
    folder.mkdir(parents=True)
    user = "user root;\n" if os.geteuid() == 0 else ""
    temporary = "client_body proxy fastcgi uwsgi scgi".split()
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in temporary)
    config = folder / "nginx.conf"
    config.write_text(
        f"{user}daemon off;\npid {folder}/pid;\nworker_processes 1;\nevents {{ }}\n"
        f"http {{\naccess_log off;\n{paths}include {prepared.folder}/nginx.conf;\n}}\n"
    )
    command = ["nginx", "-p", str(folder), "-c", str(config), "-e", str(folder / "errors")]
    with started(command, folder / "said", {}, prepared.ports["8443"]):
        yield


def _demo(log: Path) -> dict[str, Any]:
    """The line with the link; the control plane says it once the demo app listens."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for line in log.read_text().splitlines():
            if line.startswith('{"event": "demo"'):
                return dict(json.loads(line))
        time.sleep(0.05)
    raise AssertionError(log.read_text())
