"""Many at once on one paused sandbox: one resume for all of them, and everybody gets his own answer."""

from __future__ import annotations

import asyncio

import pytest

from edge.core.records import State
from tests.flows.conftest import MakeStage
from tests.flows.rawclient import Answer, RawClient
from tests.flows.scripts import after
from tests.flows.stage import Preview, Stage, until

HERD = 500
LEAVERS = 50


async def waiting(stage: Stage, count: int) -> None:
    """Until so many exchanges wait in the edge."""
    await until(lambda: stage.edge.admission.counts()["waiting"] == count)


async def begin(stage: Stage, request: bytes) -> RawClient:
    """A client that has sent its request."""
    client = await stage.client()
    await client.send(request)
    return client


def one_wake(stage: Stage, box: Preview) -> None:
    """One resume call, one new incarnation, and nobody is still counted as waiting or running."""
    assert stage.plane.counts["resume"] == 1
    assert stage.plane.incarnations[box.id] == 1
    counts = stage.edge.admission.counts()
    assert (counts["waiting"], counts["exchanges"]) == (0, 0)


async def test_five_hundred_wait_and_fifty_leave_the_first_among_them(
    make_stage: MakeStage,
) -> None:
    """450 right answers from one new incarnation; the requests of the 50 never reach the app."""
    # The herd keeps this loop from heartbeats; that must not look like doubt, and cost calls.
    stage = await make_stage(catalog={"fresh": 60.0, "stale_after": 60.0})
    app, ready = await stage.app(), asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(app, State.PAUSED)
    token = box.token()
    clients = [await begin(stage, box.get("/0", token=token))]
    await stage.plane.called("resume")  # the first client leads the wake
    clients += [await begin(stage, box.get(f"/{n}", token=token)) for n in range(1, HERD)]
    await waiting(stage, HERD)
    assert app.connections == 0
    leavers, stayers = clients[:LEAVERS], clients[LEAVERS:]
    for n, client in enumerate(leavers):
        if n % 2:
            client.close()
        else:
            client.reset()
    await waiting(stage, HERD - LEAVERS)
    ready.set()
    answers = await asyncio.gather(*(client.answer() for client in stayers))
    for client in stayers:
        client.close()
    right = [f"GET /{n} HTTP/1.1\n".encode() for n in range(LEAVERS, HERD)]
    assert [answer.status for answer in answers] == [200] * len(stayers)
    assert [answer.body for answer in answers] == right
    paths = sorted(int(head[5:].split(b" ", 1)[0]) for head in app.requests)
    assert paths == list(range(LEAVERS, HERD))
    one_wake(stage, box)
    assert stage.plane.asked == {"sandbox": 1, "grant": 1, "resume": 1}


async def test_leaders_leave_one_after_the_other(stage: Stage) -> None:
    """Whoever asked first, second, third may leave: the wake is nobody's own, and goes on."""
    ready = asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(await stage.app(), State.PAUSED)
    before = await begin(stage, box.get("/0"))
    await stage.plane.called("resume")
    for n in range(1, 6):
        next_one = await begin(stage, box.get(f"/{n}"))
        await waiting(stage, 2)
        before.end() if n % 2 else before.reset()
        await waiting(stage, 1)
        before.close()
        before = next_one
    ready.set()
    assert (await before.answer()).body == b"GET /5 HTTP/1.1\n"
    before.close()
    one_wake(stage, box)


async def test_all_leave_and_one_comes_back(stage: Stage) -> None:
    """A wake that nobody waits for any more is still the wake of the next one who comes."""
    ready = asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(await stage.app(), State.PAUSED)
    clients = [await begin(stage, box.get(f"/{n}")) for n in range(5)]
    await stage.plane.called("resume")
    await waiting(stage, 5)
    for client in clients:
        client.close()
    await waiting(stage, 0)
    late = await begin(stage, box.get("/late"))
    await waiting(stage, 1)
    ready.set()
    assert (await late.answer()).body == b"GET /late HTTP/1.1\n"
    late.close()
    one_wake(stage, box)


@pytest.mark.parametrize("per_connection", [1, 4])
async def test_head_and_get_mixed(stage: Stage, per_connection: int) -> None:
    """Answers with and without a body keep their places, also when requests queue on a connection."""
    ready = asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(await stage.app(), State.PAUSED)
    token = box.token()
    clients, methods = [], []
    for n in range(60):
        kinds = ["HEAD" if (n + i) % 2 else "GET" for i in range(per_connection)]
        requests = [box.request(kind, f"/{n}.{i}", token=token) for i, kind in enumerate(kinds)]
        clients.append(await begin(stage, b"".join(requests)))
        methods.append(kinds)
    await waiting(stage, 60)
    ready.set()

    async def read(n: int) -> None:
        for i, kind in enumerate(methods[n]):
            answer: Answer = await clients[n].answer(kind.encode())
            whole = f"{kind} /{n}.{i} HTTP/1.1\n".encode()
            assert answer.status == 200
            assert answer.value("content-length") == str(len(whole))
            assert answer.body == (whole if kind == "GET" else b"")

    await asyncio.gather(*(read(n) for n in range(60)))
    for client in clients:
        client.close()
    one_wake(stage, box)


async def test_a_herd_behind_a_port_that_is_late_wakes_once(stage: Stage) -> None:
    """Until the port has accepted, one dial stands for all; then everybody is served."""
    app = await stage.app(listening=False)
    box = stage.sandbox(app, State.PAUSED)
    token = box.token()
    clients = [await begin(stage, box.get(f"/{n}", token=token)) for n in range(100)]
    await stage.plane.until(lambda: stage.plane.incarnations[box.id] == 1)
    await until(lambda: stage.edge.admission.counts()["exchanges"] == 100)
    refused = await stage.refused_dials(at_least=2)
    assert refused < 50, "each of the waiting dialed on its own"
    await app.listen()
    answers = await asyncio.gather(*(client.answer() for client in clients))
    for client in clients:
        client.close()
    assert [answer.body for answer in answers] == [
        f"GET /{n} HTTP/1.1\n".encode() for n in range(100)
    ]
    one_wake(stage, box)
