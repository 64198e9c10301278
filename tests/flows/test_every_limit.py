"""Every limit and deadline: what happens when it is reached, told by the edge and counted by its name.

The table below is held against the settings: a limit that is added needs a row.
"""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import Awaitable, Callable

import pytest
from pydantic import ValidationError

from edge.core.group import Group
from edge.core.records import State, Upstream
from edge.core.settings import AdmissionSettings, DeadlineSettings, LimitSettings, Settings
from edge.ops.memory import resident
from tests.flows.rawclient import Answer, RawClient
from tests.flows.scriptedapp import AppConnection
from tests.flows.scripts import after
from tests.flows.stage import PORT, MakeStage, Stage, until
from tests.traffic.dialogue import (
    Clock,
    a_mute_port,
    canary,
    canary_of_its_own,
    echo_one,
    first,
    held,
    later,
    say,
)

LIMITS = {
    *(f"admission.{name}" for name in AdmissionSettings.model_fields),
    *(f"deadlines.{name}" for name in DeadlineSettings.model_fields),
    *(f"limits.{name}" for name in LimitSettings.model_fields),
    "wake.held_bytes",
    "wake.budget_per_hour",
    "tokens.failures_per_minute",
}
SWITCH = b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ROOM = 128 << 20
"""Bytes this process may grow by before an edge in it calls memory short."""


async def echoing(connection: AppConnection, _: bytes) -> None:
    """Become a tunnel that says everything back."""
    await connection.send(SWITCH)
    while data := await connection.read_some():
        await connection.send(data)


def counted(stage: Stage, metric: str, setting: str) -> float:
    """A counter by setting, as a scrape would show it."""
    return sum(
        sample.value
        for family in stage.edge.metrics.collect()
        for sample in family.samples
        if sample.name == f"preview_edge_{metric}_total" and sample.labels["setting"] == setting
    )


def refused(stage: Stage, answer: Answer, status: int, code: str, setting: str) -> None:
    """The error names the setting, and the metric counts it."""
    assert (answer.status, answer.code) == (status, code)
    assert answer.json["details"] == {"limit": setting}
    assert counted(stage, "limits_reached", setting) >= 1


def overloaded(stage: Stage, answer: Answer, setting: str) -> None:
    """503, try again in five seconds."""
    refused(stage, answer, 503, "preview_overloaded", setting)
    assert answer.values("retry-after") == ["5"] and answer.json["retryable"] is True


# --- admission ----------------------------------------------------------------------------------------


async def connections(make_stage: MakeStage) -> None:
    """One too many is answered and closed."""
    for setting in ("connections", "connections_per_address"):
        stage = await make_stage(admission={setting: 1})
        async with await stage.client() as inside:
            await until(lambda stage=stage: len(stage.edge.connections) == 1)
            async with await stage.client() as outside:
                overloaded(stage, await outside.answer(), f"admission.{setting}")
                assert await outside.at_end()
            await canary(inside, stage.sandbox(await stage.app()))


async def running(make_stage: MakeStage) -> None:
    """Per sandbox, and per grant."""
    for setting in ("in_flight_per_sandbox", "in_flight_per_grant"):
        stage, release = await make_stage(admission={setting: 1}), asyncio.Event()
        box = stage.sandbox(await stage.app(first(held(release))))
        async with await stage.client() as inside:
            await inside.send(box.get("/"))
            await until(lambda stage=stage: stage.edge.admission.counts()["exchanges"] == 1)
            overloaded(stage, await stage.ask(box.get("/")), f"admission.{setting}")
            another = await stage.ask(stage.preview(box.id).get("/"))
            assert another.status == (200 if setting == "in_flight_per_grant" else 503)
            release.set()
            assert (await inside.answer()).status == 200


async def waiting(make_stage: MakeStage) -> None:
    """In all, per sandbox and per grant."""
    for setting in ("waiting", "waiting_per_sandbox", "waiting_per_grant"):
        stage, ready = await make_stage(admission={setting: 1}), asyncio.Event()
        stage.plane.on_resume = after(ready)
        box = stage.sandbox(await stage.app(), State.PAUSED)
        async with await stage.client() as inside:
            await inside.send(box.get("/"))
            await until(lambda stage=stage: stage.edge.admission.counts()["waiting"] == 1)
            overloaded(stage, await stage.ask(box.get("/")), f"admission.{setting}")
            ready.set()
            assert (await inside.answer()).status == 200


async def memory_bytes(make_stage: MakeStage) -> None:
    """New connections and requests are refused; a stream and a tunnel go on; relief brings all back."""
    if not resident():
        pytest.skip("this system does not say how much memory a process takes")
    stage = await make_stage(admission={"memory_bytes": resident() + ROOM})
    app = await stage.app(first(echoing, say(CHUNKED)))
    box = stage.sandbox(app)
    async with await stage.client() as tunnel, await stage.client() as stream:
        await tunnel.send(box.upgrade("/"))
        assert (await tunnel.answer()).status == 101
        await stream.send(box.get("/"))
        assert (await stream.head()).status == 200
        async with await stage.client() as kept:
            await canary(kept, box)
            with mmap.mmap(-1, 2 * ROOM) as taken:
                for page in range(0, len(taken), mmap.PAGESIZE):
                    taken[page] = 1
                await until(lambda: stage.edge.admission.pressed)
                overloaded(stage, await kept.ask(box.get("/")), "admission.memory_bytes")
                overloaded(stage, await stage.ask(box.get("/")), "admission.memory_bytes")
                await tunnel.send(b"ping")
                assert await tunnel.exactly(4) == b"ping"
                for part in (b"one", b"two"):
                    await app.played[1].send(b"3\r\n%b\r\n" % part)
                    assert await stream.chunk() == part
                await app.played[1].send(b"0\r\n\r\n")
                assert await stream.chunk() == b""
            await until(lambda: not stage.edge.admission.pressed)
            await canary(kept, box)
            await canary_of_its_own(stage, box)


# --- sizes --------------------------------------------------------------------------------------------


async def heads(make_stage: MakeStage) -> None:
    """431, and the connection ends; just below it passes."""
    stage = await make_stage(
        limits={"header_bytes": 4096, "header_count": 16, "request_line": 2048}
    )
    box = stage.sandbox(await stage.app())
    for setting, fits, bursts in (
        ("header_bytes", b"X: " + b"x" * 2000 + b"\r\n", b"X: " + b"x" * 4096 + b"\r\n"),
        ("header_count", b"X: 1\r\n" * 15, b"X: 1\r\n" * 16),
    ):
        assert (await stage.ask(box.get("/", fits))).status == 200
        async with await stage.client() as client:
            answer = await client.ask(box.get("/", bursts))
            refused(stage, answer, 431, "request_header_too_large", f"limits.{setting}")
            assert await client.at_end()
    assert (await stage.ask(box.get("/" + "a" * 1000))).status == 200
    answer = await stage.ask(box.get("/" + "a" * 2048))
    refused(stage, answer, 431, "request_header_too_large", "limits.request_line")


async def buffer_bytes(make_stage: MakeStage) -> None:
    """An app is stopped when so much of its answer waits for a slow reader."""
    stage = await make_stage(limits={"buffer_bytes": 4096})
    body = b"x" * (64 << 20)
    box = stage.sandbox(
        await stage.app(
            first(say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body))
        )
    )
    async with await stage.client() as client:
        await client.send(box.get("/"))
        await until(lambda: any(x.client.write_paused for x in stage.edge.flow.active()))
        (exchange,) = stage.edge.flow.active()
        assert exchange.bytes_out < len(body)
        assert len((await client.answer()).body) == len(body)


async def held_bytes(make_stage: MakeStage) -> None:
    """So much of a waiting client is read, and no more until its sandbox runs."""
    stage, ready = await make_stage(wake={"held_bytes": 1000}), asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(await stage.app(), State.PAUSED)
    body = b"y" * (32 << 20)
    async with await stage.client() as client:
        sending = asyncio.ensure_future(client.send(box.request("POST", "/", body=body)))
        await until(lambda: len(stage.edge.flow.waiting()) == 1)
        (exchange,) = stage.edge.flow.waiting()
        await until(lambda: not exchange.client._reading)
        assert not sending.done()
        ready.set()
        answer = await client.answer()
        await sending
        assert answer.body == b"POST / HTTP/1.1\n" + body


async def pipelined(make_stage: MakeStage) -> None:
    """See tests/traffic/test_connections.py for the turns of others; here: all answers, in order."""
    stage = await make_stage(limits={"pipelined": 2})
    box = stage.sandbox(await stage.app())
    async with await stage.client() as client:
        await client.send(b"".join(box.get(f"/{n}") for n in range(9)))
        bodies = [(await client.answer()).body for _ in range(9)]
    assert bodies == [b"GET /%d HTTP/1.1\n" % n for n in range(9)]


async def requests_per_connection(make_stage: MakeStage) -> None:
    """The last one says so, and the connection ends."""
    stage = await make_stage(limits={"requests_per_connection": 2})
    box = stage.sandbox(await stage.app())
    async with await stage.client() as client:
        await canary(client, box)
        answer = await client.ask(box.get("/"))
        assert answer.values("connection") == ["close"] and await client.at_end()


# --- deadlines ----------------------------------------------------------------------------------------


async def passes(stage: Stage, clock: Clock, setting: str) -> None:
    """Let time pass until this deadline has."""
    await clock.run(lambda: stage.edge.flow.passed[f"deadlines.{setting}"] > 0, 1.0)


async def header(make_stage: MakeStage) -> None:
    """408 for half a head, and the end."""
    clock = Clock()
    stage = await make_stage(clock=clock)
    async with await stage.client() as client:
        await client.send(b"GET / HTTP/1.1\r\n")
        await until(lambda: any(len(x._buffer) for x in stage.edge.connections))
        await passes(stage, clock, "header")
        refused(stage, await client.answer(), 408, "request_timeout", "deadlines.header")


async def idle_connections(make_stage: MakeStage) -> None:
    """A kept-alive connection without a request just ends."""
    clock = Clock()
    stage = await make_stage(clock=clock)
    async with await stage.client() as client:
        await canary(client, stage.sandbox(await stage.app()))
        await passes(stage, clock, "idle")
        assert await client.at_end()


async def body_stall(make_stage: MakeStage) -> None:
    """408 for half a body, and, when the client goes on sending nothing, the end of lingering, too."""
    clock = Clock()
    stage = await make_stage(clock=clock)
    box = stage.sandbox(await stage.app())
    async with await stage.client() as client:
        await client.send(box.request("POST", "/", body=b"12345")[:-2])
        await until(lambda: stage.edge.admission.counts()["exchanges"] == 1)
        await passes(stage, clock, "body_stall")
        refused(stage, await client.answer(), 408, "request_timeout", "deadlines.body_stall")
        await passes(stage, clock, "linger")
        await until(lambda: not stage.edge.connections)


async def first_byte(make_stage: MakeStage) -> None:
    """504 when the app does not begin to answer."""
    clock, never = Clock(), asyncio.Event()
    stage = await make_stage(clock=clock)
    box = stage.sandbox(await stage.app(first(held(never))))
    async with await stage.client() as client:
        await client.send(box.get("/"))
        await until(lambda: any(x.upstream for x in stage.edge.flow.active()))
        await passes(stage, clock, "first_byte")
        answer = await client.answer()
        refused(stage, answer, 504, "preview_upstream_timeout", "deadlines.first_byte")
        never.set()


async def connect(make_stage: MakeStage) -> None:
    """A port that neither accepts nor refuses is given up: 502."""
    stage = await make_stage(wake={"refused_retry": 0}, deadlines={"connect": 0.05})
    box = stage.sandbox(await stage.app())
    with a_mute_port() as port:
        stage.plane.change_sandbox(box.id, upstream=Upstream("127.0.0.1", {PORT: port}))
        answer = await stage.ask(box.get("/"))
    assert (answer.status, answer.code) == (502, "edge_runtime_host_unreachable")
    assert counted(stage, "deadlines_passed", "deadlines.connect") >= 1


async def upstream_idle(make_stage: MakeStage) -> None:
    """A kept connection to an app ends after that time."""
    clock = Clock()
    stage = await make_stage(clock=clock)
    app = await stage.app()
    box = stage.sandbox(app)
    assert (await stage.ask(box.get("/"))).status == 200
    await passes(stage, clock, "upstream_idle")
    assert counted(stage, "deadlines_passed", "deadlines.upstream_idle") == 1
    assert (await stage.ask(box.get("/"))).status == 200
    assert app.connections == 2


# --- budgets ------------------------------------------------------------------------------------------


async def budget_per_hour(make_stage: MakeStage) -> None:
    """A grant's wakes are spent; another grant of the same port has its own."""
    stage = await make_stage(wake={"budget_per_hour": 1})
    box = stage.sandbox(await stage.app(), State.PAUSED)
    assert (await stage.ask(box.get("/"))).status == 200
    stage.plane.pause(box.id)
    await until(lambda: stage.edge.catalog.sandbox(box.id).state is State.PAUSED)  # type: ignore[union-attr]
    overloaded(stage, await stage.ask(box.get("/")), "wake.budget_per_hour")
    assert (await stage.ask(stage.preview(box.id).get("/"))).status == 200


async def failures_per_minute(make_stage: MakeStage) -> None:
    """Signatures are not checked any more for who sent bad ones; those known as good still pass."""
    stage = await make_stage(tokens={"failures_per_minute": 1})
    box = stage.sandbox(await stage.app())
    good = box.token()
    assert (await stage.ask(box.get("/", token=good))).status == 200
    forged = [
        good[:-at] + ("B" if good[-at] == "A" else "A") + good[1 - at :] for at in (40, 50, 60)
    ]
    answers = [await stage.ask(box.get("/", token=token)) for token in forged]
    assert answers[0].code == "edge_token_invalid"
    overloaded(stage, answers[-1], "tokens.failures_per_minute")
    assert (await stage.ask(box.get("/", token=good))).status == 200


SHOWN: dict[str, Callable[[MakeStage], Awaitable[None]]] = {
    "admission.connections": connections,
    "admission.connections_per_address": connections,
    "admission.in_flight_per_sandbox": running,
    "admission.in_flight_per_grant": running,
    "admission.waiting": waiting,
    "admission.waiting_per_sandbox": waiting,
    "admission.waiting_per_grant": waiting,
    "admission.memory_bytes": memory_bytes,
    "limits.header_bytes": heads,
    "limits.header_count": heads,
    "limits.request_line": heads,
    "limits.buffer_bytes": buffer_bytes,
    "limits.pipelined": pipelined,
    "limits.requests_per_connection": requests_per_connection,
    "wake.held_bytes": held_bytes,
    "deadlines.header": header,
    "deadlines.idle": idle_connections,
    "deadlines.body_stall": body_stall,
    "deadlines.linger": body_stall,
    "deadlines.first_byte": first_byte,
    "deadlines.connect": connect,
    "deadlines.upstream_idle": upstream_idle,
    "wake.budget_per_hour": budget_per_hour,
    "tokens.failures_per_minute": failures_per_minute,
}


def test_every_limit_is_shown() -> None:
    """Nothing is bounded that no test here has reached."""
    assert set(SHOWN) == LIMITS


@pytest.mark.parametrize("setting", sorted(LIMITS))
def test_what_zero_means_is_said(setting: str) -> None:
    """In the setting's own words, which docs/settings.md repeats; or zero is refused."""
    group, _, name = setting.partition(".")
    kind = Settings.model_fields[group].annotation
    assert isinstance(kind, type) and issubclass(kind, Group)
    try:
        kind.model_validate({name: 0})
        refused_fields = set()
    except ValidationError as e:
        refused_fields = {error["loc"] for error in e.errors()}
    said = "; 0 = " in (kind.model_fields[name].description or "")
    assert said == ((name,) not in refused_fields)


@pytest.mark.parametrize("show", dict.fromkeys(SHOWN.values()), ids=lambda one: one.__name__)
async def test_a_limit_is_reached(
    make_stage: MakeStage, show: Callable[[MakeStage], Awaitable[None]]
) -> None:
    """See the function of that name above."""
    await show(make_stage)


# --- zero -----------------------------------------------------------------------------------------------


async def test_one_byte_of_memory_is_always_too_much(make_stage: MakeStage) -> None:
    """Every connection is told so; the admin listener answers."""
    stage = await make_stage(admission={"memory_bytes": 1})
    await until(lambda: stage.edge.admission.pressed)
    async with await stage.client() as client:
        overloaded(stage, await client.answer(), "admission.memory_bytes")
        assert await client.at_end()
    async with await RawClient.open(stage.edge.admin_port) as admin:
        await admin.send(b"GET /metrics HTTP/1.1\r\nHost: admin\r\n\r\n")
        page = await admin.answer()
    assert b'limits_reached_total{setting="admission.memory_bytes"} 1.0' in page.body


async def test_zero_is_no_limit(make_stage: MakeStage) -> None:
    """Twenty wait at once, run at once and forge at once, and nobody is refused for want of room."""
    stage, ready, release = (
        await make_stage(
            admission=dict.fromkeys(AdmissionSettings.model_fields, 0),
            wake={"budget_per_hour": 0},
            tokens={"failures_per_minute": 0},
        ),
        asyncio.Event(),
        asyncio.Event(),
    )
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(await stage.app(first(*[held(release)] * 20)), State.PAUSED)
    good = box.token()
    clients = [await stage.client() for _ in range(20)]
    for client in clients:
        await client.send(box.get("/", token=good))
    await until(lambda: stage.edge.admission.counts()["waiting"] == 20)
    ready.set()
    await until(lambda: stage.edge.admission.counts()["exchanges"] == 20)
    release.set()
    for client in clients:
        assert (await client.answer()).status == 200
        client.close()
    for at in range(40, 60):
        forged = good[:-at] + ("B" if good[-at] == "A" else "A") + good[1 - at :]
        assert (await stage.ask(box.get("/", token=forged))).code == "edge_token_invalid"


async def test_zero_is_no_deadline(make_stage: MakeStage) -> None:
    """A day passes over half a head, half a body, a late answer and idle connections: all go on."""
    clock, release = Clock(), asyncio.Event()
    names = ("header", "idle", "body_stall", "first_byte", "upstream_idle", "linger")
    stage = await make_stage(clock=clock, deadlines=dict.fromkeys(names, 0))
    app = await stage.app(first(echo_one, held(release)))
    box = stage.sandbox(app)
    get, post = box.get("/late"), box.request("POST", "/body", body=b"12345")
    async with (
        await stage.client() as kept,
        await stage.client() as late,
        await stage.client() as body,
        await stage.client() as head,
        await stage.client() as refused,
    ):
        await canary(kept, box)
        await late.send(get)
        await app.until(lambda: len(app.requests) == 2)
        await body.send(post[:-2])
        await app.until(lambda: len(app.requests) == 3)
        await canary(kept, box)
        await head.send(get[:20])
        await later(stage, clock, 86_400)
        # Lingering ends at the next look at deadlines, also for zero: that look has now been.
        assert (await refused.ask(b"GET / HTTP/1.0\r\n Bad\r\n\r\n")).status == 400
        await clock.run(lambda: stage.edge.flow.passed["deadlines.linger"] > 0, 3600)
        stage.edge.flow.tick()
        assert set(stage.edge.flow.passed) == {"deadlines.linger"}
        await canary(kept, box, app)
        release.set()
        assert (await late.answer()).body == b"GET /late HTTP/1.1\n"
        await body.send(post[-2:])
        assert (await body.answer(b"POST")).body == b"POST /body HTTP/1.1\n12345"
        await head.send(get[20:])
        assert (await head.answer()).status == 200
