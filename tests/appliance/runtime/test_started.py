"""Commands that somebody follows: from the first byte to the end, whoever comes and goes, and in time."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from families import LINUX, alive, open_descriptors, until
from virtual import VirtualLoop, run

from edge.appliance.runtime import (
    Command,
    ExecTimeout,
    InputClosed,
    NoSuchProcess,
    NoSuchSandbox,
    Runtime,
    RuntimeFault,
    Stream,
    SupervisorLost,
)
from edge.appliance.runtime.link import Link
from edge.appliance.runtime.listener import FULL_BYTES, Listener
from edge.appliance.runtime.sandbox import Sandbox
from edge.appliance.runtime.started import TimeLimit


async def heard(stream: Stream) -> tuple[bytes, bytes]:
    """All of both streams, to the end."""
    got = [b"", b""]
    while (piece := await stream.take()) is not None:
        got[piece[0]] += piece[1]
    return got[0], got[1]


def late_answer(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """The next answer of a supervisor is known only after this."""
    tell, go_on = Link.tell, asyncio.Event()

    def late(self: Link, *args: Any, **what: Any) -> asyncio.Future[object]:
        monkeypatch.setattr(Link, "tell", tell)
        answer = tell(self, *args, **what)

        async def later() -> object:
            await go_on.wait()
            return await answer

        return asyncio.ensure_future(later())

    monkeypatch.setattr(Link, "tell", late)
    return go_on


def listeners(sandbox: Sandbox) -> list[Listener]:
    """Of all its commands."""
    return [one for command in sandbox._roll._open for one in command.output._listeners]


def test_a_time_limit_counts_only_while_it_runs() -> None:
    """What is left stays left while it stands still; going on twice changes nothing; None never ends."""

    async def script(loop: VirtualLoop) -> None:
        over: list[float] = []
        limit = TimeLimit(10, lambda: over.append(loop.time()))
        limit.stop()
        start = loop.time()
        limit.go()
        limit.go()
        await asyncio.sleep(6)
        limit.stop()
        limit.stop()
        await asyncio.sleep(1000)
        assert over == []
        limit.go()
        await asyncio.sleep(3)
        assert over == []
        await asyncio.sleep(2)
        assert over == [start + 1010]
        limit.stop()
        never = TimeLimit(None, lambda: over.append(0))
        never.go()
        await asyncio.sleep(10**6)
        never.stop()
        assert len(over) == 1

    run(script)


async def test_a_stream_tells_everything_and_the_code(runtime: Runtime, sandbox: str) -> None:
    """Any bytes of both streams, whole, far beyond what is kept; the command is listed afterwards."""
    line = r"printf '\377\000\303'; head -c 5000000 /dev/zero; printf 'err\303' >&2; exit 7"
    stream = await runtime.stream(sandbox, Command(shell=line))
    stdout, stderr = await heard(stream)
    assert stdout == b"\xff\0\xc3" + bytes(5_000_000)
    assert (stderr, stream.result()) == (b"err\xc3", 7)
    stream.close()
    (listed,) = runtime.processes(sandbox)
    assert (listed.pid, listed.running, listed.exit_code) == (stream.pid, False, 7)


async def test_nothing_is_lost_before_it_is_known_that_the_command_runs(
    runtime: Runtime, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that writes megabytes while its pid is still on the way is held up, as by any slow reader."""
    go_on, its = late_answer(monkeypatch), runtime._sandboxes[sandbox]
    line = "head -c 5000000 /dev/zero; touch done"
    streaming = asyncio.ensure_future(runtime.stream(sandbox, Command(shell=line)))
    await until(lambda: any(one.full for one in listeners(its)))
    await runtime.exec(sandbox, Command(argv=["true"]))  # time enough to get further
    assert not (its.tree.root / "done").exists()
    go_on.set()
    stdout, _ = await heard(stream := await streaming)
    assert len(stdout) == 5_000_000
    stream.close()


async def test_a_stream_that_does_not_begin_leaves_nothing_open(
    runtime: Runtime, sandbox: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asked is gone before the pid is known: the command ends, however much it has written."""
    late_answer(monkeypatch)
    its = runtime._sandboxes[sandbox]
    streaming = asyncio.ensure_future(runtime.stream(sandbox, Command(argv=["yes"])))
    await until(lambda: any(one.full for one in listeners(its)))
    streaming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await streaming
    await until(lambda: not its._roll._open[0].output.reading)


async def test_a_slow_reader_holds_the_command_up_and_nobody_else_does(
    runtime: Runtime, sandbox: str
) -> None:
    """It waits in its write while nothing is taken, loses nothing, and goes on when the reader leaves."""
    line = "head -c 3000000 /dev/zero; touch written; head -c 3000000 /dev/zero; touch done"
    tree = runtime._sandboxes[sandbox].tree.root
    stream = await runtime.stream(sandbox, Command(shell=line))
    await until(lambda: stream._listener.full)
    # Another command runs from beginning to end: time enough for the first to get further, if it could.
    await runtime.exec(sandbox, Command(argv=["true"]))
    assert not (tree / "written").exists()
    taken = 0
    while taken < 3_000_000:
        piece = await stream.take()
        assert piece is not None
        taken += len(piece[1])
    await until((tree / "written").exists)
    assert not (tree / "done").exists()
    stream.close()
    await until((tree / "done").exists)


async def test_the_end_comes_after_the_last_of_the_output(runtime: Runtime, sandbox: str) -> None:
    """Also when reading stood still because the reader took nothing: the rest of the pipe is not lost."""
    line = f"head -c {FULL_BYTES + 40_000} /dev/zero; printf end >&2"
    stream = await runtime.stream(sandbox, Command(shell=line))
    await until(lambda: runtime.logs(sandbox, stream.pid).exit_code is not None)
    stdout, stderr = await heard(stream)
    assert (len(stdout), stderr) == (FULL_BYTES + 40_000, b"end")


async def test_readers_come_and_go(runtime: Runtime, sandbox: str) -> None:
    """Each hears all that is kept and all that comes, also after the end; the command does not care."""
    first = await runtime.stream(sandbox, Command(shell="read a; echo $a; read b; echo $b >&2"))
    second = runtime.attach(sandbox, first.pid)
    runtime.write_stdin(sandbox, first.pid, b"one\n")
    assert await first.take() == await second.take() == (0, b"one\n")
    first.close()
    first.close()
    third = runtime.attach(sandbox, first.pid)
    runtime.write_stdin(sandbox, first.pid, b"two\n")
    assert await heard(third) == (b"one\n", b"two\n")
    assert await heard(second) == (b"", b"two\n")
    late = runtime.attach(sandbox, first.pid)
    assert await heard(late) == (b"one\n", b"two\n")
    assert [one.result() for one in (second, third, late)] == [0, 0, 0]
    with pytest.raises(NoSuchProcess):
        runtime.attach(sandbox, 1)


async def test_input_of_those_who_read_and_of_those_who_do_not(
    runtime: Runtime, sandbox: str
) -> None:
    """Background commands read what is sent; foreground ones have none; an ended one takes none."""
    pid = await runtime.spawn(sandbox, Command(argv=["cat"]))
    runtime.write_stdin(sandbox, pid, b"a\0\xff")
    await until(lambda: runtime.logs(sandbox, pid).stdout == b"a\0\xff")
    foreground = asyncio.create_task(runtime.exec(sandbox, Command(shell="cat; exec sleep 966")))
    await until(lambda: len(runtime.processes(sandbox)) == 2 and runtime.processes(sandbox)[1].pid)
    with pytest.raises(InputClosed):
        runtime.write_stdin(sandbox, runtime.processes(sandbox)[1].pid, b"x")
    await runtime.kill(sandbox, runtime.processes(sandbox)[1].pid)
    assert (await foreground).exit_code == 128 + signal.SIGKILL
    await runtime.kill(sandbox, pid)
    with pytest.raises(InputClosed):
        runtime.write_stdin(sandbox, pid, b"x")
    with pytest.raises(NoSuchProcess):
        runtime.write_stdin(sandbox, 1, b"x")


@LINUX
async def test_the_time_limit_of_a_stream_kills_all_that_was_started(
    runtime: Runtime, sandbox: str
) -> None:
    """Though nobody reads any more; every reader is told why, the list shows how it ended."""
    line = "echo said; setsid sleep 965 & echo $!; exec sleep 964"
    stream = await runtime.stream(sandbox, Command(shell=line, timeout_secs=1.5))
    other = runtime.attach(sandbox, stream.pid)
    stream.close()
    stdout, _ = await heard(other)
    with pytest.raises(ExecTimeout, match=r"within 1\.5 seconds"):
        other.result()
    said, child = stdout.split()
    assert said == b"said"
    await until(lambda: not alive(int(child)))
    assert runtime.logs(sandbox, stream.pid).exit_code == 128 + signal.SIGKILL


async def test_a_limit_stands_still_in_a_frozen_sandbox(runtime: Runtime, sandbox: str) -> None:
    """A freeze takes none of a command's time, and the stream goes on after the thaw."""
    stream = await runtime.stream(sandbox, Command(argv=["cat"], timeout_secs=1000))
    limit = runtime._sandboxes[sandbox]._roll._started[1].limit
    assert limit is not None and limit._timer is not None
    await runtime.freeze(sandbox)
    assert limit._timer is None
    runtime.write_stdin(sandbox, stream.pid, b"late")
    await runtime.thaw(sandbox)
    assert await stream.take() == (0, b"late")
    assert limit._timer is not None
    await runtime.kill(sandbox, stream.pid)
    assert await stream.take() is None
    assert stream.result() == 128 + signal.SIGKILL
    assert limit._timer is None


@LINUX
@pytest.mark.parametrize(
    ("way", "fault"), [("destroy", NoSuchSandbox), ("supervisor", SupervisorLost)]
)
async def test_an_end_from_outside_is_told(
    runtime: Runtime, sandbox: str, way: str, fault: type[RuntimeFault]
) -> None:
    """A stream never just stops: what was written comes, then why there is no more."""
    stream = await runtime.stream(sandbox, Command(shell="echo said; exec sleep 963"))
    await until(lambda: runtime.logs(sandbox, stream.pid).stdout)
    if way == "destroy":
        await runtime.destroy(sandbox)
    else:
        link = runtime._sandboxes[sandbox]._link
        assert link is not None
        os.kill(link.pid, signal.SIGKILL)
    assert await heard(stream) == (b"said\n", b"")
    with pytest.raises(fault):
        stream.result()
    stream.close()


@LINUX
async def test_nothing_stays_open(runtime: Runtime, sandbox: str) -> None:
    """Ended, refused and killed commands leave no descriptor in the control plane."""
    await runtime.exec(sandbox, Command(argv=["true"]))
    before = open_descriptors()
    for _ in range(5):
        stream = await runtime.stream(sandbox, Command(argv=["true"], timeout_secs=1000))
        await heard(stream)
        pid = await runtime.spawn(sandbox, Command(argv=["sleep", "962"]))
        await runtime.kill(sandbox, pid)
        with pytest.raises(RuntimeFault):
            await runtime.stream(sandbox, Command(argv=["no-such-program"]))
    await until(lambda: open_descriptors() == before)
