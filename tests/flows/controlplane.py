"""A control plane on loopback that speaks the internal API for real and does what each test scripts.

It keeps records with versions, tells watchers of every change, and counts each call by kind, because
"one wake" and "a stranger costs nothing" are judged by what the *control plane* saw, never by the edge.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from edge.core.records import GrantRecord, SandboxRecord, State, Upstream
from edge.state import wire
from edge.state.port import Change, Heartbeat, Resync, UsageBatch, WatchEvent

TOKEN = "service-token-of-at-least-32-characters"
HEARTBEAT = 0.2

Script = Callable[["Call"], Awaitable[web.StreamResponse]]
"""What a call is answered with."""


@dataclass
class Call:
    """One call of an edge: ``kind`` is sandbox, grant, resume, usage, acks or events."""

    kind: str
    id: str
    request: web.Request
    body: bytes
    plane: ControlPlane

    @property
    def timeout(self) -> float:
        """The seconds a resume was given."""
        return wire.resume_from_json(self.body).timeout


class ControlPlane:
    """Records and calls. ``on_resume`` answers resumes; ``fault``, when set, every call but the watch."""

    def __init__(self) -> None:
        self.sandboxes: dict[str, SandboxRecord] = {}
        self.grants: dict[str, GrantRecord] = {}
        self.upstreams: dict[str, Upstream] = {}
        """Where the next incarnation of a sandbox will be reached."""
        self.jwks: dict[str, Any] = {"keys": []}
        self.calls: list[Call] = []
        self.counts: Counter[str] = Counter()
        self.acks: list[wire.AckCall] = []
        self.usage: list[UsageBatch] = []
        self.incarnations: Counter[str] = Counter()
        """New incarnations begun since the start, by sandbox."""
        self.on_resume: Script = resume
        self.fault: Script | None = None
        self.port = 0
        self._changes: list[Change] = []
        self._watchers: set[asyncio.Queue[WatchEvent]] = set()
        self._beating = True
        self._something = asyncio.Event()
        self._runner: web.AppRunner | None = None

    # --- Life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen, the second time on the same port as before."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/.well-known/jwks.json", self._keys),
                web.get(f"{wire.PREFIX}/events", self._events),
                web.get(f"{wire.PREFIX}/sandboxes/{{id}}", self._call("sandbox", self._sandbox)),
                web.get(f"{wire.PREFIX}/grants/{{id}}", self._call("grant", self._grant)),
                web.post(f"{wire.PREFIX}/sandboxes/{{id}}/resume", self._call("resume", None)),
                web.post(f"{wire.PREFIX}/usage", self._call("usage", self._take_usage)),
                web.post(f"{wire.PREFIX}/acks", self._call("acks", self._take_ack)),
            ]
        )
        # A script that waits for ever must end with its caller, or the test would hang.
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.05
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Die: nobody listens any more, every connection ends."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._runner is not None

    # --- For tests ----------------------------------------------------------------------------------

    def put(self, record: SandboxRecord | GrantRecord, *, tell: bool = True) -> Any:
        """Take over a record under the next version; watchers hear of it unless ``tell`` is off."""
        if isinstance(record, SandboxRecord):
            old = self.sandboxes.get(record.id)
            record = replace(record, version=old.version + 1 if old else record.version)
            self.sandboxes[record.id] = record
        else:
            known = self.grants.get(record.id)
            record = replace(record, version=known.version + 1 if known else record.version)
            self.grants[record.id] = record
        if tell:
            change = Change(len(self._changes) + 1, record)
            self._changes.append(change)
            for queue in self._watchers:
                queue.put_nowait(change)
        self._notify()
        return record

    def change_sandbox(
        self, sandbox_id: str, *, tell: bool = True, **changes: Any
    ) -> SandboxRecord:
        """Publish a sandbox's record with changes."""
        return self.put(replace(self.sandboxes[sandbox_id], **changes), tell=tell)

    def change_grant(self, grant_id: str, *, tell: bool = True, **changes: Any) -> GrantRecord:
        """Publish a grant's record with changes."""
        return self.put(replace(self.grants[grant_id], **changes), tell=tell)

    def begin_incarnation(self, sandbox_id: str, *, tell: bool = True) -> SandboxRecord:
        """The sandbox runs in a new incarnation."""
        self.incarnations[sandbox_id] += 1
        return self.change_sandbox(
            sandbox_id,
            tell=tell,
            state=State.RUNNING,
            incarnation=self.sandboxes[sandbox_id].incarnation + 1,
            running_since=time.time(),
            upstream=self.upstreams[sandbox_id],
        )

    def pause(self, sandbox_id: str, *, tell: bool = True) -> SandboxRecord:
        """The sandbox is paused."""
        return self.change_sandbox(
            sandbox_id, tell=tell, state=State.PAUSED, upstream=None, running_since=None
        )

    def fall_silent(self, *, silent: bool = True) -> None:
        """Heartbeats stop (or go on), connections stay."""
        self._beating = not silent

    async def until(self, holds: Callable[[], bool], seconds: float = 20.0) -> None:
        """Wait until something seen or published here makes ``holds`` true."""
        async with asyncio.timeout(seconds):
            while not holds():
                await self._something.wait()

    async def called(self, kind: str, times: int = 1) -> None:
        """Wait until calls of a kind have come that often."""
        await self.until(lambda: self.counts[kind] >= times)

    @property
    def asked(self) -> dict[str, int]:
        """What a stranger must not cause: look-ups and resumes so far."""
        return {kind: self.counts[kind] for kind in ("sandbox", "grant", "resume")}

    def _notify(self) -> None:
        # A new event each time, so that whoever waits is let go once per happening.
        happened, self._something = self._something, asyncio.Event()
        happened.set()

    # --- Answers ------------------------------------------------------------------------------------

    def _call(self, kind: str, answer: Script | None) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            if request.headers.get("Authorization") != f"Bearer {TOKEN}":
                return web.json_response({"code": "unauthorized"}, status=401)
            call = Call(kind, request.match_info.get("id", ""), request, await request.read(), self)
            self.calls.append(call)
            self.counts[kind] += 1
            self._notify()
            # Looked at now, not when the routes were made: scripts change during a test.
            return await (self.fault or answer or self.on_resume)(call)

        return handle

    async def _keys(self, _: web.Request) -> web.Response:
        self.counts["keys"] += 1
        return web.json_response(self.jwks)

    async def _sandbox(self, call: Call) -> web.Response:
        record = self.sandboxes.get(call.id)
        return told(record) if record else refusal(404, "not_found")

    async def _grant(self, call: Call) -> web.Response:
        record = self.grants.get(call.id)
        return _json(wire.grant_to_json(record)) if record else refusal(404, "not_found")

    async def _take_usage(self, call: Call) -> web.Response:
        self.usage.append(wire.usage_from_json(call.body))
        self._notify()
        return web.Response(status=204)

    async def _take_ack(self, call: Call) -> web.Response:
        self.acks.append(wire.ack_from_json(call.body))
        self._notify()
        return web.Response(status=204)

    async def _events(self, request: web.Request) -> web.WebSocketResponse:
        self.counts["events"] += 1
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        queue: asyncio.Queue[WatchEvent] = asyncio.Queue()
        cursor = int(request.query.get("cursor", len(self._changes)))
        if cursor > len(self._changes):
            cursor = len(self._changes)
            queue.put_nowait(Resync(cursor))
        for change in self._changes[cursor:]:
            queue.put_nowait(change)
        self._watchers.add(queue)
        try:
            await self._tell(socket, queue, cursor)
        except ConnectionError:
            pass  # The edge has ended.
        finally:
            self._watchers.discard(queue)
        return socket

    async def _tell(
        self, socket: web.WebSocketResponse, queue: asyncio.Queue[WatchEvent], cursor: int
    ) -> None:
        event: WatchEvent = Heartbeat(cursor)
        while True:
            if self._beating or not isinstance(event, Heartbeat):
                await socket.send_str(wire.event_to_json(event))
            cursor = event.cursor
            try:
                async with asyncio.timeout(HEARTBEAT):
                    event = await queue.get()
            except TimeoutError:
                event = Heartbeat(cursor)


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def told(record: SandboxRecord) -> web.Response:
    """A sandbox's record as an answer."""
    return _json(wire.sandbox_to_json(record))


def refusal(status: int, code: str) -> web.Response:
    """An error of the internal API."""
    return web.Response(
        status=status, body=json.dumps({"code": code}), content_type="application/json"
    )


# --- Scripts: what a call is answered with --------------------------------------------------------------


async def resume(call: Call) -> web.StreamResponse:
    """Compare-and-resume, as the internal API says."""
    plane = call.plane
    record = plane.sandboxes.get(call.id)
    if record is None:
        return refusal(404, "not_found")
    seen = wire.resume_from_json(call.body).paused_incarnation
    if record.state is State.PAUSED and record.incarnation == seen:
        if not record.auto_resume:
            return refusal(409, "auto_resume_disabled")
        plane.change_sandbox(call.id, state=State.RESUMING)
        record = plane.begin_incarnation(call.id)
    return told(record)


def after(event: asyncio.Event, script: Script = resume) -> Script:
    """The same, but not before the event."""

    async def answer(call: Call) -> web.StreamResponse:
        await event.wait()
        return await script(call)

    return answer


def refuse(status: int, code: str) -> Script:
    """An error of the internal API for every call."""

    async def answer(_: Call) -> web.StreamResponse:
        return refusal(status, code)

    return answer


def say(body: bytes, status: int = 200) -> Script:
    """These bytes, whatever was asked."""

    async def answer(_: Call) -> web.StreamResponse:
        return web.Response(status=status, body=body, content_type="application/json")

    return answer


async def hang(_: Call) -> web.StreamResponse:
    """No answer, ever."""
    await asyncio.Event().wait()
    raise AssertionError


async def hang_up(call: Call) -> web.StreamResponse:
    """The connection is reset in the middle of the call."""
    assert call.request.transport is not None
    call.request.transport.abort()
    return web.Response()
