"""slowhttptest against the edge: slow heads, bodies and readers hurt nobody who is not slow."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE

import pytest

from edge.traffic.listener import ClientConnection
from tests.flows.conftest import make_stage
from tests.flows.scriptedapp import AppConnection
from tests.flows.stage import MakeStage, until
from tests.traffic.dialogue import canary, idle

__all__ = ["make_stage"]

CONNECTIONS = 40
SHORT = {"header": 1.0, "idle": 1.0, "body_stall": 1.0, "first_byte": 2.0, "linger": 0.5}
LARGE = b"x" * (8 << 20)
READ = 256 << 10
"""Bytes that a loop reads at most in one go."""


def held_for(client: ClientConnection) -> int:
    """Bytes that the edge holds for a client, of its requests and of answers to it."""
    return client.transport.get_write_buffer_size() + len(client._buffer)


async def large(connection: AppConnection) -> None:
    """Answer a small page to small requests and eight megabytes to the rest."""
    while head := await connection.read_head():
        await connection.read_body(head)
        if b" /large" in head.split(b"\r\n", 1)[0]:
            await connection.answer(LARGE)
        else:
            await connection.answer(head.split(b"\r\n", 1)[0] + b"\n")


@pytest.mark.needs_tool("slowhttptest")
@pytest.mark.parametrize(
    ("mode", "path", "passed"),
    [
        (("-H", "-i", "1"), "/", "header"),
        (("-B", "-i", "2", "-s", "8192"), "/", "body_stall"),
        (("-X", "-w", "256", "-y", "512", "-n", "3", "-z", "32"), "/large", "body_stall"),
        (("-R", "-a", "5", "-b", "500"), "/", ""),
    ],
    ids=["slow heads", "slow bodies", "slow readers", "many ranges"],
)
async def test_the_slow_end_and_the_healthy_do_not_notice(
    make_stage: MakeStage, mode: tuple[str, ...], path: str, passed: str
) -> None:
    """Every healthy answer is right, little is held for a slow one, and nothing of theirs remains."""
    stage = await make_stage(deadlines=SHORT)
    box = stage.sandbox(await stage.app(large))
    url = f"http://{box.host}{path}?edge_token={box.token()}"
    many = str(CONNECTIONS)
    attack = await asyncio.create_subprocess_exec(
        "slowhttptest", *mode, "-c", many, "-r", many, "-l", "3", "-p", "3", "-u", url,
        "-d", f"127.0.0.1:{stage.edge.port}", stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    ended = asyncio.ensure_future(attack.communicate())
    healthy, most, kept = 0, 0, 0
    while not ended.done():
        async with await stage.client() as client:
            await canary(client, box)
        healthy += 1
        most = max(most, len(stage.edge.connections))
        kept = max(kept, *map(held_for, stage.edge.connections), 0)
    said = (await ended)[0].decode(errors="replace")
    assert healthy > 2
    await until(lambda: idle(stage) and not stage.edge.connections)
    assert kept <= READ + stage.edge.settings.limits.buffer_bytes
    if passed:  # (a server that answers ranges at once is left alone by the tool)
        assert most > CONNECTIONS // 2, said[-2000:]
        # The edge ended them, and not the tool that gave up.
        assert stage.edge.flow.passed[f"deadlines.{passed}"] > CONNECTIONS // 2, said[-2000:]
