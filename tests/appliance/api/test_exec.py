"""Commands over HTTP, run for real."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from service import PAUSES, Service


async def _run(service: Service, sandbox: str, **body: Any) -> tuple[int, Any]:
    return await service.api("POST", f"/v1/sandboxes/{sandbox}/exec", body)


async def test_foreground(service: Service) -> None:
    """Arguments are arguments, a shell is only used where asked for, output is text."""
    sandbox = await service.create(envs={"A": "1"})
    status, ran = await _run(service, sandbox, command="printf", args=["%s|", "$A", "b c"])
    assert (status, ran["exit_code"], ran["stdout"], ran["stderr"]) == (200, 0, "$A|b c|", "")
    line = {"command": "echo $A$B; echo err >&2; exit 3", "shell": True, "envs": {"B": "2"}}
    _, ran = await _run(service, sandbox, **line)
    assert (ran["exit_code"], ran["stdout"], ran["stderr"]) == (3, "12\n", "err\n")
    _, ran = await _run(service, sandbox, command="printf %s", args=["$A; b"], shell=True)
    assert ran["stdout"] == "$A; b"
    _, ran = await _run(service, sandbox, command="printf", args=[r"\377ok"])
    assert ran["stdout"] == "\ufffdok"
    assert "truncated" not in ran


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"command": "no-such-program-anywhere"}, 400, "command_not_found"),
        ({"command": "echo hi"}, 400, "command_not_found"),
        ({"command": "true", "cwd": "/etc"}, 400, "invalid_request"),
        ({"command": "true", "cwd": "missing"}, 404, "file_not_found"),
        ({"command": "sleep", "args": ["60"], "timeout_secs": 0.2}, 504, "exec_timeout"),
    ],
)
async def test_commands_that_cannot_be(
    service: Service, body: dict[str, Any], status: int, code: str
) -> None:
    """Each way a command can fail to run has its code."""
    sandbox = await service.create()
    told, error = await _run(service, sandbox, **body)
    assert (told, error["code"]) == (status, code)


async def test_background(service: Service) -> None:
    """A pid at once; list, logs and kill know it; killing twice is no error; others are unknown."""
    sandbox = await service.create()
    path = f"/v1/sandboxes/{sandbox}/processes"
    _, started = await _run(
        service, sandbox, command="echo out; echo err >&2; sleep 60", shell=True, background=True
    )
    assert started.keys() == {"pid"}
    pid = started["pid"]
    _, (process,) = await service.api("GET", path)
    assert process == {"pid": pid, "command": process["command"], "running": True}
    while True:
        _, logs = await service.api("GET", f"{path}/{pid}/logs")
        if "err" in logs["output"]:
            break
        await asyncio.sleep(0.01)
    assert (logs["stdout"], logs["stderr"]) == ("out\n", "err\n") and "exit_code" not in logs
    for _ in range(2):
        assert (await service.api("POST", f"{path}/{pid}/kill"))[0] == 200
    # Killed is not yet reaped, and only a list of logs tells.
    while "exit_code" not in (logs := (await service.api("GET", f"{path}/{pid}/logs"))[1]):  # noqa: ASYNC110 - see above
        await asyncio.sleep(0.01)
    assert logs["exit_code"] == 128 + 9
    for unknown in ("1", "999999", "x", "-1", "%00"):
        for method, what in (("GET", "logs"), ("POST", "kill")):
            status, error = await service.api(method, f"{path}/{unknown}/{what}")
            assert (status, error["code"]) == (404, "process_not_found")


async def test_a_paused_sandbox_resumes_for_a_command_where_it_may(service: Service) -> None:
    """With auto_resume it runs, memory and all; without it is 409 and stays asleep."""
    sandbox = await service.create(**PAUSES)
    await _run(service, sandbox, command="sleep", args=["60"], background=True)
    await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
    _, (process,) = await service.api("GET", f"/v1/sandboxes/{sandbox}/processes")
    assert process["running"] is True
    _, record = await service.edge("GET", f"sandboxes/{sandbox}")
    assert (record["state"], record["incarnation"]) == ("running", 2)
    other = await service.create(timeout_action="hibernate")
    await service.api("POST", f"/v1/sandboxes/{other}/hibernate")
    for method, path in [("POST", "exec"), ("GET", "processes"), ("GET", "files")]:
        body = {"command": "true"} if method == "POST" else None
        status, error = await service.api(method, f"/v1/sandboxes/{other}/{path}", body)
        assert (status, error["code"]) == (409, "sandbox_not_ready")
        assert error["details"] == {"status": "paused"}


async def test_logs_hold_back_half_a_character(service: Service) -> None:
    """The client shows what is new from one answer to the next, so nothing of it may change later."""
    sandbox = await service.create()
    line = {
        "command": r"printf 'h\303'; read go; printf '\251\303'",
        "shell": True,
        "background": True,
    }
    _, started = await _run(service, sandbox, **line)
    path = f"/v1/sandboxes/{sandbox}/processes/{started['pid']}"

    async def until_it_says(text: str) -> Any:
        while (logs := (await service.api("GET", f"{path}/logs"))[1])["stdout"] != text:
            assert text.startswith(logs["stdout"])
            await asyncio.sleep(0.01)
        return logs

    assert (await until_it_says("h"))["output"] == "h"
    assert (await service.api("POST", f"{path}/stdin", {"data": "\n"}))[0] == 200
    assert (await until_it_says("h\xe9\ufffd"))["exit_code"] == 0


async def test_commands_are_bounded(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is a conflict that says so, in the foreground, the background and as a stream."""
    monkeypatch.setattr("edge.appliance.runtime.roll.MAX_COMMANDS", 1)
    sandbox = await service.create()
    sleep = {"command": "sleep", "args": ["600"], "background": True}
    _, started = await _run(service, sandbox, **sleep)
    for more in ({"command": "true"}, sleep):
        status, error = await _run(service, sandbox, **more)
        assert (status, error["code"]) == (409, "quota_exceeded")
    async with service.stream(sandbox) as stream:
        await stream.say("exec_start", command="true")
        assert (await stream.rest())[2]["code"] == "quota_exceeded"
    await service.api("POST", f"/v1/sandboxes/{sandbox}/processes/{started['pid']}/kill")
    assert (await _run(service, sandbox, command="true"))[0] == 200
