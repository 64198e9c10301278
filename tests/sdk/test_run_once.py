"""``run_once`` of the published client: create, run, kill. Whatever becomes of the command, nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from nullspace import AsyncSandbox, NotFoundError, Sandbox, SandboxError

from tests.sdk.planes import Plane

Login = dict[str, Any]

ENDLESS = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(600)"


def _left(login: Login, run: str) -> list[str]:
    """The sandboxes that this run has left."""
    return [one.id for one in Sandbox.list(**login) if one.metadata.get("run") == run]


def _until(what: Callable[[], Any]) -> Any:
    """What it gives, once that is something."""
    deadline = time.monotonic() + 20
    while not (got := what()):
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)
    return got


def _api(login: Login) -> httpx.Client:
    """The API without the published client, whose handles kill on their way out."""
    key = {"Authorization": f"Bearer {login['api_key']}"}
    return httpx.Client(base_url=f"{login['base_url']}/v1/sandboxes", headers=key)


def _pid(login: Login, run: str) -> int | None:
    """The pid of the endless command, once it runs."""
    with _api(login) as api:
        for each in _left(login, run):
            answer = api.get(f"/{each}/file", params={"path": "pid"})
            if answer.status_code == 200 and answer.text:
                return int(answer.text)
    return None


def _runs(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_one_call_runs_a_command_and_leaves_nothing(login: Login) -> None:
    """Output, exit code and variables come back; a failing command is an answer, and its sandbox is gone."""
    given = {"metadata": {"run": "once"}, "envs": {"A": "x"}, **login}
    ran = Sandbox.run_once("sh", ["-c", "echo $A; pwd; echo e >&2; exit 3"], **given)
    assert (ran.stdout.splitlines()[0], ran.stderr, ran.exit_code) == ("x", "e\n", 3)
    assert _left(login, "once") == []
    with pytest.raises(NotFoundError) as refused:
        Sandbox.run_once("no-such-program", **given)
    assert refused.value.code == "command_not_found" and _left(login, "once") == []


def test_the_time_limit_ends_command_and_sandbox(login: Login) -> None:
    """Over time is an ``exec_timeout``; what the command has started is gone with it."""
    with pytest.raises(SandboxError) as refused:
        Sandbox.run_once("sleep", ["617.5"], timeout=1, metadata={"run": "late"}, **login)
    assert refused.value.code == "exec_timeout" and _left(login, "late") == []
    assert (
        "617.5"
        not in subprocess.run(["ps", "ax"], check=True, capture_output=True, text=True).stdout
    )


def test_a_create_that_is_refused_makes_none(login: Login) -> None:
    """What is wrong is told as it is for any create."""
    with pytest.raises(SandboxError) as refused:
        Sandbox.run_once("true", vcpus=0, metadata={"run": "none"}, **login)
    assert refused.value.code == "invalid_request" and _left(login, "none") == []


async def test_async_and_cancelled(login: Login) -> None:
    """The asynchronous twin does the same; cancelled, it kills the sandbox and its command on its way out."""
    given: Login = {"metadata": {"run": "async"}, **login}
    assert (await AsyncSandbox.run_once("echo", ["a"], **given)).stdout == "a\n"
    running = asyncio.create_task(
        AsyncSandbox.run_once(sys.executable, ["-c", ENDLESS], timeout=600, **given)
    )
    pid = await asyncio.to_thread(_until, lambda: _pid(login, "async"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(_left, login, "async") == []
    await asyncio.to_thread(_until, lambda: not _runs(pid))


def test_a_client_that_dies_leaves_it_to_the_timeout(login: Login) -> None:
    """Nobody kills it then, and its command may still run: ``timeout_ms`` ends both, as for every sandbox."""
    code = (
        "import sys; from nullspace import Sandbox; "
        "Sandbox.run_once(sys.executable, ['-c', sys.argv[3]], timeout=600, "
        "metadata={'run': 'dead'}, base_url=sys.argv[1], api_key=sys.argv[2])"
    )
    argv = [sys.executable, "-c", code, login["base_url"], login["api_key"], ENDLESS]
    with subprocess.Popen(argv) as client:
        try:
            pid = _until(lambda: _pid(login, "dead"))
        finally:
            client.kill()
    (left,) = _left(login, "dead")
    info = Sandbox.get_info_by_id(left, fields="timeout_action,timeout_ms,timeout_at", **login)
    assert (info["timeout_action"], info["timeout_ms"]) == ("destroy", 300_000)
    assert info["timeout_at"] is not None
    with _api(login) as api:
        assert api.post(f"/{left}/timeout", json={"timeout_ms": 1}).status_code == 200
    _until(lambda: not _left(login, "dead") and not _runs(pid))


async def test_a_restart_of_the_control_plane_meanwhile(tmp_path: Path) -> None:
    """The client is told at once. Its sandbox waits in error, as all do, for a kill; an ephemeral one is gone."""
    async with Plane(tmp_path) as plane:
        given: Login = {"metadata": {"run": "cut"}, **plane.login}
        ephemeral = await plane.call("POST", "/sandboxes", {"ephemeral": True})
        running = asyncio.create_task(
            AsyncSandbox.run_once(sys.executable, ["-c", ENDLESS], timeout=600, **given)
        )
        pid = await asyncio.to_thread(_until, lambda: _pid(plane.login, "cut"))
        await plane.end(signal.SIGKILL)
        with pytest.raises(SandboxError) as refused:
            await running
        assert refused.value.code == "transport_error"
        await asyncio.to_thread(_until, lambda: not _runs(pid))
        await plane.start()
        (left,) = await plane.call("GET", "/sandboxes")
        assert left["metadata"] == {"run": "cut"} and left["status"] == "error"
        await plane.call("DELETE", f"/sandboxes/{left['id']}")
        assert await plane.call("GET", "/sandboxes") == []
        told = await plane.call("GET", f"/sandboxes/{ephemeral['id']}/lifecycle?order=asc")
        assert [f"{e['operation']} {e['status']} {e['reason']}" for e in told["events"]] == [
            "create succeeded api",
            "reconcile failed restart",
            "destroy succeeded restart",
        ]
        assert not (tmp_path / "sandboxes" / ephemeral["id"]).exists()
