"""The HTTP state port against control planes that work, misbehave, lie and vanish."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
from contextlib import aclosing
from dataclasses import replace

import pytest
from aiohttp import WSMsgType, web

from edge.core.records import GrantRecord, GrantStatus, SandboxRecord, State, Transport, Upstream
from edge.core.settings import ControlPlaneSettings
from edge.state import http, wire
from edge.state.http import HttpStatePort
from edge.state.port import (
    Change,
    Heartbeat,
    RefusalReason,
    ResumeRefused,
    Resync,
    Unavailable,
    Usage,
    UsageBatch,
)

TOKEN = "service-token-that-must-never-be-shown"
SANDBOX = SandboxRecord(
    "sb_aaaaaaaa", State.RUNNING, 7, 3, True, 12.5, Upstream("127.0.0.1", {3000: 41000})
)
GRANT = GrantRecord(
    "pvg_1",
    "sb_aaaaaaaa",
    3000,
    frozenset({Transport.HTTP}),
    GrantStatus.ACTIVE,
    99.0,
    1,
)
BATCH = UsageBatch("edge-1", 5, (Usage("sb_aaaaaaaa", "pvg_1", requests=2, bytes_out=10),))


def settings(url: str, timeout: float = 5.0) -> ControlPlaneSettings:
    """Settings with a token that would be noticed wherever it shows."""
    return ControlPlaneSettings(url=url, token=TOKEN, timeout=timeout)


@pytest.fixture
async def port_to():
    """Make state ports, and close them at the end."""
    ports = []

    def make(url, *, timeout=5.0, silence=http.WATCH_SILENCE):
        ports.append(HttpStatePort(settings(url, timeout), "edge 1&", silence=silence))
        return ports[-1]

    yield make
    for port in ports:
        await port.close()


CALLS = {
    "sandbox": lambda port: port.sandbox("sb_aaaaaaaa"),
    "grant": lambda port: port.grant("pvg_1"),
    "resume": lambda port: port.resume("sb_aaaaaaaa", 3, "preview", 5.0),
    "report": lambda port: port.report(BATCH),
    "ack": lambda port: port.ack("sb_aaaaaaaa", 7, 0),
    "watch": lambda port: first_event(port),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


async def first_event(port, cursor=None):
    """Open a watch, take one event, close it."""
    async with aclosing(port.watch(cursor)) as events:
        return await anext(events)


async def fails(call, port) -> str:
    """The message of the `Unavailable` that the call must end with; it never shows the token."""
    with pytest.raises(Unavailable) as caught:
        await call(port)
    assert TOKEN not in str(caught.value) + repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return str(caught.value)


# --- What a working control plane sees and says --------------------------------------------------


async def test_records_are_read_with_the_service_token(serve, port_to):
    """Look-ups name the id in the path and carry the bearer token; the record comes back whole."""
    seen = []

    async def handler(request):
        seen.append((request.method, request.path, request.headers["Authorization"]))
        body = (
            wire.grant_to_json(GRANT) if "grants" in request.path else wire.sandbox_to_json(SANDBOX)
        )
        return web.Response(body=body)

    port = port_to(await serve(handler) + "/base/")
    assert await port.sandbox("sb_aaaaaaaa") == SANDBOX
    assert await port.grant("pvg_1") == GRANT
    assert seen == [
        ("GET", "/base/internal/edge/v1/sandboxes/sb_aaaaaaaa", f"Bearer {TOKEN}"),
        ("GET", "/base/internal/edge/v1/grants/pvg_1", f"Bearer {TOKEN}"),
    ]


@pytest.mark.parametrize(
    "record_id", ["a/b", "../../admin", "a?b#c", "a%2Fb", "ü ", "a;b", "a\r\nb"]
)
async def test_ids_are_one_path_segment(serve, port_to, record_id):
    """Whatever an id contains, it neither leaves its segment nor becomes query, header or fragment."""
    seen = []

    async def handler(request):
        seen.append((request.raw_path, request.match_info["path"]))
        return web.Response(body=wire.sandbox_to_json(replace(SANDBOX, id=record_id)))

    record = await port_to(await serve(handler)).sandbox(record_id)
    assert record is not None
    assert record.id == record_id
    [(raw, decoded)] = seen
    assert raw.count("/") == 5
    assert not set("?# ") & set(raw)
    assert decoded == f"internal/edge/v1/sandboxes/{record_id}"


@pytest.mark.parametrize("record_id", ["", ".", "..", "\ud800"])
async def test_impossible_ids_are_not_asked_for(serve, port_to, record_id):
    """Ids that cannot be a path segment have no record, and the control plane hears nothing."""
    asked = []

    async def handler(request):
        asked.append(request.path)
        return web.Response(status=500)

    port = port_to(await serve(handler))
    assert await port.sandbox(record_id) is None
    assert await port.grant(record_id) is None
    with pytest.raises(ResumeRefused) as caught:
        await port.resume(record_id, 1, "preview", 1.0)
    assert caught.value.reason is RefusalReason.NOT_FOUND
    assert asked == []


async def test_resume_sends_what_was_seen(serve, port_to):
    """A resume is one POST with the paused incarnation, the reason and the time there is."""
    seen = []

    async def handler(request):
        seen.append((request.method, request.path, wire.resume_from_json(await request.read())))
        return web.Response(body=wire.sandbox_to_json(SANDBOX))

    port = port_to(await serve(handler))
    assert await port.resume("sb_aaaaaaaa", 2, "preview", 17.5) == SANDBOX
    call = wire.ResumeCall(paused_incarnation=2, reason="preview", timeout=17.5)
    assert seen == [("POST", "/internal/edge/v1/sandboxes/sb_aaaaaaaa/resume", call)]


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (404, "not_found", RefusalReason.NOT_FOUND),
        (409, "auto_resume_disabled", RefusalReason.AUTO_RESUME_DISABLED),
        (503, "resume_failed", RefusalReason.FAILED),
        (503, "resume_timeout", RefusalReason.TIMEOUT),
    ],
)
async def test_typed_refusals(serve, port_to, status, code, reason):
    """Each refusal of the contract arrives with its reason."""

    async def handler(request):
        return web.json_response({"code": code, "error": "no"}, status=status)

    with pytest.raises(ResumeRefused) as caught:
        await port_to(await serve(handler)).resume("sb_aaaaaaaa", 3, "preview", 5.0)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"<html>no route</html>"),
        (404, b'{"code": "route_not_found"}'),
        (404, b'["not_found"]'),
        (404, b'{"code": ["not_found"]}'),
        (503, b'{"code": "upstream_down"}'),
        (503, b""),
        (409, b'{"code": "resume_failed"}'),
        (503, b'{"code": "auto_resume_disabled"}'),
        (200, b'{"code": "not_found"}'),
        (503, b"[" * 100_000),
    ],
)
async def test_refusals_of_others_are_no_answer(serve, port_to, status, body):
    """A 404 or 503 of a proxy in front must not look like the control plane's own word."""

    async def handler(request):
        return web.Response(status=status, body=body)

    port = port_to(await serve(handler))
    await fails(CALLS["resume"], port)
    await fails(CALLS["sandbox"], port)
    await fails(CALLS["grant"], port)


async def test_unknown_ids_have_no_record(serve, port_to):
    """The control plane's own 404 is the answer None."""

    async def handler(request):
        return web.json_response({"code": "not_found"}, status=404)

    port = port_to(await serve(handler))
    assert await port.sandbox("sb_aaaaaaaa") is None
    assert await port.grant("pvg_1") is None


async def test_usage_and_acks_are_handed_over(serve, port_to):
    """Reports and acks arrive in the wire format, the ack with this edge's name."""
    seen = {}

    async def handler(request):
        assert request.content_type == "application/json"
        seen[request.path.rpartition("/")[2]] = await request.read()
        return web.Response(status=204)

    port = port_to(await serve(handler))
    await port.report(BATCH)
    await port.ack("sb_aaaaaaaa", 7, 2)
    assert wire.usage_from_json(seen["usage"]) == BATCH
    assert wire.ack_from_json(seen["acks"]) == wire.AckCall(
        edge="edge 1&", sandbox_id="sb_aaaaaaaa", version=7, in_flight=2
    )


async def test_connections_are_used_again(serve, port_to):
    """One session, one kept-alive connection for calls in a row."""
    peers = set()

    async def handler(request):
        peers.add(request.transport.get_extra_info("peername"))
        return web.Response(body=wire.sandbox_to_json(SANDBOX))

    port = port_to(await serve(handler))
    for _ in range(3):
        await port.sandbox("sb_aaaaaaaa")
    assert len(peers) == 1


async def test_resumes_do_not_hold_up_look_ups(serve, port_to, monkeypatch):
    """While every place for resumes is taken, a look-up goes through at once."""
    monkeypatch.setattr(http, "RESUME_CALLS", 2)
    waiting, release = asyncio.Semaphore(0), asyncio.Event()
    resumes = []

    async def handler(request):
        if request.method == "POST":
            resumes.append(request.path)
            waiting.release()
            await release.wait()
        return web.Response(body=wire.sandbox_to_json(SANDBOX))

    port = port_to(await serve(handler))
    calls = [asyncio.create_task(CALLS["resume"](port)) for _ in range(3)]
    await waiting.acquire()
    await waiting.acquire()
    assert await port.sandbox("sb_aaaaaaaa") == SANDBOX
    assert len(resumes) == 2
    release.set()
    assert await asyncio.gather(*calls) == [SANDBOX] * 3


async def test_look_ups_take_turns(serve, port_to, monkeypatch):
    """So many are under way at once and no more; resumes go through meanwhile, and everybody is answered."""
    monkeypatch.setattr(http, "SHORT_CALLS", 2)
    arrived, release = asyncio.Semaphore(0), asyncio.Event()
    under_way, most = 0, 0

    async def handler(request):
        nonlocal under_way, most
        if request.method == "GET":
            under_way += 1
            most = max(most, under_way)
            arrived.release()
            await release.wait()
            under_way -= 1
        return web.Response(body=wire.sandbox_to_json(SANDBOX))

    port = port_to(await serve(handler), timeout=60.0)
    calls = [asyncio.create_task(port.sandbox("sb_aaaaaaaa")) for _ in range(6)]
    await arrived.acquire()
    await arrived.acquire()
    assert await CALLS["resume"](port) == SANDBOX
    release.set()
    assert await asyncio.gather(*calls) == [SANDBOX] * 6
    assert most == 2


# --- Control planes that give no usable answer ---------------------------------------------------


@every_call
async def test_nobody_listens(call, port_to, unused_tcp_port):
    """A refused connection is Unavailable, for every call."""
    assert "connect" in await fails(call, port_to(f"http://127.0.0.1:{unused_tcp_port}"))


@every_call
@pytest.mark.parametrize("status", [101, 200, 204, 401, 403, 429, 500, 502, 503])
async def test_other_statuses(call, serve, port_to, status):
    """Statuses outside the contract, with a body that fits nothing, are Unavailable."""

    async def handler(request):
        return web.Response(status=status, body=b"" if status in (101, 204) else b"{}")

    port = port_to(await serve(handler))
    if status == 204 and call in (CALLS["report"], CALLS["ack"]):
        await call(port)  # the one status that is theirs
    else:
        await fails(call, port)


@every_call
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(call, serve, port_to, status):
    """A redirect leads nowhere, whatever waits behind it: no second request is made."""
    paths = []

    async def handler(request):
        paths.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    await fails(call, port_to(await serve(handler)))
    assert len(paths) == 1
    assert paths[0] != "/elsewhere"


@pytest.mark.parametrize("name", sorted(CALLS.keys() - {"resume"}))
async def test_silence(name, serve, port_to):
    """A control plane that accepts and says nothing costs the call's own time, no more."""

    async def handler(request):
        await asyncio.Event().wait()

    port = port_to(await serve(handler), timeout=0.05)
    assert "0.05 s" in await fails(CALLS[name], port)


async def test_resume_has_its_own_time(serve, port_to, monkeypatch):
    """A resume waits for its own timeout and the margin, not for that of look-ups."""
    monkeypatch.setattr(http, "RESUME_MARGIN", 0.05)
    calls = []

    async def handler(request):
        calls.append(request.path)
        await asyncio.Event().wait()

    port = port_to(await serve(handler), timeout=60.0)
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert "0.1 s" in await fails(lambda p: p.resume("sb_aaaaaaaa", 3, "preview", 0.05), port)
    assert loop.time() - before < 30.0
    assert len(calls) == 1


BYTES = {
    "closes at once": b"",
    "is not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n{}",
    "bad chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
    "huge header": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n{}",
    "switches without a key": b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
    "not UTF-8": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xfe",
    "deep JSON": b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n" + b"[" * 90_000,
}


@every_call
@pytest.mark.parametrize("answer", BYTES.values(), ids=BYTES)
async def test_garbage(call, serve_bytes, port_to, answer):
    """Whatever bytes come back, the call ends with Unavailable, and a POST is sent only once."""
    methods = []

    async def script(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        methods.append(head.split()[0])
        writer.write(answer)
        await writer.drain()

    await fails(call, port_to(await serve_bytes(script)))
    # aiohttp asks a second time when a GET got no answer at all; a POST is never repeated.
    assert methods in ([b"GET"], [b"GET", b"GET"], [b"POST"])


@pytest.mark.parametrize("framed", [True, False], ids=["length", "chunked"])
async def test_oversized_bodies_are_not_read_to_the_end(serve, port_to, monkeypatch, framed):
    """An answer larger than any record is given up at the limit, however it is framed."""
    monkeypatch.setattr(http, "MAX_BODY", 4096)
    body = wire.sandbox_to_json(SANDBOX)[:-1] + b"," + b" " * 5000 + b'"x":1}'
    sent = 0

    async def handler(request):
        nonlocal sent
        if framed:
            return web.Response(body=body)
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(1000):
            await response.write(body)
            sent += len(body)
        return response

    assert "too long" in await fails(CALLS["sandbox"], port_to(await serve(handler)))
    assert sent < 5_000_000


LIES = {
    "another id": wire.sandbox_to_json(replace(SANDBOX, id="sb_bbbbbbbb")),
    "id in other case": wire.sandbox_to_json(replace(SANDBOX, id="SB_AAAAAAAA")),
    "unknown state": wire.sandbox_to_json(SANDBOX).replace(b'"running"', b'"sleeping"'),
    "version as text": wire.sandbox_to_json(SANDBOX).replace(b'"version":7', b'"version":"7"'),
    "version as boolean": wire.sandbox_to_json(SANDBOX).replace(b'"version":7', b'"version":true'),
    "no incarnation": wire.sandbox_to_json(SANDBOX).replace(b'"incarnation":3,', b""),
    "a grant": wire.grant_to_json(GRANT),
    "a list": b"[" + wire.sandbox_to_json(SANDBOX) + b"]",
    "null": b"null",
    "two records": wire.sandbox_to_json(SANDBOX) * 2,
}


@pytest.mark.parametrize("body", LIES.values(), ids=LIES)
async def test_lies_are_not_believed(serve, port_to, body):
    """A record that does not fit, or is about another id, is as good as no answer."""

    async def handler(request):
        return web.Response(body=body)

    port = port_to(await serve(handler))
    await fails(CALLS["sandbox"], port)
    await fails(CALLS["resume"], port)


async def test_grants_of_another_id_are_not_believed(serve, port_to):
    """Grants are held to the same rule."""

    async def handler(request):
        return web.Response(body=wire.grant_to_json(replace(GRANT, id="pvg_2")))

    assert "another id" in await fails(CALLS["grant"], port_to(await serve(handler)))


async def test_cookies_of_the_control_plane_are_not_kept(serve, port_to):
    """Nothing but the token identifies the edge; a Set-Cookie is not sent back."""
    cookies = []

    async def handler(request):
        cookies.append(request.headers.get("Cookie"))
        response = web.Response(body=wire.sandbox_to_json(SANDBOX))
        response.set_cookie("session", "x")
        return response

    port = port_to((await serve(handler)).replace("127.0.0.1", "localhost"))
    await port.sandbox("sb_aaaaaaaa")
    await port.sandbox("sb_aaaaaaaa")
    assert cookies == [None, None]


async def test_a_token_that_is_no_header_value():
    """A token with a line break cannot smuggle a header; the call fails and does not show it."""
    evil = ControlPlaneSettings(url="http://127.0.0.1:9", token="x" * 40 + "\r\nHost: evil")
    port = HttpStatePort(evil, "edge-1")
    message = await fails(CALLS["sandbox"], port)
    assert "evil" not in message
    await port.close()


@every_call
async def test_calls_after_close(call, serve, port_to):
    """A closed port answers Unavailable and opens nothing again."""
    asked = []

    async def handler(request):
        asked.append(request.path)
        return web.Response(body=wire.sandbox_to_json(SANDBOX))

    port = port_to(await serve(handler))
    await port.sandbox("sb_aaaaaaaa")
    await port.close()
    await port.close()
    await fails(call, port)
    assert len(asked) == 1


async def test_cancelling_a_call_is_not_a_failure(serve, port_to):
    """Whoever cancels a call sees the cancellation, and the connection is let go."""
    arrived, gone = asyncio.Event(), asyncio.Event()

    async def handler(request):
        arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            gone.set()

    port = port_to(await serve(handler))
    call = asyncio.create_task(port.sandbox("sb_aaaaaaaa"))
    await arrived.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await gone.wait()


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:3000",
        "ftp://host",
        "http://",
        "http://user:secret-password@host",
        "http://host?x=1",
        "http://host#x",
        "http://host:99999",
        "",
    ],
)
def test_base_urls_that_cannot_work(url):
    """A base URL that is none is refused at once, without showing a password in it."""
    with pytest.raises(ValueError, match=r"control_plane\.url") as caught:
        HttpStatePort(settings(url), "edge-1")
    assert "secret-password" not in str(caught.value)


# --- The watch -----------------------------------------------------------------------------------


def watcher(*frames, then="wait", seen=None):
    """A control plane that sends these frames to every watch and then waits or closes."""

    async def handler(request):
        if seen is not None:
            seen.append((request.path, dict(request.query), request.headers["Authorization"]))
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for frame in frames:
            if isinstance(frame, bytes):
                await socket.send_bytes(frame)
            else:
                await socket.send_str(frame)
        if then == "close":
            await socket.close(code=1011, message=b"going down")
        elif then == "drop":
            request.transport.abort()
        else:
            await socket.receive()
        return socket

    return handler


async def test_watch_passes_on_every_event(serve, port_to):
    """Changes, heartbeats and resyncs come in order, and the query names edge and cursor."""
    sent = [Change(1, SANDBOX), Heartbeat(1), Change(2, GRANT), Heartbeat(2), Resync(9)]
    seen = []
    port = port_to(await serve(watcher(*map(wire.event_to_json, sent), seen=seen)))
    got = []
    async with aclosing(port.watch(41)) as events:
        async for event in events:
            got.append(event)
            if len(got) == len(sent):
                break
    assert got == sent
    await first_event(port)
    query = {"edge": "edge 1&"}
    path = "/internal/edge/v1/events"
    assert seen == [
        (path, query | {"cursor": "41"}, f"Bearer {TOKEN}"),
        (path, query, f"Bearer {TOKEN}"),
    ]


async def test_watch_gives_up_on_silence(serve, port_to):
    """No frame within the silence: Unavailable, although the connection stands."""
    port = port_to(await serve(watcher(wire.event_to_json(Heartbeat(1)))), silence=0.05)
    async with aclosing(port.watch(None)) as events:
        assert await anext(events) == Heartbeat(1)
        await fails(lambda _: anext(events), port)


async def test_pings_are_no_heartbeats(serve, port_to):
    """A control plane that only pings is connected, not caught up: given up like a silent one."""
    pings = 0

    async def handler(request):
        nonlocal pings
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        while True:
            await socket.ping()
            pings += 1
            await asyncio.sleep(0.01)

    port = port_to(await serve(handler), silence=0.1)
    await fails(CALLS["watch"], port)
    assert pings > 1


@pytest.mark.parametrize("then", ["close", "drop"])
async def test_watch_ends_with_its_connection(serve, port_to, then):
    """A close frame and a lost connection both end the watch with Unavailable."""
    port = port_to(await serve(watcher(wire.event_to_json(Heartbeat(3)), then=then)))
    async with aclosing(port.watch(None)) as events:
        assert await anext(events) == Heartbeat(3)
        await fails(lambda _: anext(events), port)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "null",
        "{}",
        '{"type":"heartbeat"}',
        '{"type":"heartbeat","cursor":"1"}',
        '{"type":"surprise","cursor":1}',
        '{"type":"sandbox","cursor":1,"record":{}}',
        wire.event_to_json(Change(1, GRANT)).replace("99.0", "NaN"),
        wire.event_to_json(Change(1, GRANT)).replace('"type":"grant"', '"type":"sandbox"'),
        b'{"type":"heartbeat","cursor":1}',
        "[" * 50_000,
    ],
)
async def test_watch_refuses_bad_frames(serve, port_to, frame):
    """A frame outside the wire format ends the watch: what it meant to say is not known."""
    port = port_to(await serve(watcher(frame)))
    await fails(CALLS["watch"], port)


async def test_watch_bounds_frames(serve, port_to, monkeypatch):
    """A frame over the limit is not collected."""
    monkeypatch.setattr(http, "MAX_BODY", 2000)
    frame = wire.event_to_json(Heartbeat(1))
    port = port_to(await serve(watcher(frame, frame[:-1] + " " * 4000 + "}")))
    async with aclosing(port.watch(None)) as events:
        assert await anext(events) == Heartbeat(1)
        await fails(lambda _: anext(events), port)


async def test_closing_the_watch_closes_the_connection(serve, port_to):
    """Leaving the watch tells the control plane, which then waits for no ack of this edge."""
    ended = asyncio.get_running_loop().create_future()

    async def handler(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str(wire.event_to_json(Heartbeat(1)))
        ended.set_result((await socket.receive()).type)
        return socket

    await first_event(port_to(await serve(handler)))
    assert await ended in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING)


async def test_a_frozen_peer_does_not_hold_up_the_end(serve_bytes, port_to):
    """Leaving a watch whose peer has stopped answering takes a moment, not aiohttp's 10 s."""

    async def script(reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(
            hashlib.sha1((fields["Sec-WebSocket-Key"] + magic).encode()).digest()
        )
        text = wire.event_to_json(Heartbeat(1)).encode()
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n\x81" + bytes([len(text)]) + text
        )
        await asyncio.Event().wait()

    loop = asyncio.get_running_loop()
    port = port_to(await serve_bytes(script))
    before = loop.time()
    assert await first_event(port) == Heartbeat(1)
    assert loop.time() - before < 8.0


async def test_nothing_secret_is_logged(serve, port_to, caplog):
    """Not even aiohttp's own debug log shows the token."""
    caplog.set_level(logging.DEBUG)

    async def handler(request):
        return web.Response(status=500, body=json.dumps({"error": TOKEN}).encode())

    port = port_to(await serve(handler))
    for call in CALLS.values():
        await fails(call, port)
    assert TOKEN not in caplog.text
