"""``preview-edge dev``: a control plane and one edge or several, child processes that speak the state port.

The parent generates what they share (service token, cookie key), hands it over by standard input and by
private files, and watches: a child that dies takes everything down, a signal ends the edges first and
then the control plane, which ends its sandboxes. Several edges are a fleet: with ``--redis-url`` the
control plane publishes to that Redis and the edges follow it there, without it they all follow the
control plane itself.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from edge.commands.addresses import check_addresses
from edge.commands.children import Child, ChildEnded
from edge.commands.operator import Door, kept
from edge.commands.screen import Addresses, banner, base_url, event_line
from edge.commands.shared import OWN_VARIABLES, Options, Shared
from edge.core.redis_settings import RedisSettings
from edge.ops.configuration import CONFIG_VARIABLE, PREFIX, load_settings
from edge.ops.process import StartError, Stop
from edge.wake.scope import Scope

CONTROL_PLANE = (sys.executable, "-m", "edge.appliance", "--config", "-")
EDGE = (sys.executable, "-m", "edge", "serve", "--tied", "--config")

CONTROL_PLANE_NAME = "control plane"
SETTINGS = "settings"
"""Where in the data directory the edges' settings files are while they run: for `token inspect`, for one."""

_PRIVATE = OWN_VARIABLES | {CONFIG_VARIABLE, "NULLSPACE_API_KEY"}

EDGE_PATIENCE = 8.0
"""Seconds the edge may take to drain; its own limits (in `Shared`) are shorter."""
INSISTENCE = 1.0
"""Seconds the edge may still take to end its workers once a second signal says so."""
CONTROL_PLANE_PATIENCE = 10.0
"""Seconds the control plane may take to end its sandboxes."""


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
        # What runs in sandboxes shall not find the key of the API, nor settings, in its environment.
        self._environ = {k: v for k, v in environ.items() if k not in _PRIVATE}
        self._bare_environ = {k: v for k, v in self._environ.items() if not k.startswith(PREFIX)}
        self._command = control_plane
        self._shared = Shared(options)
        self._scope = Scope(lambda name, e: _complain(f"{name}: {e!r}"))
        self._children: list[Child] = []
        self._held: list[str] | None = []
        self._kept = ExitStack()
        self._redis = RedisSettings()

    async def run(self) -> int:
        """Until a signal (0) or the death of a child (1). Raises `StartError`, `ConfigurationError`."""
        stop = Stop(self._kill)
        self._check()
        try:
            return await self._watch(stop) if await stop.permits(self._start()) else 0
        except ChildEnded as e:
            return self._explain(e.child)
        finally:
            await self._stop()

    # --- Before anything is started -----------------------------------------------------------------

    def _check(self) -> None:
        options = self._options
        check_addresses(options)
        try:
            options.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            raise StartError(
                f"--data-dir: {options.data_dir} cannot be made: {e.strerror}; choose another directory"
            ) from None
        with tempfile.TemporaryDirectory(prefix="preview-edge-") as folder:
            # Once with any port, so that a wrong setting is told before a process is started.
            file = self._shared.write_for_edge(Path(folder), options.api_port or 1, self._environ)
            self._redis = load_settings(file, self._environ).redis

    # --- Start --------------------------------------------------------------------------------------

    async def _start(self) -> None:
        options = self._options
        control_plane = await self._child(CONTROL_PLANE_NAME, self._command)
        control_plane.tell(self._shared.for_control_plane(self._redis))
        said = await control_plane.heard("listening")
        api_port = _port(said)
        api = base_url(options.host, api_port)
        # Only now: until it listens, the directory may be another one's.
        self._kept.enter_context(kept(options.data_dir, Door(api, self._shared.service_token)))
        ports = await self._start_edges(api_port)
        (first, _), *_ = ports
        reserved = [api_port, *(port for pair in ports for port in pair)]
        control_plane.tell({"public_port": first, "reserved_ports": reserved})
        demo = await control_plane.heard("demo") if options.demo else None
        addresses = Addresses(
            api=api,
            edges=[(base_url(options.host, p), base_url(options.host, a)) for p, a in ports],
            api_key=options.api_key,
            data_dir=str(options.data_dir),
            redis=options.redis_url,
        )
        for line in self._held or ():
            _print(line)
        self._held = None
        in_error = said.get("in_error")
        _print(
            banner(
                addresses,
                demo,
                in_error=in_error if isinstance(in_error, int) else 0,
                isolated=self._options.isolation == "netns",
            )
        )

    async def _start_edges(self, api_port: int) -> list[tuple[int, int]]:
        """Start them all at once; where each listens, for traffic and for admins."""
        folder = self._kept.enter_context(_settings_folder(self._options.data_dir))
        edges = []
        for number in range(self._options.edges):
            file = self._shared.write_for_edge(folder, api_port, self._environ, number)
            name = f"edge-{number + 1}" if self._options.edges > 1 else "edge"
            edges.append(await self._child(name, (*EDGE, str(file))))
        said = [await edge.heard("listening") for edge in edges]
        return [(_port(one), _port(one, "admin_port")) for one in said]

    async def _child(self, name: str, command: Sequence[str]) -> Child:
        def complain(line: str) -> None:
            text = event_line(line, name)
            if text is None:
                return
            if self._held is not None:
                # Until all is up, for it may be the reason why it never is.
                self._held.append(text)
                return
            try:
                _print(text)
            except OSError:
                pass  # The terminal is gone; a signal will follow.

        environ = self._bare_environ if name == CONTROL_PLANE_NAME else self._environ
        child = await Child.start(name, command, environment=environ, on_error_line=complain)
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
        """The edges first, so that their drain still has a control plane to report to."""
        edges = [child for child in self._children if child.name != CONTROL_PLANE_NAME]
        await asyncio.gather(*(edge.stop(EDGE_PATIENCE) for edge in edges))
        for child in self._children:
            if child not in edges:
                await child.stop(CONTROL_PLANE_PATIENCE)
        self._kept.close()
        await self._scope.close()

    def _kill(self) -> None:
        """The second signal: no more drain, but workers and sandboxes must still be ended."""
        for child in self._children:
            child.signal(signal.SIGTERM)
            if child.name != CONTROL_PLANE_NAME:
                asyncio.get_running_loop().call_later(INSISTENCE, child.signal, signal.SIGKILL)


@contextmanager
def _settings_folder(data_dir: Path) -> Iterator[Path]:
    """A directory for this run alone; one that a killed run has left is removed. Raises `StartError`.

    One that holds anything else is somebody else's, for a data directory can be any: it is left alone.
    """
    folder = data_dir / SETTINGS
    try:
        if _is_of_ours(folder):
            shutil.rmtree(folder)
        folder.mkdir(mode=0o700)
    except OSError as e:
        raise StartError(f"{folder} cannot be made: {e.strerror}; move it away") from None
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_of_ours(folder: Path) -> bool:
    if folder.is_symlink() or not folder.is_dir():
        return False
    return all(re.fullmatch(r"edge-\d+\.toml", left.name) for left in folder.iterdir())


def _how(child: Child) -> str:
    status = child.status
    if status is None:
        return "its output ended"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


def _port(said: Mapping[str, object], key: str = "port") -> int:
    port = said.get(key)
    if not isinstance(port, int):
        raise StartError(f"a child process said no {key}: {said!r}")
    return port


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201  (talking to the person at the terminal is what dev does)


def _complain(text: str) -> None:
    print(f"preview-edge: {text}", file=sys.stderr, flush=True)  # noqa: T201  (as above)
