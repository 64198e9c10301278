"""The ledger: every exchange enters once and leaves once, and what it used is reported once."""

from __future__ import annotations

import asyncio

from tests.flows.stage import MakeStage, Stage, until
from tests.traffic.dialogue import first, held, idle, say


def used(stage: Stage, grant: str) -> dict[str, int]:
    """What was reported of a grant so far, in all batches."""
    items = [item for batch in stage.plane.usage for item in batch.items if item.grant_id == grant]
    names = ("requests", "websockets", "bytes_in", "bytes_out")
    return {name: sum(getattr(item, name) for item in items) for name in names}


async def test_a_request_is_counted_once_with_its_bytes(stage: Stage) -> None:
    """Bodies only, in both directions; the place is given back."""
    box = stage.sandbox(await stage.app())
    answer = await stage.ask(box.request("POST", "/", body=b"12345"))
    assert answer.status == 200
    await stage.plane.until(lambda: used(stage, box.grant)["requests"] == 1)
    assert used(stage, box.grant) == {
        "requests": 1,
        "websockets": 0,
        "bytes_in": 5,
        "bytes_out": len(answer.body),
    }
    assert idle(stage) and not list(stage.edge.flow.active())


async def test_a_long_answer_is_reported_while_it_goes_on(stage: Stage) -> None:
    """What was told before is not told again at the end."""
    release = asyncio.Event()

    async def slowly(connection, head):  # type: ignore[no-untyped-def]
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        await release.wait()
        await connection.send(b"def")

    box = stage.sandbox(await stage.app(first(slowly)))
    async with await stage.client() as client:
        await client.send(box.get("/"))
        await stage.plane.until(lambda: used(stage, box.grant)["bytes_out"] == 3)
        assert used(stage, box.grant)["requests"] == 1
        assert [exchange.status for exchange in stage.edge.flow.active()] == [200]
        release.set()
        assert (await client.answer()).body == b"abcdef"
    await stage.plane.until(lambda: used(stage, box.grant)["bytes_out"] == 6)
    assert used(stage, box.grant)["requests"] == 1


async def test_a_refused_upgrade_is_a_request_and_an_accepted_one_a_socket(stage: Stage) -> None:
    """What an upgrade counts as is known when it is answered."""
    refusal = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    switch = b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    box = stage.sandbox(await stage.app(first(say(refusal), say(switch))))
    assert (await stage.ask(box.upgrade("/"))).status == 403
    await stage.plane.until(lambda: used(stage, box.grant)["requests"] == 1)
    assert (await stage.ask(box.upgrade("/"))).status == 101
    await stage.plane.until(lambda: used(stage, box.grant)["websockets"] == 1)
    await until(lambda: idle(stage))
    assert used(stage, box.grant)["requests"] == 1


async def test_a_full_sandbox_takes_nobody_and_keeps_nobody(make_stage: MakeStage) -> None:
    """A refusal enters nothing that would have to leave."""
    stage, release = await make_stage(admission={"in_flight_per_sandbox": 1}), asyncio.Event()
    box = stage.sandbox(await stage.app(first(held(release))))
    async with await stage.client() as client:
        await client.send(box.get("/"))
        await until(lambda: stage.edge.admission.counts()["exchanges"] == 1)
        answer = await stage.ask(box.get("/"))
        assert (answer.status, answer.code) == (503, "preview_overloaded")
        assert len(list(stage.edge.flow.active())) == 1
        release.set()
        assert (await client.answer()).status == 200
    assert idle(stage)
