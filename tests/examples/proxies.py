"""The examples as processes: each started as its README says, with free ports and folders of the test's own."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from websockets.sync.client import ClientConnection, connect

from bench.ports import free_port

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
CUSTOMER = "app.customer.test"
PATIENCE = 30.0
"""Seconds for what takes a fraction of one; only broken code waits that long."""

Environ = Mapping[str, str]


@dataclass
class Proxy:
    """A customer's proxy that listens, and the visitors it has."""

    port: int
    log: Path
    reload: Environ
    """What the environment of a command has to have that gives new tokens to this proxy."""
    name: str = CUSTOMER

    @property
    def host(self) -> str:
        """What a visitor's browser says in ``Host``."""
        return f"{self.name}:{self.port}"

    @contextmanager
    def visitor(self) -> Iterator[httpx.Client]:
        """Somebody with connections of their own."""
        with httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers={"Host": self.host}, timeout=PATIENCE
        ) as client:
            yield client

    @contextmanager
    def socket(self, target: str = "/socket", **options: Any) -> Iterator[ClientConnection]:
        """A visitor's WebSocket. Raises InvalidStatus where it is refused."""
        with (
            socket.create_connection(("127.0.0.1", self.port), PATIENCE) as plain,
            connect(
                f"ws://{self.host}{target}",
                sock=plain,
                proxy=None,
                compression=None,
                max_size=None,
                open_timeout=PATIENCE,
                **options,
            ) as opened,
        ):
            yield opened


# --- Each of them -----------------------------------------------------------------------------------


@contextmanager
def nginx(folder: Path, environ: Environ) -> Iterator[Proxy]:
    """Debian's nginx, with the template filled in as the README says."""
    port = free_port()
    given = dict(environ) | {"CUSTOMER_LISTEN": f"127.0.0.1:{port}", "CUSTOMER_HOST": CUSTOMER}
    (folder / "conf.d").mkdir(parents=True)
    script = fill_in().replace("/etc/nginx/", f"{folder}/")
    trusted = environ.get("SSL_CERT_FILE", "")
    if trusted:
        script += f" && sed -i 's|/etc/ssl/certs/ca-certificates.crt|{trusted}|' {folder}/conf.d/*"
    subprocess.run(["sh", "-c", script], check=True, cwd=EXAMPLES, env=cleaned() | given)
    config = folder / "nginx.conf"
    # The workers of a root's nginx may not read a test's folder, unless they are root's too.
    user = "user root;\n" if os.geteuid() == 0 else ""
    temporary = "client_body proxy fastcgi uwsgi scgi".split()
    paths = "".join(f"{name}_temp_path {folder}/{name};\n" for name in temporary)
    config.write_text(
        f"{user}daemon off;\npid {folder}/pid;\nworker_processes 1;\nevents {{ }}\n"
        f"http {{\naccess_log off;\n{paths}include {folder}/conf.d/*.conf;\n}}\n"
    )
    program = ["nginx", "-p", str(folder), "-c", str(config), "-e", str(folder / "errors")]
    reload = f"{script} && {' '.join(program)} -s reload"
    with started(program, folder, given, port) as log:
        yield Proxy(port, log, given | {"RELOAD": reload})


@contextmanager
def caddy(folder: Path, environ: Environ) -> Iterator[Proxy]:
    """Caddy of the wheel, or of this machine."""
    port, admin = free_port(), free_port()
    given = dict(environ) | {
        "CUSTOMER_SITE": f"http://{CUSTOMER}:{port}",
        "CADDY_ADMIN": f"127.0.0.1:{admin}",
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
    }
    program = [caddy_binary(), "run", "--config", str(EXAMPLES / "caddy" / "Caddyfile")]
    reload = " ".join([program[0], "reload", *program[2:], "--address", given["CADDY_ADMIN"]])
    with started(program, folder, given, port) as log:
        yield Proxy(port, log, given | {"RELOAD": reload})


@contextmanager
def fastapi(folder: Path, environ: Environ) -> Iterator[Proxy]:
    """The app in uvicorn."""
    port = free_port()
    readme = (EXAMPLES / "fastapi" / "README.md").read_text()
    (command,) = re.findall(r"^uvicorn (.*)$", readme, re.MULTILINE)
    command = command.replace("8000", str(port))
    program = [sys.executable, "-m", "uvicorn", *command.split()]
    with started(program, folder, environ, port) as log:
        yield Proxy(port, log, {})


STARTERS = {"nginx": nginx, "caddy": caddy, "fastapi": fastapi}


def fill_in() -> str:
    """The README's command that makes nginx's configuration of the template."""
    readme = (EXAMPLES / "nginx" / "README.md").read_text()
    (command,) = re.findall(r"^envsubst .*?[^\\]$", readme, re.MULTILINE | re.DOTALL)
    return command


def caddy_binary() -> str | None:
    """Where Caddy is, if it is anywhere."""
    beside = Path(sys.executable).with_name("caddy")
    return str(beside) if beside.exists() else shutil.which("caddy")


# --- Processes --------------------------------------------------------------------------------------


def cleaned() -> dict[str, str]:
    """This environment without what would decide what a test sees."""
    other = ("NULLSPACE_", "PREVIEW_", "CUSTOMER_", "SANDBOX_", "SSL_CERT_")
    return {name: value for name, value in os.environ.items() if not name.startswith(other)}


@contextmanager
def started(program: list[str], folder: Path, environ: Environ, port: int) -> Iterator[Path]:
    """A process that listens on the port, until the end; the file with what it says."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    with ExitStack() as stack:
        out = stack.enter_context(log.open("wb"))
        child = subprocess.Popen(
            program,
            cwd=ROOT,
            env=cleaned() | dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        stack.callback(_end, child)
        deadline = time.monotonic() + PATIENCE
        while True:
            assert child.poll() is None, f"{program[0]} ended:\n{log.read_text()}"
            assert time.monotonic() < deadline, f"{program[0]} is late:\n{log.read_text()}"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield log


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(10)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
