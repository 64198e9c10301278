"""The one path: what each decision does to a request, from its head on the wire to what the app gets to see."""

from __future__ import annotations

import asyncio
import re

import pytest

from edge.core.records import State, Upstream
from tests.flows.mint import Mint
from tests.flows.scripts import after, hang
from tests.flows.stage import PORT, MakeStage, Preview, Stage, until
from tests.traffic.dialogue import Clock, canary, canary_of_its_own, ended, first, held, idle, say

EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


def lines(head: bytes) -> list[bytes]:
    """The lines of a head."""
    return head.removesuffix(b"\r\n\r\n").split(b"\r\n")


# --- forward ----------------------------------------------------------------------------------------------


async def test_what_the_app_gets_to_see(stage: Stage) -> None:
    """Byte for byte what the client sent, without what was the edge's, and with what the edge knows."""
    app = await stage.app()
    box = stage.sandbox(app)
    cookie = box.cookie().strip().removeprefix(b"Cookie: ")
    fields = (
        b"x-oDD-CaSe:  two  blanks \r\n"
        b"Cookie: a=b; " + cookie + b"; c = d\r\n"
        b"Referer: https://x.example/p?a=1&edge_token=secret&b=2\r\n"
        b"X-Nullspace-Anything: x\r\nX-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\n"
        b"X-Request-Id: my-id.1\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n"
        b"Connection: keep-alive, X-Hop, Upgrade\r\nX-Hop: gone\r\nx-hop: gone too\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Authorization: x\r\ntraceparent: 00-a-b-01\r\n"
    )
    async with await stage.client() as client:
        answer = await client.ask(box.get("/a%20b//c?x=%2F&y&&z=1", fields))
        assert answer.body == b"GET /a%20b//c?x=%2F&y&&z=1 HTTP/1.1\n"
        assert b"secret" not in app.requests[0]
        await canary(client, box, app)
    assert lines(app.requests[0]) == [
        b"GET /a%20b//c?x=%2F&y&&z=1 HTTP/1.1",
        b"Host: " + box.host.encode(),
        b"x-oDD-CaSe:  two  blanks ",
        b"Cookie: a=b; c = d",
        b"Referer: https://x.example/p?a=1&b=2",
        b"traceparent: 00-a-b-01",
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Forwarded-Proto: https",
        b"X-Forwarded-Host: " + box.host.encode(),
        b"X-Request-Id: my-id.1",
        b"Via: 1.1 preview-edge",
    ]


@pytest.mark.parametrize("marked", [False, True])
async def test_what_a_customers_proxy_says_is_passed_on(stage: Stage, marked: bool) -> None:
    """Proxy mode: its forwarding fields exactly as sent, none added, and no cookie comes back."""
    app = await stage.app()
    box = stage.sandbox(app)
    fields = box.proxy() + b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: http\r\n"
    path = "/p?__ns_preview_transport=header&a=1" if marked else "/p?a=1"
    async with await stage.client() as client:
        for _ in range(3):  # the second and third may be made of what the first left
            answer = await client.ask(box.get(path, fields, token=""))
            assert answer.body == b"GET /p?a=1 HTTP/1.1\n" and not answer.values("set-cookie")
        await canary(client, box, app)
    for head in app.requests[:3]:
        said = [line for line in lines(head) if line.lower().startswith(b"x-forwarded")]
        assert said == [b"X-Forwarded-For: 203.0.113.9", b"X-Forwarded-Proto: http"]
        assert b"x-nullspace" not in head.lower() and b"__ns_preview" not in head


async def test_requests_that_differ_in_one_line_stay_apart(stage: Stage) -> None:
    """What is remembered of one request of a connection is not told of the next, nor of another's."""
    app = await stage.app()
    one, two = stage.sandbox(app), stage.sandbox(app)
    async with await stage.client() as client:
        for i in range(12):
            box, fields = (one, two)[i % 2], b"X-N: %d\r\nX-Request-Id: id-%d\r\n" % (i % 3, i)
            credential = box.cookie() if i % 4 < 2 else box.proxy()
            assert (await client.ask(box.get(f"/{i}", credential + fields, token=""))).status == 200
            head = app.requests[-1]
            assert lines(head)[0] == b"GET /%d HTTP/1.1" % i
            assert b"\r\nHost: " + box.host.encode() + b"\r\n" in head
            assert b"\r\nX-N: %d\r\n" % (i % 3) in head and head.count(b"X-N:") == 1
            assert b"\r\nX-Request-Id: id-%d\r\n" % i in head
            assert (b"X-Forwarded-Host: " in head) == (i % 4 < 2)
            assert b"ns_preview" not in head


async def test_an_absolute_target(stage: Stage) -> None:
    """Its authority has to be the Host's; the app gets a path."""
    app = await stage.app()
    box = stage.sandbox(app)
    absolute = b"GET https://" + box.host.upper().encode() + b"/abs?a=1"
    async with await stage.client() as client:
        answer = await client.ask(box.get("/abs?a=1").replace(b"GET /abs?a=1", absolute, 1))
        assert answer.body == b"GET /abs?a=1 HTTP/1.1\n"
        await canary(client, box, app)
        wrong = box.get("/").replace(b"GET /", b"GET http://elsewhere.example/", 1)
        answer = await client.ask(wrong)
        assert (answer.status, answer.code) == (400, "bad_request")
        assert await client.at_end()
    assert len(app.requests) == 2


async def test_options_of_the_whole_server(stage: Stage) -> None:
    """``*`` has no query: the credential comes as a cookie, and the target arrives as it is."""
    app = await stage.app()
    box = stage.sandbox(app)
    request = box.request("OPTIONS", "/", box.cookie(), token="").replace(
        b"OPTIONS /", b"OPTIONS *"
    )
    async with await stage.client() as client:
        assert (await client.ask(request)).body == b"OPTIONS * HTTP/1.1\n"
        await canary(client, box, app)


@pytest.mark.parametrize(("mask", "host"), [("localhost:${PORT}", b"localhost:3000"), ("a b", b"")])
async def test_a_masked_host(stage: Stage, mask: str, host: bytes) -> None:
    """Only Host changes, and only to what can be one."""
    app = await stage.app()
    box = stage.sandbox(app, mask_request_host=mask)
    async with await stage.client() as client:
        await canary(client, box)
        await canary(client, box, app)
    for head in app.requests:
        assert lines(head)[1] == b"Host: " + (host or box.host.encode())
        assert b"X-Forwarded-Host: " + box.host.encode() in head


@pytest.mark.parametrize("sent", [b"bad id!", b"x" * 129, b"", b"a\r\nX-Request-Id: b"])
async def test_request_ids_of_our_own(stage: Stage, sent: bytes) -> None:
    """What is no good id, or two of them, is replaced by one that nobody else has."""
    app = await stage.app()
    box = stage.sandbox(app)
    async with await stage.client() as client:
        for _ in range(2):
            assert (await client.ask(box.get("/", b"X-Request-Id: %b\r\n" % sent))).status == 200
    ids = [re.findall(rb"\r\nX-Request-Id: ([^\r]*)\r\n", head) for head in app.requests]
    assert all(
        len(found) == 1 and re.fullmatch(rb"[0-9a-f]{12}-[0-9a-f]+", found[0]) for found in ids
    )
    assert ids[0] != ids[1]


async def test_the_cookie_comes_with_the_first_answer(stage: Stage) -> None:
    """A request by edge token is continued by cookie; one by cookie gets no other."""
    box = stage.sandbox(await stage.app())
    async with await stage.client() as client:
        answer = await client.ask(box.get())
        (cookie,) = answer.values("set-cookie")
        assert cookie.startswith("__Host-ns_preview=") and answer.values("cache-control") == [
            "private"
        ]
        field = f"Cookie: {cookie.split(';')[0]}\r\n".encode()
        answer = await client.ask(box.get("/by-cookie", field, token=""))
        assert answer.body == b"GET /by-cookie HTTP/1.1\n" and not answer.values("set-cookie")


async def test_the_cookie_of_the_scheme_a_trusted_proxy_names(make_stage: MakeStage) -> None:
    """Behind a proxy of ours the client's own scheme decides which cookie is the edge's."""
    stage = await make_stage(trusted_proxies=["127.0.0.1/32"])
    foreign = b"HTTP/1.1 200 OK\r\nSet-Cookie: ns_preview=stolen\r\nContent-Length: 0\r\n\r\n"
    app = await stage.app(first(say(foreign), say(foreign)))
    box = stage.sandbox(app)
    proto = b"X-Forwarded-Proto: http\r\n"
    async with await stage.client() as client:
        (cookie,) = (await client.ask(box.get("/", proto))).values("set-cookie")
        assert cookie.startswith("ns_preview=ey") and "Secure" not in cookie
        field = f"Cookie: {cookie.split(';')[0]}\r\n".encode()
        answer = await client.ask(box.get("/", field + proto, token=""))
        assert answer.status == 200 and not answer.values("set-cookie")
        await canary(client, box, app)
    assert (
        b"\r\nX-Forwarded-Proto: http\r\n" in app.requests[1] and b"Cookie" not in app.requests[1]
    )


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
