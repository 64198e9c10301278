"""Commands in a sandbox: run one, start one, list, logs, input, kill. ``streams.py`` follows them."""

from __future__ import annotations

import codecs
import shlex

from aiohttp import web

from edge.appliance.api.faults import told
from edge.appliance.api.http import answer, number, parts, read, sandbox_id
from edge.appliance.problems import PROCESS_NOT_FOUND, ApiError
from edge.appliance.requests import Exec, Stdin
from edge.appliance.runtime import Command, Runtime
from edge.appliance.views import Json


async def run(request: web.Request) -> web.Response:
    """``POST S/exec``: the result of a command, or (in the background) its pid."""
    wanted = await read(request, Exec)
    the_parts = parts(request)
    async with the_parts.sandboxes.use(sandbox_id(request)) as sandbox:
        with told():
            if wanted.background:
                pid = await the_parts.runtime.spawn(sandbox.id, command_of(wanted))
                return answer({"pid": pid})
            result = await the_parts.runtime.exec(sandbox.id, command_of(wanted))
    body: Json = {
        "exit_code": result.exit_code,
        "stdout": _text(result.stdout),
        "stderr": _text(result.stderr),
        "pid": result.pid,
    }
    if result.truncated:
        body["truncated"] = True
    return answer(body)


async def processes(request: web.Request) -> web.Response:
    """``GET S/processes``: what was started and not forgotten; exactly three keys each."""
    the_parts = parts(request)
    async with the_parts.sandboxes.use(sandbox_id(request)) as sandbox:
        with told():
            found = the_parts.runtime.processes(sandbox.id)
    return answer([{"pid": p.pid, "command": p.command, "running": p.running} for p in found])


async def logs(request: web.Request) -> web.Response:
    """``GET S/processes/{pid}/logs``: the newest output of a command."""
    the_parts = parts(request)
    async with the_parts.sandboxes.use(sandbox_id(request)) as sandbox:
        with told():
            pid = _pid(request, the_parts.runtime, sandbox.id)
            kept = the_parts.runtime.logs(sandbox.id, pid)
    over = kept.exit_code is not None
    body: Json = {
        "stdout": _text(kept.stdout, whole=over),
        "stderr": _text(kept.stderr, whole=over),
        "output": _text(kept.output, whole=over),
    }
    if kept.exit_code is not None:
        body["exit_code"] = kept.exit_code
    return answer(body)


async def kill(request: web.Request) -> web.Response:
    """``POST S/processes/{pid}/kill``: end a command; one that has ended already is no error."""
    the_parts = parts(request)
    async with the_parts.sandboxes.use(sandbox_id(request)) as sandbox:
        with told():
            pid = _pid(request, the_parts.runtime, sandbox.id)
            await the_parts.runtime.kill(sandbox.id, pid)
    return answer({"success": True})


async def stdin(request: web.Request) -> web.Response:
    """``POST S/processes/{pid}/stdin``: send to a command, all of it or nothing."""
    data = (await read(request, Stdin)).content
    the_parts = parts(request)
    async with the_parts.sandboxes.use(sandbox_id(request)) as sandbox:
        with told():
            pid = _pid(request, the_parts.runtime, sandbox.id)
            the_parts.runtime.write_stdin(sandbox.id, pid, data)
    return answer({"success": True})


def command_of(wanted: Exec) -> Command:
    """The runtime's terms for it."""
    args = wanted.args or []
    if wanted.shell:
        # Arguments of a command line are data, so they are quoted.
        line = shlex.join(args)
        shell, argv = f"{wanted.command} {line}" if line else wanted.command, None
    else:
        shell, argv = None, [wanted.command, *args]
    return Command(
        argv=argv,
        shell=shell,
        cwd=wanted.cwd,
        envs=wanted.envs or {},
        timeout_secs=wanted.timeout_secs,
    )


def _pid(request: web.Request, runtime: Runtime, sandbox: str) -> int:
    """The pid the path names, if it is one of the sandbox's. Raises `ApiError` (process_not_found)."""
    pid = number(request.match_info["pid"])
    if not isinstance(pid, int) or all(pid != p.pid for p in runtime.processes(sandbox)):
        raise ApiError(PROCESS_NOT_FOUND)
    return pid


def _text(output: bytes, *, whole: bool = True) -> str:
    # The client shows what is new from one answer to the next: a character that is only half there has
    # to wait for its other half.
    return codecs.getincrementaldecoder("utf-8")("replace").decode(output, whole)


ROUTES = [
    ("POST", "/v1/sandboxes/{sandbox}/exec", run),
    ("GET", "/v1/sandboxes/{sandbox}/processes", processes),
    ("GET", "/v1/sandboxes/{sandbox}/processes/{pid}/logs", logs),
    ("POST", "/v1/sandboxes/{sandbox}/processes/{pid}/kill", kill),
    ("POST", "/v1/sandboxes/{sandbox}/processes/{pid}/stdin", stdin),
]
