"""The WebSockets of lifecycle events: the conversation, its deadlines and limits, and every way it ends."""

from __future__ import annotations

import asyncio
import json
import socket as sockets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from service import KEY, Service, until

from edge.appliance import subscription
from edge.appliance.api import lifecycle_streams as streams
from edge.appliance.events import Actor, Operation, Status

AUTH = {"Authorization": f"Bearer {KEY}"}
ALL = "/v1/lifecycle/ws"
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


class Stream:
    """A client's side of a stream."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def frame(self) -> dict[str, Any]:
        """The next frame."""
        async with asyncio.timeout(20):
            return dict(json.loads(await self.socket.receive_str()))

    async def event(self) -> dict[str, Any]:
        """The event in the next frame."""
        frame = await self.frame()
        assert frame["type"] == "event", frame
        assert frame.keys() == {"type", "event"}
        return dict(frame["event"])

    async def events(self, count: int) -> list[dict[str, Any]]:
        """So many of them."""
        return [await self.event() for _ in range(count)]

    async def error(self) -> str:
        """The message of the error that comes next and is the last frame."""
        frame = await self.frame()
        assert frame.keys() == {"type", "message"} and frame["type"] == "error", frame
        assert await self.closed() == 1008
        return str(frame["message"])

    async def closed(self) -> int | None:
        """The close code with which the server ends it."""
        async with asyncio.timeout(20):
            message = await self.socket.receive()
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        return self.socket.close_code


@asynccontextmanager
async def connected(
    service: Service, path: str = ALL, *, autoping: bool = True
) -> AsyncIterator[Stream]:
    """A stream on which nothing has been said."""
    socket = await service.session.ws_connect(
        path, headers=AUTH, autoping=autoping, timeout=aiohttp.ClientWSTimeout(ws_close=1.0)
    )
    try:
        yield Stream(socket)
    finally:
        await socket.close()


@asynccontextmanager
async def subscribed(service: Service, path: str = ALL, **said: Any) -> AsyncIterator[Stream]:
    """A stream that has begun."""
    async with connected(service, path) as stream:
        await stream.socket.send_str(json.dumps({"type": "subscribe", **said}))
        frame = await stream.frame()
        assert frame["type"] == "subscribed", frame
        yield stream


async def listed(service: Service, query: str = "") -> list[dict[str, Any]]:
    """What the list shows, oldest first: the oracle."""
    status, page = await service.api("GET", f"/v1/lifecycle/events?order=asc&limit=1000{query}")
    assert status == 200
    return list(page["events"])


def emit(service: Service, number: int = 0, sandbox: str = "sb_test", **more: object) -> None:
    """An event out of thin air."""
    service.plane.parts.events.emit(
        Operation.CREATE,
        Status.SUCCEEDED,
        sandbox_id=sandbox,
        actor=Actor.USER,
        reason="api",
        metadata={"number": number, **more},
    )


async def test_a_life_as_it_happens(service: Service) -> None:
    """Everything that is published to happen, with its fields: live, on both streams, as in the list."""
    async with subscribed(service) as everything:
        sandbox = await service.create(timeout_action="hibernate")
        base = f"/v1/sandboxes/{sandbox}"
        async with subscribed(service, f"{base}/lifecycle/ws") as own:
            _, snapshot = await service.api("POST", f"{base}/hibernate")
            await service.api("POST", f"/v1/sandboxes/{snapshot['id']}/resume")
            await service.api(
                "POST", f"{base}/timeout", {"timeout_ms": 60_000, "timeout_action": "destroy"}
            )
            await service.api("DELETE", base)
            events = await everything.events(9)
            assert await own.events(9) == events
    about = {"sandbox_id": sandbox, "audience": "customer", "actor_kind": "user"}
    of_snapshot = {**about, "snapshot_id": snapshot["id"], "reason": "api"}
    told = {"timeout_ms": 60_000, "timeout_action": "destroy"}
    same = {"source_sandbox_id": sandbox, "target_sandbox_id": sandbox}
    expected = [
        about | {"operation": "create", "status": "succeeded", "reason": "api"}
        | {"metadata": {"timeout_action": "hibernate"}},
        of_snapshot | {"operation": "hibernate", "status": "requested"},
        of_snapshot | {"operation": "hibernate", "status": "succeeded"},
        of_snapshot | {"operation": "snapshot_created", "status": "succeeded"}
        | {"metadata": {"created_via": "hibernate"}},
        of_snapshot | {"operation": "resume_from_snapshot", "status": "succeeded"} | same,
        about | {"operation": "timeout_updated", "status": "requested", "reason": "api"}
        | {"metadata": told},
        about | {"operation": "timeout_updated", "status": "succeeded", "reason": "api"}
        | {"metadata": told},
        about | {"operation": "destroy", "status": "requested", "reason": "manual"},
        about | {"operation": "destroy", "status": "succeeded", "reason": "manual"},
    ]  # fmt: skip
    given = [{k: v for k, v in e.items() if k not in ("id", "occurred_at")} for e in events]
    assert given == expected
    assert await listed(service) == events
    _, page = await service.api("GET", f"/v1/snapshots/{snapshot['id']}/lifecycle?order=asc")
    assert page["events"] == events[1:5]


@pytest.mark.parametrize("action", ["hibernate", "destroy"])
async def test_a_timeout_as_it_happens(service: Service, action: str) -> None:
    """First that it expired, then what it does, by the system, for that reason; and a wake by an edge."""
    async with subscribed(service) as stream:
        sandbox = await service.create(
            timeout_ms=1, timeout_action=action, auto_resume=action == "hibernate"
        )
        steps = {
            "hibernate": [
                "hibernate requested",
                "hibernate succeeded",
                "snapshot_created succeeded",
            ],
            "destroy": ["destroy requested", "destroy succeeded"],
        }[action]
        events = await stream.events(2 + len(steps))
        assert [f"{e['operation']} {e['status']}" for e in events] == [
            "create succeeded", "timeout_expired succeeded", *steps,
        ]  # fmt: skip
        assert {(e["actor_kind"], e["reason"]) for e in events[1:]} == {("system", "timeout")}
        assert {e["sandbox_id"] for e in events} == {sandbox}
        if action == "hibernate":
            assert {e["snapshot_id"] for e in events[2:]} == {events[2]["snapshot_id"]}
            call = {"paused_incarnation": 1, "reason": "http request", "timeout": 5.0}
            status, _ = await service.edge("POST", f"sandboxes/{sandbox}/resume", call)
            assert status == 200
            woke = await stream.event()
            assert (woke["operation"], woke["status"]) == ("resume_from_snapshot", "succeeded")
            assert (woke["actor_kind"], woke["reason"]) == ("system", "http request")
            assert woke["snapshot_id"] == events[2]["snapshot_id"]
            assert woke["source_sandbox_id"] == woke["target_sandbox_id"] == sandbox


async def test_the_first_answer(service: Service) -> None:
    """Says what was understood, and whether there is a way back."""
    async with connected(service) as stream:
        await stream.socket.send_str('{"type": "subscribe", "status": "failed", "newer": 1}')
        assert await stream.frame() == {
            "type": "subscribed",
            "subscription": {"audience": "customer", "status": "failed"},
            "reconnect_mode": "cursor_replay",
        }
    async with connected(service) as stream:
        await stream.socket.send_str('{"type": "subscribe", "live_only": true}')
        assert (await stream.frame())["reconnect_mode"] == "live_only"


async def test_a_destroyed_sandbox_has_its_stream(service: Service) -> None:
    """What was is replayed; then there is nothing, also not of others."""
    sandbox = await service.create()
    await service.api("DELETE", f"/v1/sandboxes/{sandbox}")
    async with subscribed(service, f"/v1/sandboxes/{sandbox}/lifecycle/ws") as stream:
        events = await stream.events(3)
        assert {event["sandbox_id"] for event in events} == {sandbox}
        await service.create()
        await stream.socket.ping()
        with pytest.raises(TimeoutError):
            await stream.socket.receive(timeout=0.2)


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        (ALL, UPGRADE, 401, "unauthorized"),
        (ALL, UPGRADE | {"Authorization": "Bearer wrong"}, 401, "unauthorized"),
        ("/v1/sandboxes/sb_12345678/lifecycle/ws", UPGRADE, 401, "unauthorized"),
        ("/v1/sandboxes/sb_12345678/lifecycle/ws", UPGRADE | AUTH, 404, "sandbox_not_found"),
        (ALL, AUTH, 400, "invalid_request"),
        (ALL, AUTH | UPGRADE | {"Upgrade": "h2c"}, 400, "invalid_request"),
        (ALL, AUTH | UPGRADE | {"Sec-WebSocket-Version": "12"}, 400, "invalid_request"),
        (ALL, AUTH | UPGRADE | {"Sec-WebSocket-Key": "short"}, 400, "invalid_request"),
        (f"{ALL}?operation=create", AUTH | UPGRADE, 400, "invalid_request"),
    ],
)
async def test_upgrades_that_cannot_be(
    service: Service, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    """Refused before the upgrade, as every call is: a flat error."""
    answer, body = await service.raw("GET", path, headers=headers)
    assert (answer.status, json.loads(body)["code"]) == (status, code)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("{", "not JSON"),
        (b'{"type": "subscribe"}', "not text"),
        ('{"type": "ping"}', "subscribe"),
        ('{"type": "subscribe", "operation": "explode"}', "operation"),
        ('{"type": "subscribe", "after_event_id": "no"}', "after_event_id"),
        ('{"type": "subscribe", "metadata": {"x": "' + "x" * streams.MAX_FRAME + '"}}', "large"),
    ],
)
async def test_first_frames_that_cannot_be(
    service: Service, frame: str | bytes, message: str
) -> None:
    """An error frame, and the end."""
    async with connected(service) as stream:
        if isinstance(frame, str):
            await stream.socket.send_str(frame)
        else:
            await stream.socket.send_bytes(frame)
        assert message in await stream.error()


async def test_after_subscribe_nothing_is_expected(service: Service) -> None:
    """Whatever comes is an error, a second subscribe included."""
    for frame in ('{"type": "subscribe"}', "x", '{"type": "unsubscribe"}'):
        async with subscribed(service) as stream:
            await stream.socket.send_str(frame)
            assert "Nothing is expected" in await stream.error()


async def test_a_frame_beyond_all_measure_ends_it(service: Service) -> None:
    """Unread, with the code for that."""
    async with connected(service) as stream:
        await stream.socket.send_str("x" * (streams.HARD_LIMIT + 1))
        assert await stream.closed() == 1009


async def test_who_does_not_subscribe_is_ended(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an error, after a while."""
    monkeypatch.setattr(streams, "SUBSCRIBE", 0.1)
    async with connected(service) as stream:
        assert "No subscribe came" in await stream.error()


async def test_back_with_a_cursor(service: Service) -> None:
    """Everything after it, in order; then what happens; filters apply to both."""
    for number in range(300):
        emit(service, number, f"sb_{number % 2}")
    events = await listed(service)
    cursor = events[9]["id"]
    async with subscribed(service, after_event_id=cursor, replay_limit=5) as stream:
        assert await stream.events(290) == events[10:]
        emit(service, 300)
        assert (await stream.event())["metadata"] == {"number": 300}
    async with subscribed(service, after_event_id=cursor, sandbox_id="sb_0") as stream:
        assert await stream.events(145) == events[10::2]


async def test_restarts_keep_events_and_cursors(tmp_path: Path) -> None:
    """What an earlier run told is listed and replayed by the next one, which goes on behind it."""
    async with Service(tmp_path) as first:
        sandbox = await first.create()
        await first.api("DELETE", f"/v1/sandboxes/{sandbox}")
        before = await listed(first)
    async with Service(tmp_path) as second:
        async with subscribed(second, after_event_id=before[0]["id"]) as stream:
            assert await stream.events(2) == before[1:]
            other = await second.create()
            assert (await stream.event())["sandbox_id"] == other
        assert (await listed(second))[:3] == before
        async with subscribed(second, f"/v1/sandboxes/{sandbox}/lifecycle/ws") as stream:
            assert await stream.events(3) == before
        status, page = await second.api("GET", f"/v1/sandboxes/{sandbox}/lifecycle?order=asc")
        assert (status, page["events"]) == (200, before)


async def test_the_end_of_the_control_plane_is_no_error(tmp_path: Path) -> None:
    """Streams are closed as going away, whether they have begun or not, so that clients come back."""
    async with (
        Service(tmp_path) as service,
        subscribed(service) as begun,
        connected(service) as mute,
    ):
        stopping = asyncio.create_task(service.plane.stop())
        assert await begun.closed() == 1001
        assert await mute.closed() == 1001
        await stopping


async def test_streams_are_counted(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """One too many is 503 and may come back; who leaves makes room, however he leaves."""
    monkeypatch.setattr(subscription, "MAX_STREAMS", 1)

    async def status() -> int:
        answer, body = await service.raw("GET", ALL, headers=AUTH | UPGRADE)
        if answer.status == 503:
            assert json.loads(body)["code"] == "too_many_streams"
            assert answer.headers["Retry-After"] == "5"
        return int(answer.status)

    places = service.plane.parts.lifecycle_streams
    async with subscribed(service):
        assert await status() == 503
    await until(lambda: places._taken == 0)
    async with subscribed(service) as stream:
        stream.socket._response.connection.transport.abort()
        await until(lambda: places._taken == 0)
    async with connected(service) as stream:
        await stream.socket.send_str("{")
        await stream.error()
    await until(lambda: places._taken == 0)
    async with subscribed(service):
        pass


async def test_pings(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that answers stays; one that has missed two is closed, without an error."""
    monkeypatch.setattr(streams, "PING", 0.05)
    async with connected(service, autoping=False) as stream:
        await stream.socket.send_str('{"type": "subscribe"}')
        await stream.frame()
        for _ in range(5):
            message = await stream.socket.receive(timeout=20)
            assert message.type is aiohttp.WSMsgType.PING
            await stream.socket.pong(message.data)
        kinds = []
        while (message := await stream.socket.receive(timeout=20)).type is aiohttp.WSMsgType.PING:
            kinds.append(message.type)
            assert len(kinds) <= 2, "nobody notices that no pong comes"
        assert len(kinds) == 2
        assert (message.type, stream.socket.close_code) == (aiohttp.WSMsgType.CLOSE, 1011)


async def test_pings_of_clients_are_answered(service: Service) -> None:
    """By a pong with the same bytes, in the middle of a subscription."""
    async with connected(service, autoping=False) as stream:
        await stream.socket.send_str('{"type": "subscribe"}')
        await stream.frame()
        await stream.socket.ping(b"here")
        message = await stream.socket.receive(timeout=20)
        assert (message.type, message.data) == (aiohttp.WSMsgType.PONG, b"here")


TOLD = {"type": "error", "message": subscription.TOO_SLOW}


class Slow:
    """A client by hand that takes nothing until it is told to; its kernel holds little for it."""

    def __init__(self, port: int) -> None:
        self.raw = sockets.socket()
        self.raw.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 64 * 1024)
        self.raw.connect(("127.0.0.1", port))
        self.raw.settimeout(20)
        fields = {"Host": "x", **UPGRADE, **AUTH}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self.raw.sendall(f"GET {ALL} HTTP/1.1\r\n{head}\r\n".encode())
        self.file = self.raw.makefile("rb")
        while self.file.readline() != b"\r\n":
            pass
        text = b'{"type":"subscribe"}'
        self.raw.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
        assert self.frame()["type"] == "subscribed"

    def frame(self) -> Any:
        """The next frame: of text its JSON, of a close its code; None for the end of the connection."""
        head = self.file.read(2)
        if len(head) < 2:
            return None
        size = head[1] if head[1] < 126 else int.from_bytes(self.file.read(2), "big")
        body = self.file.read(size)
        return json.loads(body) if head[0] == 0x81 else int.from_bytes(body[:2], "big")

    def close(self) -> None:
        """Leave."""
        self.file.close()
        self.raw.close()


@pytest.fixture
async def slow(service: Service, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Slow]:
    """A slow client that is subscribed, on a machine that may be slow, too."""
    monkeypatch.setattr(streams, "LINGER", 60.0)
    client = await asyncio.to_thread(Slow, service.plane.port)
    yield client
    client.close()


def connections(service: Service) -> list[Any]:
    """The server's, but for those of its test client's calls."""
    runner = service.plane._runner
    assert runner is not None and runner.server is not None
    return list(runner.server.connections)


async def flood(service: Service, events: int, **more: object) -> None:
    """More than all buffers on the way hold, piece by piece."""
    for number in range(events):
        emit(service, number, **more)
        if number % 100 == 0:
            await asyncio.sleep(0)


def _numbers(frames: list[Any]) -> list[int]:
    return [frame["event"]["metadata"]["number"] for frame in frames]


async def test_a_slow_reader_is_told(
    service: Service, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it still gets is the gapless beginning, then the error, then the close."""
    monkeypatch.setattr(streams, "STALL", 0.2)
    running = service.plane.parts.scope._running
    await flood(service, 3000)
    await until(lambda: not any(task.get_name().endswith("tell") for task in running), 20)

    def read() -> list[Any]:
        frames = []
        while (frame := slow.frame()) is not None:
            frames.append(frame)
            if isinstance(frame, int):
                break
        return frames

    *frames, error, code = await asyncio.to_thread(read)
    assert _numbers(frames) == list(range(len(frames)))
    assert 0 < len(frames) < 3000
    assert error == TOLD
    assert code == 1008


async def test_a_reader_that_takes_nothing_is_cut_off(
    service: Service, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is free again, and nothing is held for it."""
    monkeypatch.setattr(streams, "STALL", 0.2)
    monkeypatch.setattr(streams, "LINGER", 0.2)
    await flood(service, 100, pad="x" * 50_000)
    await until(lambda: service.plane.parts.lifecycle_streams._taken == 0, 20)
    await until(lambda: not connections(service))

    def read() -> list[Any]:
        frames = []
        try:
            while (frame := slow.frame()) is not None:
                frames.append(frame)
        except (ConnectionError, json.JSONDecodeError):
            pass
        return frames

    frames = await asyncio.to_thread(read)
    # Where the last frame happened to fit, the kernel took what came after it, too.
    events = [frame for frame in frames if isinstance(frame, dict) and frame["type"] == "event"]
    assert frames == events + [TOLD, 1008][: len(frames) - len(events)]
    assert _numbers(events) == list(range(len(events)))
    assert len(events) < 100


async def test_a_reader_that_comes_late_misses_nothing(service: Service, slow: Slow) -> None:
    """While it takes nothing, what happens waits in the log, not in memory for it."""
    await flood(service, 3000)
    await until(lambda: any(one.writing_paused for one in connections(service)), 20)
    waiting = [one.transport.get_write_buffer_size() for one in connections(service)]
    assert 0 < sum(waiting) < 2000, "bytes: the rest of one frame"

    def read() -> list[Any]:
        return [slow.frame() for _ in range(3000)]

    assert _numbers(await asyncio.to_thread(read)) == list(range(3000))


async def test_a_slow_reader_holds_nobody_up(service: Service, slow: Slow) -> None:
    """Others get what happens, and calls are answered."""
    async with subscribed(service, live_only=True) as quick:
        await flood(service, 2000)
        events = await quick.events(2000)
        assert [event["metadata"]["number"] for event in events] == list(range(2000))
    assert (await service.api("GET", "/v1/sandboxes"))[0] == 200


async def test_a_crash_is_logged_and_is_no_error_frame(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client comes back, perhaps to a control plane that is better."""
    logged: list[str] = []

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(service.plane.parts.scope, "_on_crash", lambda name, _: logged.append(name))
    monkeypatch.setattr(streams, "event_view", broken)
    async with subscribed(service) as stream:
        emit(service)
        assert await stream.closed() == 1011
    assert logged == ["lifecycle stream, tell"]
