"""The upstream's side: which connection an exchange gets, how long a port is waited for, what is kept and let go."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from edge.core.records import State, Upstream
from edge.traffic.routes import Route
from tests.flows.rawclient import RawClient
from tests.flows.scriptedapp import AppConnection, ScriptedApp
from tests.flows.stage import PORT, MakeStage, Preview, Stage, until
from tests.traffic.dialogue import (
    EMPTY,
    Clock,
    a_mute_port,
    canary,
    canary_of_its_own,
    dials,
    ended,
    first,
    held,
    later,
    say,
)


async def stream(connection: AppConnection, _: bytes) -> None:
    """An answer that has begun and does not end."""
    await connection.send(b"HTTP/1.1 200 OK\r\n\r\nsome bytes")
    await connection.read_to_end()


async def a_tick(stage: Stage, streaming: Preview, client: RawClient) -> None:
    """Wait for the flow's once-a-second round: only that reports the bytes of an answer under way."""
    await client.send(streaming.get())
    await stage.plane.until(
        lambda: any(
            item.grant_id == streaming.grant and item.bytes_out
            for batch in stage.plane.usage
            for item in batch.items
        )
    )


async def at_once(stage: Stage, app: ScriptedApp, box: Preview, many: int) -> list[RawClient]:
    """So many clients with a request each under way at the same time."""
    clients = [await stage.client() for _ in range(many)]
    before = len(app.requests)
    for client in clients:
        await client.send(box.get("/held"))
    await app.until(lambda: len(app.requests) == before + many)
    return clients


# --- reuse ------------------------------------------------------------------------------------------------


async def test_one_connection_serves_clients_in_turn(stage: Stage) -> None:
    """A connection given back by one client's exchange serves another client's."""
    app = await stage.app()
    box = stage.sandbox(app)
    for _ in range(5):
        await canary_of_its_own(stage, box)
    assert app.connections == 1 and dials(stage) == {"connected": 1}


async def test_exchanges_at_once_have_connections_of_their_own(stage: Stage) -> None:
    """Nobody waits behind somebody else's slow answer; afterwards the connections serve on."""
    release = asyncio.Event()
    app = await stage.app(first(*[held(release)] * 6))
    box = stage.sandbox(app)
    clients = await at_once(stage, app, box, 6)
    assert app.connections == 6
    release.set()
    for client in clients:
        assert (await client.answer()).body == b"GET /held HTTP/1.1\n"
        await canary(client, box, app)
        client.close()
    assert app.connections == 6


@pytest.mark.parametrize(("limit", "again"), [(2, 2), (0, 4)])
async def test_idle_connections_are_limited(make_stage: MakeStage, limit: int, again: int) -> None:
    """No more than the limit is kept; with none kept, every exchange dials."""
    stage = await make_stage(upstream={"idle_per_route": limit})
    release, more = asyncio.Event(), asyncio.Event()
    app = await stage.app(first(*[held(release)] * 4, *[held(more)] * 4))
    box = stage.sandbox(app)
    for event in (release, more):
        clients = await at_once(stage, app, box, 4)
        event.set()
        for client in clients:
            assert (await client.answer()).status == 200
            client.close()
    assert app.connections == 4 + (4 - limit if limit else again)


async def test_ports_of_a_sandbox_are_apart(stage: Stage) -> None:
    """Each port has its own connections; so have two sandboxes on one address."""
    one, two = await stage.app(), await stage.app()
    box = stage.sandbox(one)
    ports = {PORT: one.port, 4000: two.port}
    stage.plane.change_sandbox(box.id, upstream=Upstream("127.0.0.1", ports))
    other, twin = stage.preview(box.id, 4000), stage.sandbox(one)
    async with await stage.client() as client:
        for _ in range(2):
            for preview in (box, other, twin):
                await canary(client, preview)
    assert (one.connections, two.connections) == (2, 1)


async def test_an_app_that_closes_an_idle_connection(stage: Stage) -> None:
    """The edge notices and does not use it: the next exchange dials, and needs no second attempt."""
    app = await stage.app(first(say(EMPTY, AppConnection.close)))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        assert (await client.ask(box.get())).status == 200
        other = stage.sandbox(await stage.app())
        for _ in range(5):
            await canary(client, other)
        await canary(client, box)
    assert app.connections == 2 and len(app.requests) == 2


async def test_idle_connections_are_let_go_after_their_time(make_stage: MakeStage) -> None:
    """After `upstream_idle` seconds without an exchange the app sees the end; the next request dials."""
    clock, ended_at = Clock(), asyncio.Event()

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(EMPTY)
        await connection.read_to_end()
        ended_at.set()

    stage = await make_stage(clock=clock)
    app = await stage.app(first(script))
    box = stage.sandbox(app)
    async with await stage.client() as client:
        assert (await client.ask(box.get())).status == 200
        await later(stage, clock, 16)
        await ended_at.wait()
        await canary(client, box)
    assert app.connections == 2


async def test_idle_connections_can_be_kept_for_ever(make_stage: MakeStage) -> None:
    """Zero means that their age is never looked at."""
    clock = Clock()
    stage = await make_stage(clock=clock, deadlines={"upstream_idle": 0, "idle": 0})
    app, other = await stage.app(), await stage.app(first(stream))
    box, streaming = stage.sandbox(app), stage.sandbox(other)
    async with await stage.client() as client, await stage.client() as listener:
        await canary(client, box)
        await later(stage, clock, 10_000)
        await a_tick(stage, streaming, listener)
        await canary(client, box, app)


# --- incarnations -------------------------------------------------------------------------------------------


async def test_another_incarnation_gets_connections_of_its_own(stage: Stage) -> None:
    """When a sandbox was resumed elsewhere, idle connections to where it was are closed and not used."""
    over = asyncio.Event()

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(EMPTY)
        await connection.read_to_end()
        over.set()

    before, after = await stage.app(first(script)), await stage.app()
    box = stage.sandbox(before)
    async with await stage.client() as client:
        assert (await client.ask(box.get())).status == 200
        stage.plane.upstreams[box.id] = Upstream("127.0.0.1", {PORT: after.port})
        stage.plane.pause(box.id)
        await over.wait()
        await stage.heard(stage.plane.begin_incarnation(box.id))
        await canary(client, box)
    assert (before.connections, after.connections) == (1, 1)


async def test_exchanges_that_wait_for_a_connection_follow_the_sandbox(
    make_stage: MakeStage,
) -> None:
    """Nothing was sent yet: they go to the next incarnation, and nobody is told of a failure."""
    stage = await make_stage(wake={"refused_retry": 30})
    dead, alive = await stage.app(listening=False), await stage.app()
    box = stage.sandbox(dead)
    async with await stage.client() as client:
        await client.send(box.get("/follows"))
        await until(lambda: dials(stage).get("refused", 0) > 1)
        stage.plane.upstreams[box.id] = Upstream("127.0.0.1", {PORT: alive.port})
        stage.plane.begin_incarnation(box.id)
        assert (await client.answer()).body == b"GET /follows HTTP/1.1\n"
        await canary(client, box, alive)


async def test_a_stale_route_is_asked_about_before_patience_runs_out(
    make_stage: MakeStage,
) -> None:
    """The edge believes an old record; the first refusal makes it ask, and the request arrives."""
    stage = await make_stage(wake={"refused_retry": 0})
    moved, alive = await stage.app(), await stage.app()
    box = stage.sandbox(moved)
    async with await stage.client() as client:
        await canary(client, box)  # the record is known from here on
        stage.plane.upstreams[box.id] = Upstream("127.0.0.1", {PORT: alive.port})
        stage.plane.begin_incarnation(box.id, tell=False)
        await moved.stop()
        assert (await client.ask(box.get("/x"))).body == b"GET /x HTTP/1.1\n"
        await canary(client, box, alive)
    assert dials(stage)["refused"] == 1 and not ended(stage)["5xx", "", "complete"]


@pytest.mark.parametrize("told", [True, False])
async def test_an_incarnation_that_is_reached_elsewhere(stage: Stage, told: bool) -> None:
    """An address may change under a running incarnation: by news at once, else with the first refusal."""
    before, after = await stage.app(), await stage.app()
    box = stage.sandbox(before)
    async with await stage.client() as client:
        await canary(client, box)
        moved = Upstream("127.0.0.1", {PORT: after.port})
        record = stage.plane.change_sandbox(box.id, tell=told, upstream=moved)
        if told:
            await stage.heard(record)
        else:
            await before.stop()
        await canary(client, box)
        await canary(client, box, after)
    assert (before.connections, after.connections) == (1, 1)


async def test_a_change_to_another_port_while_a_port_refuses(make_stage: MakeStage) -> None:
    """News that do not concern this port neither lose who waits for it nor end the waiting."""
    stage = await make_stage(wake={"refused_retry": 30})
    app = await stage.app(listening=False)
    box = stage.sandbox(app)
    async with await stage.client() as client:
        await client.send(box.get("/waits"))
        await until(lambda: dials(stage).get("refused", 0) >= 1)
        ports = {PORT: app.port, 4000: 4001}
        await stage.heard(stage.plane.change_sandbox(box.id, upstream=Upstream("127.0.0.1", ports)))
        await app.listen()
        assert (await client.answer()).body == b"GET /waits HTTP/1.1\n"
        await canary(client, box, app)


async def test_a_record_that_changed_unnoticed_for_another_port(stage: Stage) -> None:
    """The record asked for after a refusal differs, though not for this port: the waiting goes on."""
    app = await stage.app(listening=False)
    box, other = stage.sandbox(app), stage.preview("sb_flow00000001", 4000)
    stage.plane.change_sandbox(box.id, running_since=time.time())
    async with await stage.client() as client, await stage.client() as second:
        answer = await second.ask(other.get(token=other.token(port=PORT)))
        assert (
            answer.status == 403
        )  # costs no look-up; the record comes with the first good request
        ports = {PORT: app.port, 4000: 4001}
        asked = stage.plane.counts["sandbox"]
        await client.send(box.get("/waits"))
        await stage.plane.called("sandbox", asked + 1)
        stage.plane.change_sandbox(box.id, tell=False, upstream=Upstream("127.0.0.1", ports))
        await until(lambda: dials(stage).get("refused", 0) >= 2)
        await app.listen()
        assert (await client.answer()).body == b"GET /waits HTTP/1.1\n"
        await canary(client, box, app)


# --- ports that do not accept ---------------------------------------------------------------------------------


@pytest.mark.parametrize("young", [False, True])
async def test_a_port_that_refuses(make_stage: MakeStage, young: bool) -> None:
    """Long running: 502 when the retries are over. Fresh from a resume: 503 when the window is."""
    stage = await make_stage(wake={"window": 0.3, "refused_retry": 0.1})
    app = await stage.app(listening=False)
    since = {"running_since": time.time() + 3600} if young else {}  # their clock runs ahead
    box = stage.sandbox(app, **since)
    async with await stage.client() as client:
        answer = await client.ask(box.get())
        if young:
            assert (answer.status, answer.code) == (503, "sandbox_resume_timeout")
            assert answer.value("retry-after") == "5"
        else:
            assert (answer.status, answer.code) == (502, "preview_service_not_ready")
        assert answer.json["details"] == {"port": PORT}
        await app.listen()
        await canary(client, box)
    assert dials(stage)["refused"] >= 2


@pytest.mark.parametrize("since", [None, "now"])
async def test_a_port_that_accepts_in_time(stage: Stage, since: str | None) -> None:
    """A refused port is dialed again, one dial at a time, and then all who wait are served."""
    app = await stage.app(listening=False)
    started = {"running_since": time.time()} if since else {}
    box = stage.sandbox(app, **started)
    if since is None:
        stage.plane.change_sandbox(box.id, running_since=None)
    clients = [await stage.client() for _ in range(8)]
    for i, client in enumerate(clients):
        await client.send(box.get(f"/{i}"))
    await until(lambda: dials(stage).get("refused", 0) >= 2)
    await app.listen()
    for i, client in enumerate(clients):
        assert (await client.answer()).body == b"GET /%d HTTP/1.1\n" % i
        await canary(client, box)
        client.close()


async def test_a_port_that_never_accepts_after_a_wake(make_stage: MakeStage) -> None:
    """Who waited for the wake waits for the port as well, and no longer than the window in all."""
    stage = await make_stage(wake={"window": 0.5, "refused_retry": 0})
    app = await stage.app(listening=False)
    box = stage.sandbox(app, State.PAUSED)
    async with await stage.client() as client:
        answer = await client.ask(box.get())
        assert (answer.status, answer.code) == (503, "sandbox_resume_timeout")
        assert stage.plane.incarnations[box.id] == 1 and dials(stage)["refused"] > 1
        await app.listen()
        await canary(client, box)


async def test_who_left_is_not_waited_for(make_stage: MakeStage) -> None:
    """Clients that leave while their app's port refuses are forgotten; the others are served."""
    stage = await make_stage(wake={"refused_retry": 30})
    app = await stage.app(listening=False)
    box = stage.sandbox(app)
    gone, staying = await stage.client(), await stage.client()
    await gone.send(box.get("/gone"))
    await until(lambda: stage.edge.admission.counts()["exchanges"] == 1)
    await staying.send(box.get("/stays"))
    await until(lambda: stage.edge.admission.counts()["exchanges"] == 2)
    gone.reset()
    await until(lambda: stage.edge.admission.counts()["exchanges"] == 1)
    await app.listen()
    assert (await staying.answer()).body == b"GET /stays HTTP/1.1\n"
    await canary(staying, box)
    assert not any(b"/gone" in request for request in app.requests)
    staying.close()


async def test_a_connection_nobody_waits_for_any_more_is_kept(make_stage: MakeStage) -> None:
    """A dial that may succeed after its client has left does no harm, and serves the next one."""
    stage = await make_stage(wake={"refused_retry": 30})
    app = await stage.app(listening=False)
    box = stage.sandbox(app)
    gone = await stage.client()
    await gone.send(box.get("/gone"))
    await until(lambda: dials(stage).get("refused", 0) >= 6)  # by now dials are 0.1 s apart
    gone.reset()
    await app.listen()
    await until(lambda: stage.edge.admission.counts()["exchanges"] == 0)
    await canary_of_its_own(stage, box)
    assert set(dials(stage)) == {"refused", "connected"} and not ended(stage)["5xx", "", "complete"]


@pytest.fixture
def mute_port() -> Iterator[int]:
    """See `a_mute_port`."""
    with a_mute_port() as port:
        yield port


@pytest.mark.parametrize("host", ["a" * 64 + ".example", "a..example", "no\0name", ""])
async def test_a_host_that_is_no_name_at_all(make_stage: MakeStage, host: str) -> None:
    """A record can say any text: that is a host nobody reaches, and no dial is begun again for ever."""
    stage = await make_stage(wake={"refused_retry": 0})
    app = await stage.app()
    box, other = stage.sandbox(app, upstream=Upstream(host)), stage.sandbox(app)
    async with await stage.client() as client:
        answer = await client.ask(box.get())
        assert (answer.status, answer.code) == (502, "edge_runtime_host_unreachable")
        assert dials(stage)["unreachable"] == 1
        await canary(client, other)


@pytest.mark.parametrize("how", ["timeout", "unreachable"])
async def test_a_host_that_cannot_be_reached(
    make_stage: MakeStage, mute_port: int, how: str
) -> None:
    """No answer to a dial, or no such host, is the host's fault and not the app's: 502 of its own."""
    stage = await make_stage(wake={"refused_retry": 0}, deadlines={"connect": 0.05})
    app = await stage.app()
    box = stage.sandbox(app)
    upstream = (
        Upstream("127.0.0.1", {PORT: mute_port})
        if how == "timeout"
        else Upstream("255.255.255.255")  # an address nobody can connect to
    )
    stage.plane.change_sandbox(box.id, upstream=upstream)
    async with await stage.client() as client:
        answer = await client.ask(box.get())
        assert (answer.status, answer.code) == (502, "edge_runtime_host_unreachable")
        assert dials(stage)[how] >= 1
        await stage.heard(
            stage.plane.change_sandbox(
                box.id, upstream=Upstream("127.0.0.1", {PORT: app.port}), incarnation=2
            )
        )
        await canary(client, box)


@pytest.mark.parametrize("limit", [1, 3])
async def test_few_dials_at_once_serve_everybody(make_stage: MakeStage, limit: int) -> None:
    """A limit of dials under way is none of connections: all who wait get one, one dial each."""
    stage = await make_stage(upstream={"dials_per_route": limit, "idle_per_route": 0})
    release = asyncio.Event()
    app = await stage.app(first(*[held(release)] * 9))
    box = stage.sandbox(app)
    clients = await at_once(stage, app, box, 9)
    release.set()
    for client in clients:
        assert (await client.answer()).status == 200
        await canary(client, box)
        client.close()
    assert dials(stage) == {"connected": app.connections}


# --- the edges of a connection's life -----------------------------------------------------------------------------


async def test_what_a_route_says_of_itself(make_stage: MakeStage) -> None:
    """Its repr names sandbox, incarnation and address, and what it has."""
    stage = await make_stage(wake={"refused_retry": 30})
    app = await stage.app(listening=False)
    box = stage.sandbox(app)
    async with await stage.client() as client:
        await client.send(box.get())
        await until(lambda: dials(stage).get("refused", 0) >= 1)
        routes = [repr(found) for found in gc.get_objects() if type(found) is Route]
        address = f"('127.0.0.1', {app.port})"
        assert f"<Route {box.id}#1 {address} open=0 idle=0 waiting=1>" in routes
        await app.listen()
        assert (await client.answer()).status == 200


async def test_idle_connections_end_with_the_edge(stage: Stage) -> None:
    """An edge that stops closes what it kept; the app sees a FIN."""
    over = asyncio.Event()

    async def script(connection: AppConnection, _: bytes) -> None:
        await connection.send(EMPTY)
        await connection.read_to_end()
        over.set()

    app = await stage.app(first(script))
    assert (await stage.ask(stage.sandbox(app).get())).status == 200
    await stage.stop_edge()
    await over.wait()


async def test_a_record_without_an_address(stage: Stage) -> None:
    """A sandbox that runs nowhere cannot be reached, and a changed record mends it."""
    app = await stage.app()
    box = stage.sandbox(app, upstream=None)
    async with await stage.client() as client:
        answer = await client.ask(box.get())
        assert (answer.status, answer.code) == (502, "edge_runtime_host_unreachable")
        record = replace(
            stage.plane.sandboxes[box.id],
            upstream=Upstream("127.0.0.1", {PORT: app.port}),
            state=State.RUNNING,
        )
        await stage.heard(stage.plane.put(record))
        await canary(client, box, app) if app.connections else await canary(client, box)
