"""Endings: a changed record ends what rests on it, and nothing else."""

from __future__ import annotations

import pytest

from edge.core.records import GrantStatus, State
from tests.flows.scriptedapp import AppConnection
from tests.flows.stage import Preview, Stage, until
from tests.traffic.dialogue import canary_of_its_own, ended_so, first, idle


async def endless(connection: AppConnection, _: bytes) -> None:
    """Begin an answer, and never end it."""
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegun")
    await connection.read_to_end()


async def streams(stage: Stage, count: int) -> tuple[Preview, list]:  # type: ignore[type-arg]
    """So many answers under way in one sandbox, each under a grant of its own."""
    box = stage.sandbox(await stage.app(first(*[endless] * count)))
    clients, boxes = [], [box, *(stage.preview(box.id, box.port) for _ in range(count - 1))]
    for one in boxes:
        client = await stage.client()
        await client.send(one.get("/"))
        clients.append((one, client))
    await until(lambda: sum(x.status == 200 for x in stage.edge.flow.active()) == count)
    return box, clients


@pytest.mark.parametrize("status", [GrantStatus.REVOKED, GrantStatus.DISABLED])
async def test_a_grant_ends_its_own_streams_only(stage: Stage, status: GrantStatus) -> None:
    """The other grant's answer of the same sandbox goes on."""
    _, ((ending, lost), (_, kept)) = await streams(stage, 2)
    stage.plane.change_grant(ending.grant, status=status)
    await ended_so(stage, "2xx", "", "grant_ended")
    assert len(list(stage.edge.flow.active())) == 1
    lost.close()
    kept.reset()
    await until(lambda: idle(stage))


@pytest.mark.parametrize("state", [State.PAUSED, State.DESTROYED, State.ERROR])
async def test_a_sandbox_that_stops_running_ends_all_its_streams(
    stage: Stage, state: State
) -> None:
    """Truncated, as they are; another sandbox is not touched."""
    box, clients = await streams(stage, 2)
    other = stage.sandbox(await stage.app())
    stage.plane.change_sandbox(box.id, state=state, upstream=None)
    await ended_so(stage, "2xx", "", "sandbox_left_running", times=2)
    await canary_of_its_own(stage, other)
    for _, client in clients:
        client.close()
    assert idle(stage)


async def test_pausing_ends_nothing(stage: Stage) -> None:
    """A pause for inactivity waits for what is under way (contract: wake)."""
    box, clients = await streams(stage, 1)
    stage.plane.change_sandbox(box.id, state=State.PAUSING)
    await stage.plane.until(lambda: bool(stage.plane.acks))
    assert [ack.in_flight for ack in stage.plane.acks] == [1]
    assert len(list(stage.edge.flow.active())) == 1
    clients[0][1].reset()
    await until(lambda: idle(stage))
