"""The one path: what each decision does to a request, from its head on the wire to its end."""

from __future__ import annotations

import asyncio

import pytest

from edge.core.records import State, Upstream
from tests.flows.mint import Mint
from tests.flows.scripts import after, hang
from tests.flows.stage import PORT, MakeStage, Preview, Stage, until
from tests.traffic.dialogue import Clock, canary, canary_of_its_own, ended, first, held, idle

EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


# --- refuse -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("times", "status"), [(4, 200), (5, 508), (9, 508)])
async def test_a_request_that_goes_round_in_circles(stage: Stage, times: int, status: int) -> None:
    """A fifth passage is one too many, however the Via fields are written."""
    app = await stage.app()
    box = stage.sandbox(app)
    via = (
        b"Via: "
        + b", ".join([b"1.1 preview-edge"] * (times - 1))
        + b"\r\nVIA: 1.1 preview-edge\r\n"
    )
    async with await stage.client() as client:
        answer = await client.ask(box.get("/", via))
        assert answer.status == status
        if status == 508:
            assert answer.code == "preview_loop"
        await canary(client, box)
    assert len(app.requests) == (2 if status == 200 else 1)


async def test_a_refusal_costs_the_control_plane_nothing(stage: Stage) -> None:
    """Whatever is wrong before the record is looked at: no look-up, no dial, and the connection goes on."""
    app = await stage.app()
    box = stage.sandbox(app, State.PAUSED)
    wrong = [
        box.get(token=""),
        box.get(token="no.such.token"),
        box.get(exp=1),
        box.get(port=4000),
        box.get(key=Mint().private),
        box.get().replace(box.host.encode(), b"3000-x.preview.example"),
        box.get().replace(b"Host: 3000-", b"Host: 22-"),
    ]
    async with await stage.client() as client:
        answers = [await client.ask(request) for request in wrong]
        assert [answer.status for answer in answers] == [401, 401, 401, 403, 401, 404, 400]
        assert stage.plane.asked == {"sandbox": 0, "grant": 0, "resume": 0}
        await canary(client, box, None)
    assert app.connections == 1


# --- verify -----------------------------------------------------------------------------------------------


async def test_a_forged_signature_is_remembered_and_charged(make_stage: MakeStage) -> None:
    """An address has so many bad signatures; then even good new tokens wait, and known ones go on."""
    stage = await make_stage(tokens={"failures_per_minute": 2})
    box = stage.sandbox(await stage.app())
    known, forger = box.token(), Mint()
    async with await stage.client() as client:
        assert (await client.ask(box.get(token=known))).status == 200
        forged = [box.token(key=forger.private) for _ in range(3)]
        for token in (forged[0], forged[0], forged[0], forged[1]):  # the same one costs once
            answer = await client.ask(box.get(token=token))
            assert (answer.status, answer.code) == (401, "edge_token_invalid")
        answer = await client.ask(box.get(token=forged[2]))
        assert (answer.status, answer.code) == (503, "preview_overloaded")
        assert (await client.ask(box.get())).status == 503
        assert (await client.ask(box.get(token=known))).status == 200


async def test_a_key_nobody_knew_is_learned(
    make_stage: MakeStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A good token by a new key makes the edge ask for the keys again, waits for them, and is served."""
    monkeypatch.setattr("edge.state.keys.HINT_INTERVAL", 0.0)  # the first load was just now
    stage = await make_stage(jwks="url")
    app = await stage.app()
    box, young = stage.sandbox(app), Mint(kid="k2")
    stage.plane.jwks = {"keys": stage.mint.jwks["keys"] + young.jwks["keys"]}
    async with await stage.client() as client:
        token = box.token(key=young.private, headers={"kid": "k2"})
        answer = await client.ask(box.request("POST", "/new-key", body=b"x", token=token))
        assert answer.body == b"POST /new-key HTTP/1.1\nx"
        unknown = box.token(key=Mint().private, headers={"kid": "k3"})
        answer = await client.ask(box.get(token=unknown))
        assert (answer.status, answer.code) == (401, "edge_token_invalid")
        await canary(client, box, app)


# --- park -------------------------------------------------------------------------------------------------


async def test_unknown_records_are_looked_up_once(stage: Stage) -> None:
    """A burst on a cold edge costs one look-up of each record, and everybody is answered in order."""
    app = await stage.app()
    box = stage.sandbox(app)
    async with await stage.client() as client:
        await client.send(b"".join(box.get(f"/{i}") for i in range(5)))
        others = [asyncio.create_task(stage.ask(box.get("/other"))) for _ in range(5)]
        for i in range(5):
            assert (await client.answer()).body == b"GET /%d HTTP/1.1\n" % i
        for other in others:
            assert (await other).status == 200
        await canary(client, box)
    assert stage.plane.asked == {"sandbox": 1, "grant": 1, "resume": 0}


async def test_a_refusal_after_the_wait_keeps_the_connection(stage: Stage) -> None:
    """An unknown sandbox costs a look-up, and its 404 ends neither connection nor pipeline."""
    box = stage.sandbox(await stage.app())
    nobody = Preview(stage, "sb_nobody00", PORT, box.grant)
    async with await stage.client() as client:
        await client.send(nobody.get() + box.get("/next"))
        answer = await client.answer()
        assert (answer.status, answer.code) == (404, "sandbox_not_found")
        assert (await client.answer()).body == b"GET /next HTTP/1.1\n"
        await canary(client, box)
    assert ended(stage)["4xx", "sandbox_not_found", "complete"] == 1


async def test_a_wake_is_told_in_its_phases(stage: Stage) -> None:
    """Resume, dispatch, listening and first byte of a wake are each counted once, for all its waiters."""
    app, ready = await stage.app(), asyncio.Event()
    stage.plane.on_resume = after(ready)
    box = stage.sandbox(app, State.PAUSED)
    asking = [asyncio.create_task(stage.ask(box.get(f"/{i}"))) for i in range(3)]
    await until(lambda: stage.edge.admission.counts()["waiting"] == 3)
    ready.set()
    for i, answer in enumerate(asking):
        assert (await answer).body == b"GET /%d HTTP/1.1\n" % i
    await canary_of_its_own(stage, box)
    counted = {
        sample.labels["phase"]: sample.value
        for family in stage.edge.metrics.collect()
        if family.name == "preview_edge_wake_phase_seconds"
        for sample in family.samples
        if sample.name.endswith("_count")
    }
    assert counted == dict.fromkeys(("resume", "dispatch", "listen", "first_byte"), 1)


# --- room -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["in_flight_per_sandbox", "in_flight_per_grant"])
async def test_no_room_in_a_sandbox(make_stage: MakeStage, limit: str) -> None:
    """One exchange too many is refused at once and dials nothing; the place is free with the answer's end."""
    stage, release = await make_stage(admission={limit: 1}), asyncio.Event()
    app = await stage.app(first(held(release)))
    box, other = stage.sandbox(app), stage.sandbox(await stage.app())
    async with await stage.client() as one, await stage.client() as two:
        await one.send(box.get("/first"))
        await app.until(lambda: len(app.requests) == 1)
        answer = await two.ask(box.get("/second"))
        assert (answer.status, answer.code) == (503, "preview_overloaded")
        await canary(two, other)
        release.set()
        assert (await one.answer()).body == b"GET /first HTTP/1.1\n"
        await canary(two, box, app)
    assert app.connections == 1 and idle(stage)


async def test_a_wake_whose_port_never_accepts(make_stage: MakeStage) -> None:
    """The wait ends with the window, and the wake is told as a failed one."""
    stage = await make_stage(wake={"window": 0.4})
    app = await stage.app(listening=False)
    box = stage.sandbox(app, State.PAUSED)
    async with await stage.client() as client:
        answer = await client.ask(box.get())
        assert (answer.status, answer.code) == (503, "sandbox_resume_timeout")
        assert _samples(stage, "preview_edge_wakes", "outcome")["sandbox_resume_timeout"] == 1
        await app.listen()
        await canary(client, box)
    assert stage.plane.incarnations[box.id] == 1


def _samples(stage: Stage, family: str, label: str) -> dict[str, float]:
    """A counter of the edge by the values of its only label."""
    return {
        sample.labels[label]: sample.value
        for found in stage.edge.metrics.collect()
        if found.name == family
        for sample in found.samples
        if sample.name.endswith("_total")
    }


def _refused(stage: Stage) -> float:
    """Dials that were refused so far."""
    return _samples(stage, "preview_edge_upstream_connects", "outcome")["refused"]


# --- what routes ask --------------------------------------------------------------------------------------


async def test_a_refused_port_while_the_control_plane_is_down(make_stage: MakeStage) -> None:
    """Nothing better is known: the port is tried on, and the app is the one to be named."""
    stage = await make_stage(wake={"refused_retry": 30}, control_plane={"timeout": 0.1})
    app = await stage.app()
    box = stage.sandbox(app, upstream=Upstream("127.0.0.1", {PORT: 1}))
    async with await stage.client() as client:
        known = stage.plane.change_sandbox(
            box.id, upstream=Upstream("127.0.0.1", {PORT: app.port}), incarnation=2
        )
        await canary(client, box)
        await app.stop()
        await stage.plane.stop()
        asking = asyncio.create_task(client.ask(box.get("/waits")))
        refused = _refused(stage)
        await until(lambda: _refused(stage) >= refused + 2)  # it has asked, and goes on in spite
        assert known.state is State.RUNNING and not asking.done()
        await stage.plane.start()
        revived = await stage.app()
        stage.plane.change_sandbox(
            box.id, upstream=Upstream("127.0.0.1", {PORT: revived.port}), incarnation=3
        )
        assert (await asking).body == b"GET /waits HTTP/1.1\n"
        await canary(client, box, revived)


async def test_a_refused_port_when_nothing_is_believed_any_more(make_stage: MakeStage) -> None:
    """A look-up without an answer, and a record too old to be believed: what was begun is gone on with."""
    clock = Clock()
    stage = await make_stage(
        clock=clock, wake={"refused_retry": 10_000}, control_plane={"timeout": 0.3}
    )
    app = await stage.app()
    box = stage.sandbox(app)
    async with await stage.client() as client:
        await canary(client, box)
        await app.stop()
        stage.plane.fault = hang
        asked = stage.plane.counts["sandbox"]
        asking = asyncio.create_task(client.ask(box.get("/waits")))
        await stage.plane.called("sandbox", asked + 1)
        stage.plane.fall_silent()
        clock.advance(1000)
        refused = _refused(stage)
        await until(lambda: _refused(stage) > refused)
        stage.plane.fault = None
        stage.plane.fall_silent(silent=False)
        await until(lambda: not stage.edge.unready())
        revived = await stage.app()
        stage.plane.change_sandbox(
            box.id, upstream=Upstream("127.0.0.1", {PORT: revived.port}), incarnation=2
        )
        assert (await asking).body == b"GET /waits HTTP/1.1\n"
        await canary(client, box, revived)
