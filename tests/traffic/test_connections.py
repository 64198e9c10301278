"""All connections: who is let in, whose deadlines pass, and that nobody is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from tests.flows.stage import MakeStage, Stage, until
from tests.traffic.dialogue import Clock, canary

REFUSED = b"GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n"
READ = 256 << 10
"""Bytes that a loop reads at most in one go."""


async def test_connections_come_and_go(stage: Stage) -> None:
    """Each is counted once while it is there."""
    clients = [await stage.client() for _ in range(3)]
    await until(lambda: len(stage.edge.connections) == 3)
    assert stage.edge.admission.counts()["connections"] == 3
    clients[0].close()
    clients[1].reset()
    await until(lambda: len(stage.edge.connections) == 1)
    assert stage.edge.admission.counts()["connections"] == 1
    clients[2].close()
    await until(lambda: not stage.edge.connections)


@pytest.mark.parametrize(
    ("sent", "setting"),
    [(b"", "header"), (b"GET / HT", "header")],
)
async def test_deadlines_that_pass_are_counted(
    make_stage: MakeStage, sent: bytes, setting: str
) -> None:
    """By the setting they come from; the metric shows them."""
    clock = Clock()
    stage = await make_stage(clock=clock)
    async with await stage.client() as client:
        await until(lambda: len(stage.edge.connections) == 1)
        await client.send(sent)
        await clock.run(lambda: not stage.edge.connections, 1.0)
    passed = stage.edge.flow.passed
    assert passed[f"deadlines.{setting}"] == 1


async def test_many_requests_in_one_read_let_others_have_a_turn(make_stage: MakeStage) -> None:
    """A thousand refused ones: somebody else's exchange begins and ends between them; all come in order."""
    stage = await make_stage(limits={"pipelined": 8})
    box = stage.sandbox(await stage.app())
    async with await stage.client() as other, await stage.client() as client:
        await canary(other, box)
        await until(lambda: len(stage.edge.connections) == 2)
        (flood,) = [one for one in stage.edge.connections if not one.requests]
        client.writer.write(REFUSED * 1000)
        await until(lambda: flood.requests > 0)
        await canary(other, box)
        assert flood.requests < 1000
        answers = [await client.answer() for _ in range(1000)]
        assert {answer.code for answer in answers} == {"preview_host_unknown"}
        ids = [answer.values("x-request-id")[0] for answer in answers]
        assert ids == sorted(ids, key=lambda name: int(name.rpartition("-")[2], 16))
        assert flood.requests == 1000
        await canary(client, box)


async def test_without_a_limit_all_start_in_one_go(make_stage: MakeStage) -> None:
    """``limits.pipelined`` 0: what came in one read is answered before anybody else's turn."""
    stage = await make_stage(limits={"pipelined": 0, "buffer_bytes": 1 << 20})
    async with await stage.client() as client:
        await until(lambda: len(stage.edge.connections) == 1)
        (flood,) = stage.edge.connections
        client.writer.write(REFUSED * 200)
        await until(lambda: flood.requests > 0)
        assert flood.requests == 200


async def test_requests_that_wait_for_their_turn_are_bounded(make_stage: MakeStage) -> None:
    """Four megabytes of refused ones: no more lies here than one read beyond ``wake.held_bytes``."""
    stage = await make_stage(limits={"pipelined": 1})
    big = REFUSED[:-2] + b"X: " + b"x" * 1000 + b"\r\n\r\n"
    async with await stage.client() as client:
        await until(lambda: len(stage.edge.connections) == 1)
        (flood,) = stage.edge.connections
        sending = asyncio.ensure_future(client.send(big * 4000))
        most = 0
        for number in range(1, 4001):
            assert (await client.answer()).code == "preview_host_unknown"
            most = max(most, len(flood._buffer))
            assert flood.requests >= number
        await sending
        assert len(big) < most <= READ + stage.edge.settings.wake.held_bytes
