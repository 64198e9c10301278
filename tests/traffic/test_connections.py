"""All connections: who is let in, who is trusted, whose deadlines pass, and that nobody is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from edge.core.settings import Settings
from edge.traffic.connections import Connections
from tests.flows.stage import MakeStage, Stage, until
from tests.traffic.dialogue import Clock, canary


@pytest.mark.parametrize(
    ("address", "trusted"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("2001:db8::1", True),
        ("2001:db8::1%eth0", True),
        ("11.1.2.3", False),
        ("::ffff:11.1.2.3", False),
        ("2001:db9::1", False),
        ("unix", False),
        ("", False),
    ],
)
async def test_trust_is_by_network(stage: Stage, address: str, trusted: bool) -> None:
    """Mapped and scoped addresses, too; what is no address is nobody's. The same when asked again."""
    networks = Settings.model_validate(
        stage.settings().model_dump(exclude={"trusted_proxies"})
        | {"trusted_proxies": ["10.0.0.0/8", "2001:db8::/32"]}
        | {
            "control_plane": {"token": "x" * 32},
            "cookie": {"keys": [{"kid": "a", "secret": "y" * 32}]},
        }
    ).trusted_proxies
    connections = Connections(stage.edge.flow, networks)
    assert connections.trusts(address) is trusted
    assert connections.trusts(address) is trusted
    assert not Connections(stage.edge.flow, ()).trusts(address)


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
    passed = stage.edge.connections.passed
    assert passed[f"deadlines.{setting}"] == 1


async def test_many_requests_in_one_read_let_others_have_a_turn(make_stage: MakeStage) -> None:
    """A thousand refused ones: somebody else's answer comes between them, and all come in order."""
    stage = await make_stage(limits={"pipelined": 8})
    box = stage.sandbox(await stage.app())
    async with await stage.client() as other, await stage.client() as client:
        await canary(other, box)
        one = b"GET /%d HTTP/1.1\r\nHost: nobody.example\r\n\r\n"
        turns = 0
        loop = asyncio.get_running_loop()

        def turn() -> None:
            nonlocal turns
            turns += 1
            loop.call_soon(turn) if reading else None

        reading = True
        loop.call_soon(turn)
        await client.send(b"".join(one % number for number in range(400)))
        before = turns
        answers = [await client.answer() for _ in range(400)]
        reading = False
        assert {answer.code for answer in answers} == {"preview_host_unknown"}
        ids = [answer.values("x-request-id")[0] for answer in answers]
        assert ids == sorted(ids, key=lambda name: int(name.rpartition("-")[2], 16))
        assert turns - before >= 400 // 8
        await canary(other, box)
        await canary(client, box)
