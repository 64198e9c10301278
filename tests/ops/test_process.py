"""What all processes share: signals, ties to the parent, and one sentence for a port that is taken."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from edge.ops.process import StartError, Stop, cannot_listen, new_loop, run, say


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (*Stop.SIGNALS, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def refusal(address: tuple[str, int]) -> str:
    """The sentence for what the kernel says about listening there."""
    with socket.socket() as probe, pytest.raises(OSError) as caught:
        probe.bind(address)
    return str(cannot_listen("listen.port", *address, caught.value))


def test_a_taken_port_is_told_with_a_way_out() -> None:
    """The setting, the address and what to do about it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        assert refusal(address) == (
            f"listen.port: 127.0.0.1:{address[1]} is in use; stop what listens there, or choose another "
            "port (0 takes a free one)"
        )


def test_an_address_of_another_machine() -> None:
    """192.0.2.0/24 is nobody's (RFC 5737)."""
    assert refusal(("192.0.2.1", 0)) == (
        "listen.port: 192.0.2.1:0 is not an address of this machine; choose one that is, such as 127.0.0.1"
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EACCES, "Permission denied"), "choose a port above 1023"),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known; choose"),
        (OSError("odd"), "odd; choose another address"),
    ],
)
def test_other_reasons_are_told_in_one_line_too(error: OSError, said: str) -> None:
    """Root may listen anywhere and resolvers differ, so these come as the errors they are."""
    told = cannot_listen("--edge-port", "host", 80, error)
    assert isinstance(told, StartError) and said in str(told) and "\n" not in str(told)


async def test_the_first_signal_asks_and_the_second_insists() -> None:
    """Either signal counts, in any order."""
    insisted: list[int] = []
    stop = Stop(lambda: insisted.append(1))
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.wait_for(stop.asked.wait(), 5)
    assert not insisted and not stop.orphaned
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(5):
        while not insisted:  # noqa: ASYNC110 - a signal has no event of its own
            await asyncio.sleep(0)


async def test_without_insisting_the_second_signal_has_its_default_effect() -> None:
    """The process would end at once: nothing stands between the signal and the kernel any more."""
    stop = Stop()
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(stop.asked.wait(), 5)
    assert [signal.getsignal(number) for number in Stop.SIGNALS] == [signal.SIG_DFL] * 2


async def test_a_hangup_is_an_order_and_no_end() -> None:
    """Each SIGHUP calls, and nothing stops."""
    heard = asyncio.Event()
    stop = Stop()
    stop.on_hangup(heard.set)
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.wait_for(heard.wait(), 5)
        heard.clear()
    assert not stop.asked.is_set()


async def test_a_start_is_broken_off() -> None:
    """It is cancelled in the middle, tidies up, and whoever waits for it knows."""
    begun, tidied = asyncio.Event(), asyncio.Event()

    async def start() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            tidied.set()

    stop = Stop()
    async with asyncio.TaskGroup() as group:
        spared = group.create_task(stop.permits(start()))
        await begun.wait()
        os.kill(os.getpid(), signal.SIGTERM)
    assert not spared.result() and tidied.is_set()


async def test_a_start_that_comes_too_late_is_none() -> None:
    """Asked to stop before it began; one that is not asked runs to its end, and its errors are its own."""
    stop = Stop()
    assert await stop.permits(asyncio.sleep(0))
    with pytest.raises(TimeoutError, match="mine"):
        await stop.permits(_late())
    stop.asked.set()
    assert not await stop.permits(asyncio.Event().wait())


async def _late() -> None:
    raise TimeoutError("mine")


TIED = """
import asyncio
from edge.ops.process import Stop, run
async def main():
    stop = Stop()
    await stop.tie_to_stdin()
    print("tied", flush=True)
    await stop.asked.wait()
    return 7 if stop.orphaned else 1
raise SystemExit(run(main()))
"""


def test_the_end_of_standard_input_is_a_wish_to_stop() -> None:
    """A parent that dies, however it dies, closes the pipe; and `run` gives the status."""
    with subprocess.Popen(
        [sys.executable, "-c", TIED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == b"tied\n"
        assert child.poll() is None
        child.stdin.close()
        assert child.wait(20) == 7


def test_the_production_loop_runs_the_main_coroutine() -> None:
    """Whatever loop production uses is the one that runs."""

    async def main() -> int:
        return int(type(asyncio.get_running_loop()) is type(made))

    made = new_loop()
    made.close()
    assert run(main()) == 1


def test_what_is_said_is_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Parents read line by line."""
    say("listening", port=1, text="a\nb")
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert json.loads(line) == {"event": "listening", "port": 1, "text": "a\nb"}
