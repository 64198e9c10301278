"""Sandboxes with networks of their own, and the doors that lead into them."""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from families import until

from edge.appliance.runtime import Command, Runtime, SupervisorLost
from edge.appliance.runtime import doors as module

pytestmark = pytest.mark.needs_tool("netns")

APP = """
import asyncio, os, sys
NAME, PORT = sys.argv[1], int(sys.argv[2])
HOST = sys.argv[3] if len(sys.argv) > 3 else "127.0.0.1"

async def serve(reader, writer):
    # Until the end of what comes: everything back, then who answered, then the end.
    while data := await reader.read(65536):
        if data == b"quit":
            os._exit(0)
        writer.write(data)
        await writer.drain()
    writer.write(NAME.encode())
    writer.close()

async def main():
    async with await asyncio.start_server(serve, HOST, PORT) as server:
        await server.serve_forever()

asyncio.run(main())
"""


@pytest.fixture
async def isolated(tmp_path: Path) -> AsyncIterator[Runtime]:
    """A runtime with two sandboxes, ``a`` and ``b``, each of which has the app as a file."""
    runtime = Runtime(tmp_path / "sandboxes", isolated=True)
    await runtime.start()
    for name in ("a", "b"):
        await runtime.create(name, envs={}, cwd=None)
        (tmp_path / "sandboxes" / name / "workspace" / "app.py").write_text(APP)
    yield runtime
    await runtime.close()


async def _app(runtime: Runtime, name: str, port: int, *more: str) -> int:
    """Start the app; its pid."""
    argv = [sys.executable, "-S", "app.py", name, str(port), *more]
    return await runtime.spawn(name, Command(argv=argv))


def _open(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


async def _say(port: int, data: bytes) -> bytes:
    """Send, end, and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


async def test_two_apps_on_one_port(isolated: Runtime) -> None:
    """Each is reached by its own door; neither sees the other, nor this machine's ports; doors keep their number."""
    doors = {name: isolated.publish(name, 8080) for name in ("a", "b")}
    assert doors["a"] != doors["b"] and isolated.publish("a", 8080) == doors["a"]
    for name, door in doors.items():
        assert not _open(door)
        await _app(isolated, name, 8080)
        await until(lambda door=door: _open(door))
        assert await _say(door, b"hello ") == b"hello " + name.encode()
    with socket.create_server(("127.0.0.1", 0)) as host:
        port = host.getsockname()[1]
        look = f"import socket; print(socket.socket().connect_ex(('127.0.0.1', {port})))"
        ran = await isolated.exec("a", Command(argv=[sys.executable, "-c", look]))
        assert ran.stdout == b"111\n"
        table = (await isolated.exec("a", Command(argv=["cat", "/proc/net/tcp"]))).stdout.decode()
        assert f":{8080:04X}" in table and f":{port:04X}" not in table


async def test_an_app_on_ipv6_only(isolated: Runtime) -> None:
    """Whoever listens on the other loopback is reached, too."""
    door = isolated.publish("a", 8080)
    await _app(isolated, "a", 8080, "::1")
    await until(lambda: _open(door))
    assert await _say(door, b"") == b"a"


async def test_a_door_is_closed_while_nobody_listens(isolated: Runtime) -> None:
    """Refused before the app, open with it, and refused after it; again and again, at one number."""
    door = isolated.publish("a", 8080)
    for _ in range(2):
        assert not _open(door)
        await _app(isolated, "a", 8080)
        await until(lambda: _open(door))
        _, writer = await asyncio.open_connection("127.0.0.1", door)
        writer.write(b"quit")
        await until(lambda: not _open(door))
        writer.close()


async def test_a_closed_door_is_nobody_elses(isolated: Runtime) -> None:
    """Not before the app, nor after it, while a connection is open: a program that asks for the port does not get it."""

    def take(door: int, address: str) -> None:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind((address, door))

    door = isolated.publish("a", 8080)
    for _ in range(2):
        for address in ("127.0.0.1", "0.0.0.0"):
            with pytest.raises(OSError, match="in use"):
                take(door, address)
        await _app(isolated, "a", 8080)
        await until(lambda: _open(door))
        _, writer = await asyncio.open_connection("127.0.0.1", door)
        writer.write(b"quit")
        await until(lambda: not _open(door))
        writer.close()


async def _ended_unseen(
    isolated: Runtime, monkeypatch: pytest.MonkeyPatch, *, patience: float
) -> tuple[int, asyncio.StreamWriter]:
    """A door whose app has ended, with nobody to look any more; and the connection it was told by."""
    door = isolated.publish("a", 8080)
    await _app(isolated, "a", 8080)
    await until(lambda: _open(door))
    monkeypatch.setattr(module, "PATIENCE", patience)
    monkeypatch.setattr(module, "QUICK", 3600.0)
    # The look that is due comes yet; from then on there is none.
    await asyncio.sleep(2 * module.SLOW)
    _, writer = await asyncio.open_connection("127.0.0.1", door)
    writer.write(b"quit")
    await until(lambda: not isolated.processes("a")[0].running)
    return door, writer


async def test_who_comes_while_an_app_restarts_waits(
    isolated: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has looked since it ended: the door is open still, and who is let in meets the next one."""
    door, writer = await _ended_unseen(isolated, monkeypatch, patience=30.0)
    early = asyncio.create_task(_say(door, b"early "))
    await _app(isolated, "a", 8080)
    assert await early == b"early a"
    writer.close()


async def test_who_comes_after_an_app_is_told_so(
    isolated: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Let in by a door that nobody has shut yet: a reset when the patience is over, and then the door is shut."""
    door, writer = await _ended_unseen(isolated, monkeypatch, patience=0.0)
    with pytest.raises(ConnectionResetError):
        await _say(door, b"late")
    assert not _open(door)
    writer.close()


async def test_bytes_and_ends_pass_as_they_are(isolated: Runtime) -> None:
    """Megabytes both ways at the reader's pace, half-closed, and a reset is a reset."""
    door = isolated.publish("a", 8080)
    await _app(isolated, "a", 8080)
    await until(lambda: _open(door))
    data = bytes(range(256)) * 40_000
    assert await _say(door, data) == data + b"a"
    # Nobody reads: what is sent piles up in the kernels, not here.
    reader, writer = await asyncio.open_connection("127.0.0.1", door, limit=1024)
    sent = 0
    try:
        while sent < 1 << 28:
            writer.write(data[: 1 << 16])
            async with asyncio.timeout(0.5):
                await writer.drain()
            sent += 1 << 16
    except TimeoutError:
        pass
    assert sent < 1 << 27, "it was taken without being read"
    reset = writer.get_extra_info("socket")
    reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    del reader
    # The app has heard of it, and serves on.
    assert await _say(door, b"") == b"a"


async def test_a_frozen_app_listens_and_answers_later(isolated: Runtime) -> None:
    """As without a door: connections are accepted, and answered after the thaw; an end makes its ports refuse."""
    door = isolated.publish("a", 8080)
    await _app(isolated, "a", 8080)
    await until(lambda: _open(door))
    await isolated.freeze("a")
    waiting = asyncio.create_task(_say(door, b"z"))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await isolated.thaw("a")
    assert await waiting == b"za"
    usage = await isolated.usage("a")
    assert usage.network is not None and min(usage.network) > 0
    assert (await isolated.usage("b")).network is None
    await isolated.destroy("a")
    assert not _open(door)


async def test_a_lost_supervisor_shuts_the_doors(isolated: Runtime) -> None:
    """Its network ends with it; the next command gets another one, behind the same door."""
    door = isolated.publish("a", 8080)
    await _app(isolated, "a", 8080)
    await until(lambda: _open(door))
    with suppress(SupervisorLost):  # It may have been told that it runs.
        ran = await isolated.exec("a", Command(shell="kill -9 $PPID; sleep 60"))
        assert ran.exit_code == 137
    assert not _open(door)
    await _app(isolated, "a", 8080)
    await until(lambda: _open(door))
    assert await _say(door, b"") == b"a"
