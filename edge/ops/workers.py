"""Several processes on one port: a supervisor, and the workers it starts, watches and begins again.

Each worker is a whole edge that listens with SO_REUSEPORT and shows its admin listener only to the
supervisor (`edge.ops.private`). The supervisor's own admin listener speaks for all: ready when every
worker is, metrics added up. Workers get their settings over standard input (`edge.ops.handover`), which also ties
them to the supervisor: when it closes, they drain and end.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import Process
from dataclasses import dataclass, field
from pathlib import Path

from edge.core.settings import Settings
from edge.ops.admin import Admin
from edge.ops.events import EventLog
from edge.ops.handover import handover, share
from edge.ops.lines import LineWriter
from edge.ops.merge import Merger
from edge.ops.private import Places, ask, clear
from edge.ops.process import StartError, cannot_listen
from edge.wake.scope import Scope

SETTLED = 10.0
"""Seconds a worker has to live for its death to count as the first of a series."""

FIRST_DELAY, LAST_DELAY = 0.5, 30.0
"""Seconds until a dead worker is begun again; doubled while it keeps dying young."""

SCRAPE_TIMEOUT = 2.0
"""Seconds a worker may take to answer the supervisor."""

STOP_MARGIN = 10.0
"""Seconds beyond the drain's own limits after which a worker that will not end is killed."""

START_TIMEOUT = 30.0
"""Seconds the first workers may take until they listen."""


@dataclass(slots=True)
class _Worker:
    index: int
    socket: Path
    process: Process | None = None
    listening: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str | None = None

    @property
    def name(self) -> str:
        return f"worker {self.index}"


class Supervisor:
    """Starts ``settings.listen.workers`` workers and speaks for them. `start`, then `stop`."""

    def __init__(self, settings: Settings, events: EventLog, stderr: LineWriter) -> None:
        self.settings = settings
        self.port = self.admin_port = 0
        self._events = events
        self._stderr = stderr
        self._scope = Scope(lambda name, e: self._tell("crash", task=name, error=repr(e)))
        self._admin = Admin(unready=self._unready, metrics=self._metrics)
        self._merger = Merger()
        self._places = Places(settings.listen.workers)
        self._workers = [_Worker(i, self._places[i]) for i in range(settings.listen.workers)]
        self._reserved: socket.socket | None = None
        self._stopping = asyncio.Event()

    async def start(self) -> None:
        """Start every worker; returns when all of them listen. Raises `StartError`."""
        self._stderr.open()
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        self._tell(
            "started", port=self.port, admin_port=self.admin_port, workers=len(self._workers)
        )

    async def _start(self) -> None:
        listen = self.settings.listen
        self._reserved = _reserve(listen.host, listen.port)
        self.port = self._reserved.getsockname()[1]
        self.admin_port = await self._admin.listen(listen.admin_host, listen.admin_port)
        for worker in self._workers:
            self._scope.spawn(self._keep(worker), name=worker.name)
        try:
            async with asyncio.timeout(START_TIMEOUT):
                for worker in self._workers:
                    await self._up(worker)
        except TimeoutError:
            raise StartError(
                f"listen.workers: the workers did not start within {START_TIMEOUT:.0f} s; "
                "see their messages"
            ) from None

    async def _up(self, worker: _Worker) -> None:
        await worker.listening.wait()
        if worker.failure is not None:
            raise StartError(worker.failure)

    async def stop(self) -> None:
        """Drain all workers, then end the admin listener. Kills those that do not end."""
        self._stopping.set()
        self.signal(signal.SIGTERM)
        drain = self.settings.drain
        alive = [worker.process for worker in self._workers if worker.process is not None]
        try:
            async with asyncio.timeout(drain.wait + drain.timeout + STOP_MARGIN):
                for process in alive:
                    await process.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            for process in alive:
                await process.wait()
        await self._scope.close()
        await self._admin.close()
        if self._reserved is not None:
            self._reserved.close()
        self._places.close()
        self._tell("stopped")
        self._stderr.close()

    def kill(self) -> None:
        """End all workers at once; `stop` then has nothing to wait for."""
        self._stopping.set()
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Pass a signal on to every living worker."""
        for worker in self._workers:
            process = worker.process
            if process is not None and process.returncode is None:
                process.send_signal(number)

    # --- One worker -----------------------------------------------------------------------------------

    async def _keep(self, worker: _Worker) -> None:
        """Run a worker, again and again, until the supervisor stops."""
        loop = asyncio.get_running_loop()
        delay = FIRST_DELAY
        while not self._stopping.is_set():
            began = loop.time()
            status = await self._run(worker)
            self._merger.ended(worker.name)
            if self._stopping.is_set():
                return
            lived = loop.time() - began
            delay = FIRST_DELAY if lived >= SETTLED else min(delay * 2, LAST_DELAY)
            self._tell("worker_died", worker=worker.index, status=status, again_in=delay)
            await asyncio.sleep(delay)

    async def _run(self, worker: _Worker) -> int:
        """One life of a worker; returns its exit status (negative: the signal that ended it)."""
        clear(worker.socket)
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "edge", "worker", "--status-fd", str(writing)),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(writing,),
                # Ctrl-C is for the supervisor, which then asks its workers.
                start_new_session=True,
            )
        finally:
            os.close(writing)
        worker.process = process
        assert process.stdin is not None
        process.stdin.write(handover(share(self.settings, worker.index, self.port), worker.socket))
        try:
            await self._hear(worker, reading)
            return await process.wait()
        finally:
            worker.listening.set()
            process.stdin.close()

    async def _hear(self, worker: _Worker, reading: int) -> None:
        """What the worker says about its start: one JSON line, or none when it dies before."""
        stream = asyncio.StreamReader()
        with os.fdopen(reading, "rb", buffering=0) as pipe:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(
                lambda: asyncio.StreamReaderProtocol(stream), pipe
            )
            try:
                line = await stream.readline()
            finally:
                transport.close()
        said = json.loads(line) if line else {"failure": "a worker ended before it listened"}
        worker.failure = said.get("failure")
        worker.listening.set()

    # --- Speaking for all -----------------------------------------------------------------------------

    # All are asked at once, or a few that hang would take longer than whoever asks us waits.

    async def _unready(self) -> list[str]:
        reasons = ["draining"] if self._stopping.is_set() else []
        for more in await asyncio.gather(*map(self._reasons, self._workers)):
            reasons += more
        return reasons

    async def _reasons(self, worker: _Worker) -> list[str]:
        answer = await self._ask(worker, "/readyz")
        said = ["not running"] if answer is None else json.loads(answer).get("reasons", ())
        return [f"{worker.name}: {why}" for why in said]

    async def _metrics(self) -> bytes:
        await asyncio.gather(*map(self._scrape, self._workers))
        return self._merger.exposition()

    async def _scrape(self, worker: _Worker) -> None:
        text = await self._ask(worker, "/metrics")
        if text is not None:
            self._merger.scraped(worker.name, text)

    async def _ask(self, worker: _Worker, path: str) -> str | None:
        """A worker's answer on its admin socket; None when there is none to be had."""
        try:
            async with asyncio.timeout(SCRAPE_TIMEOUT):
                return await ask(worker.socket, path)
        except (TimeoutError, OSError, EOFError):
            return None

    def _tell(self, event: str, **fields: object) -> None:
        self._events.write(event, fields)


def _reserve(host: str, port: int) -> socket.socket:
    """A socket that holds the port for the workers without listening. Raises `StartError`."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # Without SO_REUSEPORT first: with it, binding succeeds beside another edge of the same user.
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        held = socket.socket(family, kind, protocol)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except OSError as e:
        raise cannot_listen("listen.port", host, port, e) from None
    return held
