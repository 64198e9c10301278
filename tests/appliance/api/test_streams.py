"""Commands over a WebSocket, with real processes: what is told, in which order, and what is refused."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service import KEY, PAUSES, Service, until

from edge.appliance.api import streams
from edge.appliance.runtime import Stream
from tests.core.wires import examples


async def _state(service: Service, sandbox: str) -> str:
    return str((await service.api("GET", f"/v1/sandboxes/{sandbox}"))[1]["status"])


async def test_a_command_from_start_to_exit(service: Service) -> None:
    """Started with its pid, output as text, the exit last; the id comes back; arguments as in a POST."""
    sandbox = await service.create(envs={"A": "1"})
    async with service.stream(sandbox) as stream:
        await stream.say(
            "exec_start", id="exec_1", command="printf", args=["%s|", "$A", "b c"], timeout_secs=30
        )
        frames = [await stream.hear() for _ in range(4)]
    pid = frames[0]["pid"]
    assert frames == [
        {"type": "exec_started", "id": "exec_1", "pid": pid},
        {"type": "exec_stdout", "id": "exec_1", "data": "$A|b c|"},
        {"type": "exec_exit", "id": "exec_1", "exit_code": 0},
        None,
    ]
    assert stream.socket.close_code == 1000
    async with service.stream(sandbox) as stream:
        line = "echo $A$B; pwd; echo err >&2; exit 3"
        await service.api(
            "POST", f"/v1/sandboxes/{sandbox}/files/write", {"path": "sub/x", "content": ""}
        )
        await stream.start(command=line, shell=True, envs={"B": "2"}, cwd="sub")
        stdout, stderr, last = await stream.rest()
    assert stdout.startswith("12\n/") and stdout.endswith("/workspace/sub\n")
    assert (stderr, last) == ("err\n", {"type": "exec_exit", "exit_code": 3})


async def test_characters_survive_being_split(service: Service) -> None:
    """A character that is written in two halves is told as one; what is none shows as U+FFFD."""
    sandbox = await service.create()
    async with service.stream(sandbox) as stream:
        line = r"printf 'h\303'; read go; printf '\251\377'; printf '\342\202' >&2"
        await stream.start(command=line, shell=True)
        assert (await stream.hear())["data"] == "h"
        await stream.say("exec_stdin", data="\n")
        assert await stream.rest() == (
            "\xe9\ufffd",
            "\ufffd",
            {"type": "exec_exit", "exit_code": 0},
        )


async def test_frames_are_bounded_and_complete(service: Service) -> None:
    """Megabytes of what JSON makes longest come in frames far below a MiB, and whole."""
    sandbox = await service.create()
    async with service.stream(sandbox, max_msg_size=1 << 19) as stream:
        pid = await stream.start(command="head", args=["-c", "3000000", "/dev/zero"])
        stdout, _, last = await stream.rest()
    assert (stdout, last["exit_code"]) == ("\0" * 3_000_000, 0)
    async with service.stream(sandbox, max_msg_size=1 << 19) as stream:
        await stream.say("exec_connect", pid=pid)
        await stream.hear()
        stdout, _, last = await stream.rest()
    assert (stdout, last["exit_code"]) == ("\0" * (1 << 20), 0), (
        "the newest MiB, in such frames, too"
    )


async def test_following_a_command_that_was_started_before(service: Service) -> None:
    """All that was written comes first, for several readers, also after the end; others are unknown."""
    sandbox = await service.create()
    run = {"command": "echo early; cat", "shell": True, "background": True}
    _, made = await service.api("POST", f"/v1/sandboxes/{sandbox}/exec", run)
    pid = made["pid"]
    path = f"/v1/sandboxes/{sandbox}/processes/{pid}"
    async with service.stream(sandbox) as one, service.stream(sandbox) as two:
        for stream in (one, two):
            await stream.say("exec_connect", id="x", pid=pid)
            assert await stream.hear() == {"type": "exec_started", "id": "x", "pid": pid}
            assert (await stream.hear())["data"] == "early\n"
        sent, _ = await service.api("POST", f"{path}/stdin", {"data": "l\xe4te"})
        assert sent == 200
        for stream in (one, two):
            assert (await stream.hear())["data"] == "l\xe4te"
        await one.socket.close()
        await two.say("exec_kill")
        assert await two.rest() == ("", "", {"type": "exec_exit", "id": "x", "exit_code": 137})
    async with service.stream(sandbox) as late:
        await late.say("exec_connect", pid=pid)
        await late.hear()
        ended = ("early\nl\xe4te", "", {"type": "exec_exit", "exit_code": 137})
        assert await late.rest() == ended
    async with service.stream(sandbox) as wrong:
        await wrong.say("exec_connect", id="w", pid=1)
        _, _, error = await wrong.rest()
        assert (error["code"], error["id"]) == ("process_not_found", "w")


async def test_a_client_that_leaves_leaves_the_command(service: Service) -> None:
    """It runs on, can be found again, and the sandbox is in use no more."""
    sandbox = await service.create()
    async with service.stream(sandbox) as stream:
        pid = await stream.start(command="cat")
        own = service.plane.parts.sandboxes.get(sandbox)
        assert own.calls == 1
    await until(lambda: own.calls == 0)
    async with service.stream(sandbox) as again:
        await again.say("exec_connect", pid=pid)
        await again.hear()
        # Reset, not closed: as when its process was killed.
        raw = again.socket.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        again.socket._response.connection.transport.abort()
    await until(lambda: own.calls == 0 and not service.plane.parts.streams)
    (process,) = service.plane.parts.runtime.processes(sandbox)
    assert (process.pid, process.running) == (pid, True)


async def test_out_of_time(service: Service) -> None:
    """What was written comes, then an error that says so; the list shows how it ended."""
    sandbox = await service.create()
    async with service.stream(sandbox) as stream:
        pid = await stream.start(command="echo said; sleep 600", shell=True, timeout_secs=1)
        stdout, _, last = await stream.rest()
    assert (stdout, last["type"], last["code"]) == ("said\n", *("error", "exec_timeout"))
    assert stream.socket.close_code == 1008
    _, logs = await service.api("GET", f"/v1/sandboxes/{sandbox}/processes/{pid}/logs")
    assert (logs["stdout"], logs["exit_code"]) == ("said\n", 137)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("no json", "invalid_request"),
        ("[]", "invalid_request"),
        ("{}", "invalid_request"),
        (b"{}", "invalid_request"),
        ({"type": "exec_stop"}, "invalid_request"),
        ({"type": "exec_start"}, "invalid_request"),
        ({"type": "exec_start", "command": ""}, "invalid_request"),
        ({"type": "exec_start", "command": "true", "timeout_secs": 0}, "invalid_request"),
        ({"type": "exec_start", "command": "true", "id": "x" * 256}, "invalid_request"),
        ({"type": "exec_start", "command": "a\0b"}, "invalid_request"),
        ({"type": "exec_start", "command": "true", "envs": {"A=": "1"}}, "invalid_request"),
        ({"type": "exec_start", "command": "true", "cwd": "/etc"}, "invalid_request"),
        ({"type": "exec_start", "command": "true", "cwd": "none"}, "file_not_found"),
        ({"type": "exec_start", "command": "no-such-program"}, "command_not_found"),
        ({"type": "exec_start", "command": "true", "args": ["x" * 200_000]}, "command_not_found"),
        ({"type": "exec_start", "command": "x" * (1 << 20)}, "payload_too_large"),
        ({"type": "exec_connect"}, "invalid_request"),
        ({"type": "exec_connect", "pid": "1"}, "invalid_request"),
        ({"type": "exec_connect", "pid": 0}, "process_not_found"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_cannot_be_is_an_error_frame(service: Service, frame: Any, code: str) -> None:
    """One frame that says why, then the close; nothing runs."""
    sandbox = await service.create()
    async with service.stream(sandbox) as stream:
        if isinstance(frame, bytes):
            await stream.socket.send_bytes(frame)
        else:
            await stream.socket.send_str(frame if isinstance(frame, str) else json.dumps(frame))
        _, _, error = await stream.rest()
    assert (error["type"], error["code"]) == ("error", code)
    assert isinstance(error["message"], str) and stream.socket.close_code == 1008
    assert service.plane.parts.runtime.processes(sandbox) == []


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ({"type": "exec_start", "command": "true"}, "invalid_request"),
        ({"type": "exec_stdin"}, "invalid_request"),
        ({"type": "exec_stdin", "data_base64": "?"}, "invalid_request"),
        ({"type": "exec_stdin", "data": "x" * (1 << 20)}, "payload_too_large"),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_cannot_be_later_ends_the_stream_only(
    service: Service, frame: dict[str, Any], code: str
) -> None:
    """The error is told, and the command runs on."""
    sandbox = await service.create()
    async with service.stream(sandbox) as stream:
        await stream.start(command="cat")
        await stream.socket.send_json(frame)
        _, _, error = await stream.rest()
    assert error["code"] == code
    assert service.plane.parts.runtime.processes(sandbox)[0].running


@pytest.mark.parametrize(
    ("path", "options", "status", "code"),
    [
        ("sb_nobody00/ws?channel=exec", {}, 404, "sandbox_not_found"),
        ("{}/ws?channel=exec", {"headers": {}}, 401, "unauthorized"),
        ("{}/ws?channel=pty", {}, 501, "not_implemented"),
        ("{}/ws?channel=", {}, 501, "not_implemented"),
        ("{}/pty", {}, 501, "not_implemented"),
    ],
)
async def test_refused_before_the_upgrade(
    service: Service, path: str, options: dict[str, Any], status: int, code: str
) -> None:
    """With a status and the usual error body, so that clients do not try again in vain."""
    sandbox = await service.create()
    upgrade = {
        "Authorization": f"Bearer {KEY}", "Connection": "Upgrade", "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }  # fmt: skip
    options = {"headers": upgrade} | options
    answer, body = await service.raw("GET", f"/v1/sandboxes/{path.format(sandbox)}", **options)
    assert (answer.status, json.loads(body)["code"]) == (status, code)


async def test_without_an_upgrade(service: Service) -> None:
    """A plain GET is told what to do."""
    sandbox = await service.create()
    status, error = await service.api("GET", f"/v1/sandboxes/{sandbox}/ws?channel=exec")
    assert (status, error["code"]) == (400, "invalid_request") and "upgrade" in error["error"]


async def test_streams_of_a_sandbox_are_bounded(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One too many is refused with a status that clients do not repeat; a closed one makes room."""
    monkeypatch.setattr(streams, "MAX_STREAMS", 1)
    sandbox, other = await service.create(), await service.create()
    async with service.stream(sandbox) as stream:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await service.stream(sandbox).__aenter__()
        assert refused.value.status == 409
        async with service.stream(other) as unhindered:
            await unhindered.start(command="true")
        await stream.start(command="true")
        await stream.rest()
    await until(lambda: not service.plane.parts.streams)
    async with service.stream(sandbox) as next_one:
        await next_one.start(command="true")


async def test_a_silent_client_is_not_waited_for(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who opens a socket and says nothing is told so, and closed."""
    monkeypatch.setattr(streams, "OPENING", 0.1)
    sandbox = await service.create()
    async with service.stream(sandbox) as stream:
        _, _, error = await stream.rest()
    assert error["code"] == "invalid_request" and "0.1 seconds" in error["message"]


async def test_a_reader_that_takes_nothing_is_cut(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command waits for it, but not for ever; the cut looks like no regular end, and it runs on."""
    monkeypatch.setattr(streams, "PATIENCE", 0.5)
    sandbox = await service.create()
    tree = service.plane.config.data_dir / "sandboxes" / sandbox / "workspace"
    line = "head -c 30000000 /dev/zero; touch done; exec sleep 600"
    async with service.stream(sandbox) as stream:
        stream.socket._response.connection.transport.pause_reading()
        await stream.say("exec_start", command=line, shell=True)
        await until((tree / "done").exists, 30)
        await until(lambda: not service.plane.parts.streams)
        stream.socket._response.connection.transport.resume_reading()
        while (message := await stream.socket.receive(timeout=30)).type is aiohttp.WSMsgType.TEXT:
            pass
        assert (
            stream.socket.close_code in (None, 1006) and message.type is not aiohttp.WSMsgType.TEXT
        )
    assert service.plane.parts.runtime.processes(sandbox)[0].running


async def test_one_slow_reader_stalls_nobody_else(service: Service) -> None:
    """While one takes nothing of an endless output, everything else of the control plane goes on."""
    sandbox = await service.create()
    async with service.stream(sandbox) as slow:
        slow.socket._response.connection.transport.pause_reading()
        await slow.say("exec_start", command="yes")
        await until(lambda: bool(service.plane.parts.runtime.processes(sandbox)))
        output = service.plane.parts.runtime._sandboxes[sandbox]._roll._started[1].output
        await until(lambda: any(pipe._paused for pipe in output._pipes), 30)
        for _ in range(10):
            status, ran = await service.api(
                "POST", f"/v1/sandboxes/{sandbox}/exec", {"command": "echo", "args": ["x"]}
            )
            assert (status, ran["stdout"]) == (200, "x\n")
        slow.socket._response.connection.transport.abort()
    await until(lambda: not any(pipe._paused for pipe in output._pipes))


async def test_one_that_errs_and_takes_nothing_is_cut_off(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last frame waits for it as long as others do, and not for ever."""
    monkeypatch.setattr(streams, "PATIENCE", 2.0)
    sandbox = await service.create()
    runner = service.plane._runner
    assert runner is not None and runner.server is not None
    async with service.stream(sandbox) as slow:
        slow.socket._response.connection.transport.pause_reading()
        await slow.say("exec_start", command="yes")
        await until(lambda: any(one._drain_waiter for one in runner.server.connections), 30)
        await slow.say("no such thing")
        await until(lambda: not any(one.writing_paused for one in runner.server.connections), 30)
        slow.socket._response.connection.transport.abort()


async def test_input_that_is_not_read_is_refused(service: Service) -> None:
    """Bounded, at once, as a whole, with a code of its own; so is input for who takes none."""
    sandbox = await service.create()
    run = {"command": "sleep", "args": ["600"], "background": True}
    _, made = await service.api("POST", f"/v1/sandboxes/{sandbox}/exec", run)
    path = f"/v1/sandboxes/{sandbox}/processes/{made['pid']}/stdin"
    statuses = []
    for _ in range(12):
        status, told = await service.api("POST", path, {"data": "x" * 200_000})
        statuses.append(status)
    assert statuses[:5] == [200] * 5 and statuses[-1] == 409
    assert (told["code"], told["retryable"]) == ("stdin_full", True)
    assert (await service.api("POST", path, {"data": ""}))[0] == 200
    for wrong in ({}, {"data": 1}, {"data": "", "data_base64": ""}, {"data_base64": "x"}):
        assert (await service.api("POST", path, wrong))[1]["code"] == "invalid_request"
    await service.api("POST", f"/v1/sandboxes/{sandbox}/processes/{made['pid']}/kill")
    status, told = await service.api("POST", path, {"data": "x"})
    assert (status, told["code"]) == (409, "stdin_closed")
    unknown = f"/v1/sandboxes/{sandbox}/processes/1/stdin"
    assert (await service.api("POST", unknown, {"data": "x"}))[1]["code"] == "process_not_found"


async def test_a_paused_sandbox_is_resumed_where_it_may_be(service: Service) -> None:
    """By the upgrade; without auto_resume it is 409 before it, and stays asleep."""
    sandbox = await service.create(**PAUSES)
    await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
    async with service.stream(sandbox) as stream:
        await stream.start(command="echo", args=["up"])
        assert (await stream.rest())[0] == "up\n"
    other = await service.create(timeout_action="hibernate")
    await service.api("POST", f"/v1/sandboxes/{other}/hibernate")
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await service.stream(other).__aenter__()
    assert refused.value.status == 409 and await _state(service, other) == "paused"


async def test_a_client_that_gives_up_while_it_waits_for_the_resume(
    service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The resume goes on without it, nothing stays counted, and nothing is logged as an error."""
    sandbox = await service.create(**PAUSES)
    await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
    the_parts = service.plane.parts
    thaw, begun, go = the_parts.runtime.thaw, asyncio.Event(), asyncio.Event()

    async def slow(name: str) -> None:
        begun.set()
        await go.wait()
        await thaw(name)

    monkeypatch.setattr(the_parts.runtime, "thaw", slow)
    opening = asyncio.create_task(service.stream(sandbox).__aenter__())
    await begun.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    go.set()
    own = the_parts.sandboxes.get(sandbox)
    await until(lambda: own.calls == 0 and not the_parts.streams and own.state.value == "running")
    assert "error" not in capsys.readouterr().err


@pytest.mark.parametrize("auto", [True, False])
async def test_an_ordered_pause_freezes_a_stream_and_does_not_end_it(
    service: Service, auto: bool
) -> None:
    """The socket stays open, the command goes on after the resume, and input resumes where it may."""
    more = PAUSES if auto else {"timeout_action": "hibernate"}
    sandbox = await service.create(**more)
    async with service.stream(sandbox) as stream, service.stream(sandbox) as starting:
        await stream.start(command="cat")
        _, snapshot = await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
        assert await _state(service, sandbox) == "paused"
        if not auto:
            await starting.say("exec_start", command="true")
            assert (await starting.rest())[2]["code"] == "sandbox_not_ready"
            await service.api("POST", f"/v1/sandboxes/{snapshot['id']}/resume")
        await stream.say("exec_stdin", data_base64="4pWs")
        assert (await stream.hear())["data"] == "\u256c"
        assert await _state(service, sandbox) == "running"
        if auto:
            await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
            await starting.start(command="echo", args=["up"])
            assert (await starting.rest())[0] == "up\n"


async def test_a_followed_command_keeps_its_sandbox_awake(service: Service) -> None:
    """No pause for inactivity while a stream is open; one soon after it is closed."""
    sandbox = await service.create(**PAUSES, inactivity_timeout_ms=100)
    own = service.plane.parts.sandboxes.get(sandbox)
    async with service.stream(sandbox) as stream:
        await stream.start(command="for i in 1 2 3 4 5; do sleep 0.1; echo $i; done", shell=True)
        began = own.incarnation
        assert (await stream.rest())[0] == "1\n2\n3\n4\n5\n"
        assert own.incarnation == began, "it never slept"
    await until(lambda: own.state.value == "paused", 20)


@pytest.mark.parametrize("paused", [False, True])
async def test_the_end_of_the_sandbox_is_told(service: Service, paused: bool) -> None:
    """An error that says so, then the close, whether it ran or slept."""
    sandbox = await service.create(**PAUSES)
    async with service.stream(sandbox) as stream:
        await stream.start(command="cat")
        if paused:
            await service.api("POST", f"/v1/sandboxes/{sandbox}/hibernate")
        assert (await service.api("DELETE", f"/v1/sandboxes/{sandbox}"))[0] < 300
        _, _, last = await stream.rest()
    assert (last["type"], last["code"]) == ("error", "sandbox_not_found")


async def test_the_end_of_the_control_plane_is_told(service: Service) -> None:
    """A stop does not look like an exit, and is not held up."""
    sandbox = await service.create()
    async with service.stream(sandbox) as stream:
        await stream.start(command="cat")
        stopping = asyncio.create_task(service.plane.stop())
        _, _, last = await stream.rest()
        await stopping
    assert (last["type"], last["code"]) == ("error", "runtime_lost")


async def test_a_crash_of_ours_is_told(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even then there is a last frame, which tells nothing of the inside."""

    def broken(_: Stream) -> None:
        raise KeyError("secret")

    monkeypatch.setattr(Stream, "take", broken)
    sandbox = await service.create()
    async with service.stream(sandbox) as stream:
        await stream.start(command="true")
        _, _, last = await stream.rest()
    assert last["code"] == "internal_error" and "secret" not in json.dumps(last)
    assert stream.socket.close_code == 1011


@examples(60)
@given(st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode))))
def test_any_bytes_in_any_pieces_read_as_if_they_were_one(pieces: list[bytes]) -> None:
    """The text of all frames is what decoding everything at once gives, and frames are never empty."""
    told: list[str] = []

    class Scripted:
        pid = 7

        def __init__(self) -> None:
            self.left = [(0, piece) for piece in pieces if piece]

        async def take(self) -> tuple[int, bytes] | None:
            return self.left.pop(0) if self.left else None

        def result(self) -> int:
            return 0

    class Socket:
        async def send_str(self, text: str) -> None:
            assert len(text) < 1 << 20
            told.append(json.loads(text).get("data"))

    session = streams._Session(None, "sb", Socket())  # type: ignore[arg-type]
    last = asyncio.run(session._tell(Scripted()))  # type: ignore[arg-type]
    assert told[0] is None and all(told[1:])
    assert "".join(told[1:]) == b"".join(pieces).decode("utf-8", "replace")
    assert last == {"type": "exec_exit", "exit_code": 0}
