"""``preview-edge dev``: control plane and edge as two child processes that speak the HTTP state port.

The parent generates what they share (service token, cookie key), hands it over by standard input and by
a private file, and watches: a child that dies takes everything down, a signal ends the edge first and
then the control plane, which ends its sandboxes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import secrets
import signal
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.core.settings import Settings
from edge.ops.children import Child, ChildEnded
from edge.ops.configuration import (
    CONFIG_VARIABLE,
    PREFIX,
    ConfigurationError,
    load_settings,
    variable_of,
)
from edge.ops.process import StartError, Stop, cannot_listen
from edge.ops.screen import Addresses, banner, base_url, edge_line, printable
from edge.wake.scope import Scope

CONTROL_PLANE = (sys.executable, "-m", "edge.appliance", "--config", "-")
EDGE = (sys.executable, "-m", "edge", "serve", "--tied", "--config")

_PRIVATE = frozenset({CONFIG_VARIABLE, "NULLSPACE_API_KEY"})

_OWN = (
    *("public_hostname", "public_scheme", "public_port"),
    *("listen.host", "listen.port", "listen.admin_host", "listen.admin_port", "listen.workers"),
    *("control_plane.url", "control_plane.token", "cookie.keys"),
    *("tokens.issuer", "tokens.jwks_url", "tokens.jwks_file"),
)
"""Settings that dev alone decides; the rest may come from the environment."""

_OPTIONS = {"public_hostname": "--public-hostname", "wake.window": "--window"}
"""Who chose a setting of the file that dev writes."""

ISSUER = "preview-edge-dev"
EDGE_PATIENCE = 8.0
"""Seconds the edge may take to drain; its own limits below are shorter."""
INSISTENCE = 1.0
"""Seconds the edge may still take to end its workers once a second signal says so."""
CONTROL_PLANE_PATIENCE = 10.0
"""Seconds the control plane may take to end its sandboxes."""


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


class Dev:
    """One run of ``dev``. ``control_plane`` is the command of the control plane; tests bring their own."""

    def __init__(
        self,
        options: Options,
        environ: Mapping[str, str],
        *,
        control_plane: Sequence[str] = CONTROL_PLANE,
    ) -> None:
        self._options = options
        # The control plane has to agree with these, so a shell set up for `serve` must not change them.
        own = {variable_of(name) for name in _OWN}
        environ = {k: v for k, v in environ.items() if k not in own}
        # What runs in sandboxes shall not find the key of the API, nor settings, in its environment.
        self._environ = {k: v for k, v in environ.items() if k not in _PRIVATE}
        self._bare_environ = {k: v for k, v in self._environ.items() if not k.startswith(PREFIX)}
        self._command = control_plane
        self._service_token = secrets.token_hex(32)
        self._cookie_key = secrets.token_hex(32)
        self._scope = Scope(self._crashed)
        self._children: list[Child] = []
        self._held: list[str] | None = []

    async def run(self) -> int:
        """Until a signal (0) or the death of a child (1). Raises `StartError`, `ConfigurationError`."""
        stop = Stop(self._kill)
        self._check()
        try:
            starting = self._scope.spawn(self._start(), name="start")
            asked = self._scope.spawn(stop.asked.wait(), name="signal")
            await asyncio.wait((starting, asked), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.wait((starting,))
                return 0
            await starting
            return await self._watch(stop)
        except ChildEnded as e:
            return self._explain(e.child)
        finally:
            await self._stop()

    # --- Before anything is started -----------------------------------------------------------------

    def _check(self) -> None:
        options = self._options
        if not _is_loopback(options.host):
            raise StartError(
                f"--host: {options.host} is not a loopback address; sandboxes run commands as you, so "
                "dev stays on this machine (127.0.0.1)"
            )
        asked = {"--api-port": options.api_port, "--edge-port": options.edge_port}
        asked["--admin-port"] = options.admin_port
        fixed = [port for port in asked.values() if port]
        if len(set(fixed)) != len(fixed):
            raise StartError("--api-port, --edge-port and --admin-port must differ from each other")
        for name, port in asked.items():
            if port:
                _try_port(name, options.host, port)
        try:
            options.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            raise StartError(
                f"--data-dir: {options.data_dir} cannot be made: {e.strerror}; choose another directory"
            ) from None
        with tempfile.TemporaryDirectory(prefix="preview-edge-") as folder:
            # Once with any port, so that a wrong setting is told before a process is started.
            self._settings(Path(folder), options.api_port or 1)

    def _settings(self, folder: Path, api_port: int) -> tuple[Path, Settings]:
        """Write the edge's settings file and read it back, the environment over it."""
        file = folder / "edge.toml"
        file.touch(mode=0o600)
        file.write_text(_toml(self._edge_settings(api_port)))
        try:
            return file, load_settings(file, self._environ)
        except ConfigurationError as e:
            raise ConfigurationError(_by_option(str(e), file)) from None

    def _edge_settings(self, api_port: int) -> dict[str, dict[str, object]]:
        options = self._options
        api = base_url(options.host, api_port)
        cookie = {"kid": "dev", "secret": self._cookie_key}
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
            "control_plane": {"url": api, "token": self._service_token},
            "tokens": {"issuer": ISSUER, "jwks_url": f"{api}/.well-known/jwks.json"},
            "cookie": {"keys": [cookie]},
            "wake": {"window": options.window},
            "log": {"access": str((options.data_dir / "access.log").resolve())},
            # Somebody waits at the terminal for Ctrl-C to be done.
            "drain": {"timeout": 2.0, "waiters": 0.5, "tunnels": 0.5},
        }

    # --- Start --------------------------------------------------------------------------------------

    async def _start(self) -> None:
        control_plane = await self._child("control plane", self._command)
        control_plane.tell(self._control_plane_settings())
        api_port = _port(await control_plane.heard("listening"))
        with tempfile.TemporaryDirectory(prefix="preview-edge-") as folder:
            file, _ = self._settings(Path(folder), api_port)
            edge = await self._child("edge", (*EDGE, str(file)))
            listening = await edge.heard("listening")
        edge_port, admin_port = _port(listening), _port(listening, "admin_port")
        control_plane.tell(
            {"public_port": edge_port, "reserved_ports": [api_port, edge_port, admin_port]}
        )
        demo = await control_plane.heard("demo") if self._options.demo else None
        host = self._options.host
        addresses = Addresses(
            api=base_url(host, api_port),
            edge=base_url(host, edge_port),
            admin=base_url(host, admin_port),
            api_key=self._options.api_key,
            data_dir=str(self._options.data_dir),
        )
        for line in self._held or ():
            _print(line)
        self._held = None
        _print(banner(addresses, demo))

    def _control_plane_settings(self) -> dict[str, object]:
        options = self._options
        ports = (options.api_port, options.edge_port, options.admin_port)
        return {
            "host": options.host,
            "port": options.api_port,
            "api_key": options.api_key,
            "service_token": self._service_token,
            "issuer": ISSUER,
            "public_hostname": options.public_hostname,
            "public_scheme": "http",
            "public_port": options.edge_port,
            "data_dir": str(options.data_dir.resolve()),
            "demo": options.demo,
            "reserved_ports": [port for port in ports if port],
            "await_edge": True,
        }

    async def _child(self, name: str, command: Sequence[str]) -> Child:
        def complain(line: str) -> None:
            text = edge_line(line) if name == "edge" else printable(f"{name}: {line}")
            if text is None:
                return
            if self._held is not None:
                self._held.append(
                    text
                )  # Until all is up, for it may be the reason why it never is.
            else:
                _print(text)

        environ = self._environ if name == "edge" else self._bare_environ
        child = await Child.start(
            name, command, environment=environ, scope=self._scope, on_error_line=complain
        )
        self._children.append(child)
        return child

    # --- Until the end ------------------------------------------------------------------------------

    async def _watch(self, stop: Stop) -> int:
        ends = [self._scope.spawn(child.ended.wait(), name="end") for child in self._children]
        asked = self._scope.spawn(stop.asked.wait(), name="signal")
        await asyncio.wait((*ends, asked), return_when=asyncio.FIRST_COMPLETED)
        dead = [child for child in self._children if child.status is not None]
        if not dead or stop.asked.is_set():
            _print("\nStopping.")
            return 0
        for child in dead:
            _complain(f"the {child.name} has ended ({_how(child)}); stopping the rest")
        return 1

    def _explain(self, dead: Child) -> int:
        """A child ended before everything was up; what it said is the reason.

        Raises `StartError` where the child's last line says what the user can do (exit status 2).
        """
        held = self._held or []
        if dead.status == 2 and held:
            raise StartError(held[-1].replace("preview-edge: ", ""))
        for line in held:
            _complain(line)
        _complain(f"the {dead.name} did not start ({_how(dead)})")
        return 1

    async def _stop(self) -> None:
        """The edge first, so that its drain still has a control plane to report to."""
        patience = {"edge": EDGE_PATIENCE, "control plane": CONTROL_PLANE_PATIENCE}
        for child in reversed(self._children):
            await child.stop(patience[child.name])
        await self._scope.close()

    def _kill(self) -> None:
        """The second signal: no more drain, but workers and sandboxes must still be ended."""
        for child in self._children:
            child.signal(signal.SIGTERM)
            if child.name == "edge":
                asyncio.get_running_loop().call_later(INSISTENCE, child.signal, signal.SIGKILL)

    def _crashed(self, name: str, error: BaseException) -> None:
        if not isinstance(error, ChildEnded | StartError | ConfigurationError):
            _complain(f"{name}: {error!r}")


def _how(child: Child) -> str:
    status = child.status
    if status is None:
        return "its output ended"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _try_port(name: str, host: str, port: int) -> None:
    """Raises `StartError` when nobody could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as e:
            raise cannot_listen(name, host, port, e) from None


def _by_option(complaint: str, file: Path) -> str:
    """A complaint about the file that dev wrote, in the words of who typed an option."""
    for setting, option in _OPTIONS.items():
        complaint = complaint.replace(f"{file}: {setting}: ", f"{option}: ")
    return complaint


def _port(said: Mapping[str, object], key: str = "port") -> int:
    port = said.get(key)
    if not isinstance(port, int):
        raise StartError(f"a child process said no {key}: {said!r}")
    return port


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
        case _:
            if isinstance(value, float):
                return str(value)  # JSON spells nan and inf otherwise
            # Of the escapes of JSON and TOML only those beyond ASCII differ; TOML takes them as they are.
            return json.dumps(value, ensure_ascii=False)


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (talking to the person at the terminal is what dev does)


def _complain(text: str) -> None:
    print(f"preview-edge: {text}", file=sys.stderr, flush=True)  # noqa: T201  (as above)
