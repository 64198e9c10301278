"""The process: start, say where it listens, run the demo, stop on a signal or with its parent.

Standard output carries one JSON object a line for whoever started us: ``listening`` with the port,
``demo`` with its addresses. Standard error is the log. Standard input is read only where it is told to
be: ``--config -`` takes the settings from its first line, and ``await_edge`` takes the edge's port from
the next one; in both cases its end means that the parent is gone.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import web

from edge.appliance.app import build_app
from edge.appliance.config import Config, ConfigError, read_config, read_edge_line
from edge.appliance.connections import Runner
from edge.appliance.demo import DemoFailed, end_demos, start_demo
from edge.appliance.keys import SigningKeys
from edge.appliance.log import capture_libraries, log_event
from edge.appliance.parts import Parts, build_parts
from edge.appliance.runtime import Runtime
from edge.appliance.runtime.namespace import why_not
from edge.appliance.store import Store, StoreError
from edge.core.records import State
from edge.state.keyfiles import KeyFileError

MAX_LINE = 1 << 20
"""Bytes of one line on standard input."""

SANDBOXES = "sandboxes"
SWEPT = (SANDBOXES, "snapshots")
"""In the data directory, what is emptied of everything that the state does not know."""
STATE_FILE = "state.sqlite"
"""Name of the store in the data directory."""

HANDLERS = 1.0
"""Seconds handlers may take to end once the sandboxes are gone."""

Tell = Callable[[dict[str, object]], None]
NextLine = Callable[[], Awaitable[bytes]]


class StartError(Exception):
    """It cannot start. The message is one line that says what to do."""


class ControlPlane:
    """One control plane. `port` is known after `start`."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.port = 0
        isolated = config.isolation == "netns"
        self._runtime = Runtime(config.data_dir / SANDBOXES, isolated=isolated)
        self._store: Store | None = None
        self._parts: Parts | None = None
        self._runner: web.AppRunner | None = None
        self._lock: int | None = None

    @property
    def parts(self) -> Parts:
        """The parts of a started control plane."""
        assert self._parts is not None
        return self._parts

    async def start(self) -> None:
        """Take over what an earlier run left, then listen. Raises `StartError`."""
        config = self.config
        if self._runtime.isolated and (trouble := await asyncio.to_thread(why_not)) is not None:
            raise StartError(f"isolation netns: {trouble}; or do without the option")
        self._lock = _own(config.data_dir)
        try:
            keys = SigningKeys(config.data_dir, log=log_event)
            self._store = Store(config.data_dir / STATE_FILE)
            self._parts = build_parts(config, self._runtime, keys, self._store, log=log_event)
            await self._runtime.start(sandbox.id for sandbox in self._parts.sandboxes.living())
            await self._parts.volumes.start()
            await self._parts.copies.start()
            self._parts.attachments.start()
            await end_demos(self._parts)
        except (KeyFileError, StoreError, OSError) as e:
            raise StartError(str(e)) from None
        self._runner = Runner(build_app(self._parts), access_log=None, shutdown_timeout=HANDLERS)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, config.host, config.port).start()
        except OSError as e:
            raise StartError(
                f"cannot listen on {config.host}:{config.port}: {e.strerror}; choose another port"
            ) from None
        self.port = self._runner.addresses[0][1]
        self._parts.minter.reserved |= {self.port}
        self._parts.pools.start()

    @property
    def in_error(self) -> int:
        """How many sandboxes are in error: after the start, those whose processes an earlier run took along."""
        return sum(one.state is State.ERROR for one in self.parts.sandboxes.living())

    async def stop(self) -> None:
        """Accept nothing more, end every sandbox, then whatever still waits. Harmless when repeated."""
        runner, self._runner = self._runner, None
        if runner is not None:
            for site in list(runner.sites):
                await site.stop()
        if self._parts is not None:
            self._parts.sandboxes.close()
            self._parts.pools.close()
            await self._parts.scope.close()
            await self._parts.pools.clear()
        await self._runtime.close()
        if runner is not None:
            await runner.cleanup()
        if self._store is not None:
            self._store.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


async def serve(config: Config, next_line: NextLine | None, tell: Tell) -> None:
    """Run until a signal, or until ``next_line`` is at its end. Raises `StartError`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    plane = ControlPlane(config)
    try:
        await plane.start()
        tell({"event": "listening", "port": plane.port, "in_error": plane.in_error})
        following = plane.parts.scope.spawn(_follow(plane, next_line, tell, stop), name="follow")
        await stop.wait()
        following.cancel()
    finally:
        await plane.stop()


async def _follow(
    plane: ControlPlane, next_line: NextLine | None, tell: Tell, stop: asyncio.Event
) -> None:
    """Hear where the edge listens, start the demo, notice the parent's end."""
    try:
        if next_line is not None and plane.config.await_edge:
            line = await next_line()
            if not line:
                return
            plane.parts.set_edge(read_edge_line(line), plane.port)
        if plane.config.demo:
            demo = await start_demo(plane.parts)
            tell(
                {
                    "event": "demo",
                    "sandbox_id": demo.sandbox_id,
                    "url": demo.url,
                    "websocket_url": demo.websocket_url,
                    "link": demo.link,
                }
            )
        if next_line is None:
            await stop.wait()
        else:
            while await next_line():
                pass
    except (ConfigError, DemoFailed) as e:
        log_event("stopping", error=str(e))
    finally:
        stop.set()


def _own(data_dir: Path) -> int:
    """The data directory, ours alone: two control planes would end each other's sandboxes."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # What belongs to no sandbox is removed from there, which must not be somebody's project.
        foreign = [name for name in SWEPT if _filled(data_dir / name)]
        if foreign and not (data_dir / STATE_FILE).exists():
            raise StartError(
                f"{data_dir} is no data directory, and has something in {foreign[0]}; choose another directory"
            )
        lock = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise StartError(f"{data_dir}: {e.strerror}; choose another data directory") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StartError(
            f"{data_dir} is in use by another control plane; stop it or choose another data directory"
        ) from None
    return lock


def _filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=MAX_LINE)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    return reader


def _tell(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)  # noqa: T201 - standard output is for whoever started us


async def run(source: str) -> None:
    """Read the settings from a file, or (``-``) from standard input, and serve.

    Raises `StartError`, `ConfigError`.
    """
    capture_libraries()
    lines = await _stdin() if source == "-" else None
    if lines is not None:
        text = await lines.readline()
    else:
        try:
            text = Path(source).read_bytes()
        except OSError as e:
            raise StartError(f"{source}: {e.strerror}") from None
    config = read_config(text)
    if lines is None and config.await_edge:
        lines = await _stdin()
    await serve(config, lines.readline if lines is not None else None, _tell)
