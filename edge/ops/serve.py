"""``preview-edge serve``: one edge process, or a supervisor with several, from start to drained."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from edge.core.settings import Settings
from edge.ops.events import EventLog
from edge.ops.handover import taken_over
from edge.ops.lines import LineWriter
from edge.ops.private import tidy_up
from edge.ops.process import StartError, Stop, say
from edge.ops.server import build_edge
from edge.ops.workers import Supervisor


async def serve(settings: Settings, *, tied: bool = False) -> int:
    """Serve until told to stop. Raises `StartError` when it cannot begin.

    Says ``{"event": "listening", "port": N, "admin_port": M}`` on standard output once it accepts
    connections. ``tied``: standard input is a pipe from the parent, whose end means to stop.
    """
    if settings.listen.workers > 1:
        await _supervise(settings, tied=tied)
        return 0
    stop = Stop()
    if tied:
        await stop.tie_to_stdin()
    edge = build_edge(settings)
    stop.on_hangup(edge.logs.reopen)
    if await stop.permits(edge.start()):
        say("listening", port=edge.port, admin_port=edge.admin_port)
        await stop.asked.wait()
        await edge.stop()
    return 0


async def _supervise(settings: Settings, *, tied: bool) -> None:
    stderr = LineWriter(2)
    events = EventLog(stderr, settings.log.level, wall=time.time)
    supervisor = Supervisor(settings, events, stderr)
    # Not by the signal's default effect: the workers would drain on without us.
    stop = Stop(supervisor.kill)
    if tied:
        await stop.tie_to_stdin()
    stop.on_hangup(lambda: supervisor.signal(signal.SIGHUP))
    if await stop.permits(supervisor.start()):
        say("listening", port=supervisor.port, admin_port=supervisor.admin_port)
        await stop.asked.wait()
        await supervisor.stop()


async def work(status_fd: int) -> int:
    """One worker's life. Its settings come over standard input, its start is told on ``status_fd``."""
    try:
        settings, admin_socket = taken_over(sys.stdin.buffer.readline())
    except ValueError:
        raise StartError("worker: started by `serve`, never by hand; see listen.workers") from None
    stop = Stop()
    await stop.tie_to_stdin()
    edge = build_edge(settings, admin_socket=admin_socket)
    stop.on_hangup(edge.logs.reopen)
    try:
        if not await stop.permits(edge.start()):
            return 0
    except StartError as e:
        _tell(status_fd, {"failure": str(e)})
        return 2
    _tell(status_fd, {"listening": edge.port})
    await stop.asked.wait()
    await edge.stop()
    if stop.orphaned:
        tidy_up(admin_socket)
    return 0


def _tell(fd: int, said: dict[str, object]) -> None:
    os.write(fd, json.dumps(said).encode() + b"\n")
    os.close(fd)
