"""Everything of the published client's commands, synchronous and asynchronous, unchanged."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from nullspace import AsyncSandbox, Sandbox
from nullspace.errors import NotFoundError, SandboxError
from nullspace.errors import NotImplementedError as NotOffered

Login = dict[str, Any]
PAUSES = {"on_timeout": "pause", "auto_resume": True}

# The client uses the WebSocket library in a way that its newest version advises against.
pytestmark = pytest.mark.filterwarnings(r"ignore:connect\(\) must be used:DeprecationWarning")


@pytest.fixture
def sandbox(login: Login) -> Iterator[Sandbox]:
    """A sandbox that pauses and resumes by itself, gone after the test with all it runs."""
    made = Sandbox.create(**PAUSES, **login)
    yield made
    try:
        made.kill()
    except NotFoundError:
        pass


@pytest.fixture
async def remote(login: Login) -> AsyncIterator[AsyncSandbox]:
    """The same for the asynchronous client."""
    made = await AsyncSandbox.create(**PAUSES, **login)
    yield made
    try:
        await made.kill()
    except NotFoundError:
        pass
    await made.close()


class Ears:
    """A callback that remembers, and an event for when it has heard something."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self._changed = threading.Condition()

    def __call__(self, data: str) -> None:
        with self._changed:
            self.parts.append(data)
            self._changed.notify_all()

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def hears(self, text: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.text, 30), self.text

    async def will_hear(self, text: str) -> None:
        await asyncio.to_thread(self.hears, text)


def test_streaming(sandbox: Sandbox) -> None:
    """Output comes while the command runs, whole and in order; exit code, environment, directory."""
    out, err = Ears(), Ears()
    sandbox.files.write("sub/x", "")

    def go_on(data: str) -> None:
        out(data)
        if "first" in data:
            # It cannot go on before this was heard while it runs.
            sandbox.files.write("go", "")

    ran = sandbox.commands.run(
        "echo first $A; until [ -e ../go ]; do sleep 0.01; done; pwd; printf '\\303'; sleep 0.1;"
        "printf '\\251\\377'; echo err >&2; exit 3",
        shell=True, envs={"A": "1"}, cwd="sub", on_stdout=go_on, on_stderr=err,
    )  # fmt: skip
    assert ran.exit_code == 3
    assert ran.stdout == out.text and ran.stderr == err.text == "err\n"
    assert ran.stdout.startswith("first 1\n/") and ran.stdout.endswith("/sub\n\xe9\ufffd")
    long = sandbox.commands.run_streaming("head", ["-c", "5000000", "/dev/zero"])
    assert long.stdout == "\0" * 5_000_000


def test_streaming_what_fails(login: Login, sandbox: Sandbox) -> None:
    """Out of time, not found, not awake, not there."""
    out = Ears()
    with pytest.raises(RuntimeError, match="within 1 seconds"):
        sandbox.commands.run("echo said; sleep 600", shell=True, timeout=1, on_stdout=out)
    assert out.text == "said\n"
    with pytest.raises(RuntimeError, match="No such file"):
        sandbox.commands.run("no-such-program", on_stdout=out)
    with pytest.raises(RuntimeError, match="no process 1"):
        sandbox.commands.connect(1)
    sandbox.pause()
    assert sandbox.commands.run("echo", ["up"], on_stdout=out).stdout == "up\n"
    with Sandbox.create(on_timeout="pause", **login) as asleep:
        asleep.pause()
        with pytest.raises(SandboxError, match="409"):
            asleep.commands.run("true", on_stdout=out)
    Sandbox.kill_by_id(sandbox.id, **login)
    with pytest.raises(SandboxError, match="404"):
        sandbox.commands.run("true", on_stdout=out)


def test_a_handle_of_a_background_command(sandbox: Sandbox) -> None:
    """Without callbacks: input, iteration, kill, wait, and what the list says."""
    handle = sandbox.commands.run("cat; echo end", shell=True, background=True)
    sandbox.commands.send_stdin(handle.pid, "h\xe9\n")
    chunks = iter(handle)
    assert next(chunks) == ("h\xe9\n", None, None)
    with pytest.raises(TimeoutError):
        handle.wait(timeout=0.01)
    assert [(p.pid, p.running) for p in sandbox.commands.list()] == [(handle.pid, True)]
    handle.kill()
    assert not sandbox.commands.list()[0].running
    done = handle.wait()
    assert (done.exit_code, done.stdout, done.pid) == (137, "h\xe9\n", handle.pid)
    assert list(chunks) == []
    assert handle.get_logs().exit_code == 137
    with pytest.raises(SandboxError) as refused:
        sandbox.commands.send_stdin(handle.pid, "late")
    assert refused.value.code == "stdin_closed"
    with pytest.raises(NotFoundError):
        sandbox.commands.send_stdin(1, "x")


def test_a_live_handle(sandbox: Sandbox) -> None:
    """With callbacks: heard while it runs, left, found again without a gap, ended, waited for."""
    out, err, again = Ears(), Ears(), Ears()
    line = "echo ready; while read word; do echo $word; echo $word >&2; done"
    handle = sandbox.commands.run(
        line, shell=True, background=True, on_stdout=out, on_stderr=err, timeout=600
    )
    out.hears("ready\n")
    sandbox.commands.send_stdin(handle.pid, "one\n")
    out.hears("one\n")
    err.hears("one\n")
    handle.disconnect()
    sandbox.commands.send_stdin(handle.pid, "two\n")
    found = sandbox.commands.connect(handle.pid, on_stdout=again)
    sandbox.commands.send_stdin(handle.pid, "three\n")
    again.hears("ready\none\ntwo\nthree\n")
    sandbox.pause()
    sandbox.commands.send_stdin(handle.pid, "four\n")
    again.hears("four\n")
    found.kill()
    for one in (found, handle):
        done = one.wait(timeout=30)
        assert (done.exit_code, done.stdout) == (137, "ready\none\ntwo\nthree\nfour\n")
        assert done.stderr == "one\ntwo\nthree\nfour\n"
    ended = sandbox.commands.connect(handle.pid)
    assert ended.wait().stdout == done.stdout


def test_a_live_handle_whose_end_comes_from_outside(login: Login, sandbox: Sandbox) -> None:
    """Its own time limit ends it; the end of the sandbox is an error for whoever waits."""
    out = Ears()
    limited = sandbox.commands.run("sleep", ["600"], background=True, on_stdout=out, timeout=1)
    assert limited.wait(timeout=30).exit_code == 137
    orphan = sandbox.commands.run("sleep", ["600"], background=True, on_stdout=out)
    Sandbox.kill_by_id(sandbox.id, **login)
    with pytest.raises(NotFoundError):
        orphan.wait(timeout=30)


def test_code_and_what_is_not_offered(sandbox: Sandbox) -> None:
    """Snippets run in the language named; terminals and kernels are the client's own exception."""
    assert sandbox.process.code_run("echo $((6 * 7))", language="bash").stdout == "42\n"
    for call in (
        sandbox.pty.create_session,
        lambda: sandbox.pty.connect(pid=1),
        sandbox.pty.list_sessions,
        sandbox.code_interpreter.create_code_context,
    ):
        with pytest.raises(NotOffered):
            call()


async def test_streaming_async(remote: AsyncSandbox) -> None:
    """The same as above: streams, errors, and many at once that share one resume."""
    out, err = Ears(), Ears()
    line = "printf 'h\\303'; sleep 0.1; printf '\\251\\n'; echo err >&2; exit 3"
    ran = await remote.commands.run(line, shell=True, on_stdout=out, on_stderr=err)
    assert (ran.exit_code, ran.stdout, ran.stderr) == (3, "h\xe9\n", "err\n")
    assert (out.text, err.text) == (ran.stdout, ran.stderr)
    long = await remote.commands.run_streaming("head", ["-c", "5000000", "/dev/zero"])
    assert long.stdout == "\0" * 5_000_000
    with pytest.raises(RuntimeError, match="within 1 seconds"):
        await remote.commands.run("sleep", ["600"], timeout=1, on_stdout=out)
    with pytest.raises(RuntimeError, match="No such file"):
        await remote.commands.run("no-such-program", on_stdout=out)
    await remote.pause()
    runs = [remote.commands.run("echo", [str(n)], on_stdout=out) for n in range(20)]
    assert [ran.stdout for ran in await asyncio.gather(*runs)] == [f"{n}\n" for n in range(20)]
    page = await remote.list_lifecycle(operation="resume_from_snapshot")
    assert len(page.events) == 1


async def test_handles_async(remote: AsyncSandbox) -> None:
    """Background with and without callbacks: input, iteration, leaving, finding, killing, waiting."""
    plain = await remote.commands.run("cat; echo end", shell=True, background=True)
    await remote.commands.send_stdin(plain.pid, "x\n")
    async for chunk in plain:
        assert chunk == ("x\n", None, None)
        await plain.kill()
    assert (await plain.wait()).exit_code == 137
    out, again = Ears(), Ears()
    live = await remote.commands.run("cat", background=True, on_stdout=out, timeout=600)
    await remote.commands.send_stdin(live.pid, "one\n")
    await out.will_hear("one\n")
    await live.disconnect()
    await remote.commands.send_stdin(live.pid, "two\n")
    found = await remote.commands.connect(live.pid, on_stdout=again)
    await again.will_hear("one\ntwo\n")
    assert [p.pid for p in await remote.commands.list() if p.running] == [live.pid]
    await found.kill()
    for one in (found, live):
        done = await one.wait(timeout=30)
        assert (done.exit_code, done.stdout) == (137, "one\ntwo\n")
    assert (await remote.commands.get_logs(live.pid)).exit_code == 137
    with pytest.raises(NotOffered):
        await remote.pty.create_session()
